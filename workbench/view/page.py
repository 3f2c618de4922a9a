"""The view without a kernel: a player for notebooks and exports, and a page of its own.

A player is HTML in which a script puts the same screen, read only, in the place of the static result; where scripts are taken out
(GitHub, a notebook that is not trusted) the static result stays.  Script, style and columns travel inside, compressed; nothing is fetched.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from workbench.render import mimebundle
from workbench.tape.why import whys
from workbench.trace import Trace
from workbench.view.files import is_built, script, style, uplot
from workbench.view.sources import Source

if TYPE_CHECKING:
    from workbench.view.sources import Watched

PLAYER_STEPS = 3_000  # more make a notebook heavy: the static result says how to open them
WHY_BUDGET_S = 0.4  # for the sentences of a player: a cell's end must not be waited for
PAGE_WHY_BUDGET_S = 20.0

_BOOT = """(() => {
  const box = document.currentScript.previousElementSibling;
  const data = document.currentScript.dataset.run;
  (async () => {
    const packed = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    const bytes = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
    const size = new DataView(bytes).getUint32(0, true);
    const page = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, size)));
    const address = URL.createObjectURL(new Blob([page.script], {type: "text/javascript"}));
    const view = await import(address);
    URL.revokeObjectURL(address);
    const [style, place] = ["style", "div"].map((tag) => document.createElement(tag));
    style.textContent = page.style;
    const still = [...box.childNodes];
    box.append(style, place);
    view.play(place, page.saved, page.buffers.map(([start, end]) => bytes.slice(start, end)), page.uplot);
    still.forEach((each) => each.remove());
  })().catch((error) => console.warn("workbench: the static result stays, as the player could not start:", error));
})();"""


def result_bundle(run: Any) -> dict[str, str]:
    """What a notebook stores of a run: its static result, with a player where that pays."""
    bundle = mimebundle(run)
    if run.with_player and run.status not in ("running", "paused"):
        bundle["text/html"] = with_player([Source(run, 0)], bundle["text/html"])
    return bundle


def with_player(sources: Sequence[Source], still: str, *, budget_s: float = WHY_BUDGET_S) -> str:
    """``still`` (HTML), and a script that puts the player of ``sources`` in its place; ``still`` alone for runs of no or too many steps."""
    steps = max((len(source.trace) for source in sources), default=0)
    if not 0 < steps <= PLAYER_STEPS or not is_built() or any(source.trace.fidelity != "exact" for source in sources):
        return still
    return _scripted(sources, still, budget_s)


def sources_of(traces: Sequence[Trace], names: Sequence[str], parted: tuple[int, str] | None) -> list[Source]:
    """Traces side by side; ``parted`` is where the second leaves the first."""
    sources = [Source(trace, number, name) for number, (trace, name) in enumerate(zip(traces, names, strict=True))]
    sources[-1].parted = parted
    return sources


def write_page(run: Watched, path: Path) -> Path:
    """Write the view of a run as one HTML file; where scripts are off it shows the static result."""
    return write_document([Source(run, 0)], mimebundle(run)["text/html"], path)


def write_document(sources: Sequence[Source], still: str, path: Path) -> Path:
    """Write one page that shows ``sources``, replacing an older one only when complete.

    Raises :class:`ViewError` when the view's files were not built.
    """
    body = _scripted(sources, still, PAGE_WHY_BUDGET_S)
    title = escape(" and ".join(source.name for source in sources))
    document = _DOCUMENT.format(title=title, body=body)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent or ".", prefix=path.name, delete=False) as file:
        file.write(document)
    os.chmod(file.name, 0o644)  # temporary files are private, pages are not
    os.replace(file.name, path)
    return path


_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} · inference-workbench</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 16px auto; max-width: 1240px; padding: 0 12px; font-family: system-ui, "DejaVu Sans", sans-serif; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #111; color: #e7eaee; }}
  :root {{ --jp-layout-color0: #15191f; --jp-layout-color1: #1b2028; --jp-content-font-color1: #e7eaee; --jp-content-font-color2: #98a1ad;
    --jp-border-color1: #4b545f; --jp-border-color2: #2b323b; --jp-brand-color1: #7cacf8; }}
}}
</style></head><body>
{body}
</body></html>
"""


def _scripted(sources: Sequence[Source], still: str, budget_s: float) -> str:
    data = base64.b64encode(zlib.compress(_packed(sources, budget_s), 9)).decode("ascii")
    return f'<div class="wb-saved">{still}</div><script data-run="{data}">{_BOOT}</script>'


def _packed(sources: Sequence[Source], budget_s: float) -> bytes:
    """A length, JSON (script, style, frame, sentences), and the columns, each on a multiple of 8 bytes."""
    parts, buffers, told = [], list[bytes](), []
    for source in sources:
        status = source.status(whole=True)
        entries = [{"run": source.number, "status": status}]
        while (part := source.news()) is not None:
            entries.append({"run": source.number, "status": {"state": status["state"]}, "tape": {**part.header, "buffer": len(buffers)}})
            buffers.append(part.buffer)
        parts += entries
        first = source.first_step
        told.append(whys(source.trace, first, first + len(source.trace), budget_s / len(sources)))
    runs = [{**source.info(), "live": False} for source in sources]
    frame = {"kind": "frame", "seq": 0, "runs": runs, "parts": parts}
    page = {"script": script(), "style": style(), "uplot": uplot(), "saved": {"frame": frame, "whys": told}}
    return _joined(page, buffers)


def _joined(page: dict[str, Any], buffers: Sequence[bytes]) -> bytes:
    """Where buffers lie depends on how long the JSON is that says so: room is left for that."""
    spans = [[0, 0] for _ in buffers]
    room = len(json.dumps({**page, "buffers": [[2**40, 2**40]] * len(buffers)}, ensure_ascii=False).encode())
    start = _aligned(8 + room)
    at = start
    for span, buffer in zip(spans, buffers, strict=True):
        span[:] = [at, at + len(buffer)]
        at = _aligned(at + len(buffer))
    text = json.dumps({**page, "buffers": spans}, ensure_ascii=False, separators=(",", ":")).encode()
    whole = bytearray(at)
    whole[:8] = len(text).to_bytes(8, "little")
    whole[8 : 8 + len(text)] = text
    for (first, end), buffer in zip(spans, buffers, strict=True):
        whole[first:end] = buffer
    return bytes(whole)


def _aligned(offset: int) -> int:
    return -(-offset // 8) * 8
