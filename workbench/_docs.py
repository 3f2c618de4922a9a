"""The generated parts of the docs: ``python -m workbench._docs`` writes them, a test checks that they are up to date.

``docs/knobs.md`` comes from the metadata on the fields of ``EngineConfig`` and ``SamplingParams``; ``docs/run.svg`` (with
``--picture``) from a real run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from workbench._knobs import Knob, knobs
from workbench.config import EngineConfig
from workbench.request import SamplingParams

ROOT = Path(__file__).parents[1]
PICTURE_PROMPTS = (
    "What is gravity?",
    "Name three primes.",
    "Write one line about rain.",
    "Write one line about snow.",
    "Why is the sky blue?",
)


def knob_tables() -> str:
    """``docs/knobs.md``."""
    return "\n".join(
        [
            "# Knobs",
            "",
            "Written by `python -m workbench._docs` from the fields themselves; edit those, not this file. Every knob is an option of",
            "`%%infer` and of `workbench infer` (`max_num_seqs` is `--max-num-seqs`), and a default that",
            "`%config InferMagics.max_num_seqs = 4` sets for a notebook.",
            "",
            "## EngineConfig: one engine",
            "",
            *_table(EngineConfig, with_live=True),
            "",
            "*live*: may be changed between two steps of a running engine.",
            "",
            "## SamplingParams: one request",
            "",
            *_table(SamplingParams, with_live=False),
            "",
        ]
    )


def picture() -> str:
    """``docs/run.svg``: a run of the default model on a pool that is a little too small."""
    from workbench.engine import Engine
    from workbench.render.svg import picture_svg

    with Engine("smollm2", max_num_seqs=4, num_blocks=10, max_num_batched_tokens=64) as engine:
        return picture_svg(engine.run(list(PICTURE_PROMPTS), max_tokens=32).trace)


def main(arguments: list[str]) -> None:
    """Write the files."""
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "knobs.md").write_text(knob_tables(), encoding="utf-8")
    if "--picture" in arguments:
        (ROOT / "docs" / "run.svg").write_text(picture() + "\n", encoding="utf-8")


def _table(settings: type[msgspec.Struct], *, with_live: bool) -> list[str]:
    headings = ["knob", "default", "range", "unit", "meaning", *(["live"] if with_live else [])]
    rows = [_row(_cells(knob)[: len(headings)]) for knob in knobs(settings)]
    return [_row(headings), "|" + "---|" * len(headings), *rows]


def _cells(knob: Knob) -> list[str]:
    return [f"`{knob.name}`", _default(knob), _range(knob), knob.unit, knob.doc, "yes" if knob.live else ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(knob: Knob) -> str:
    if knob.default is None:
        return "off" if knob.group == "sampling" else "chosen for you"
    if isinstance(knob.default, bool):
        return "on" if knob.default else "off"
    return "none" if knob.default == () else f"`{knob.default}`"


def _range(knob: Knob) -> str:
    if knob.choices:
        return " ".join(f"`{choice}`" for choice in knob.choices)
    low = f"≥ {knob.ge:g}" if knob.ge is not None else f"> {knob.gt:g}" if knob.gt is not None else ""
    high = f"≤ {knob.le:g}" if knob.le is not None else ""
    return ", ".join(part for part in (low, high) if part)


if __name__ == "__main__":
    main(sys.argv[1:])
