"""The view without a kernel: a player for notebooks and exports, and a page of its own.

A player is HTML in which a script puts the same screen, read only, in the place of the static pictures; where scripts are taken out
(GitHub, a notebook that is not trusted) or cannot do it, the pictures stay.  All that it needs travels inside; nothing is fetched.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench._tracefile import replace_file
from workbench.errors import ViewError
from workbench.findings.comparison import ComparisonData
from workbench.render import mimebundle
from workbench.render._format import escape
from workbench.render.comparison import comparison_html
from workbench.render.facts import result_of
from workbench.render.html import document_body, framed, pictures
from workbench.view.control import in_terminal
from workbench.view.files import is_built
from workbench.view.saved import Budget, saved_screen
from workbench.view.sources import Source

if TYPE_CHECKING:
    from workbench.view.sources import Watched

PLAYER_BYTES = 1_400_000  # of a player in a notebook: a run of 3,000 steps with 16 requests
PLAYER_ROWS = 60_000  # decisions in all steps; packing them takes a second, and more would not fit into the bytes
IN_A_CELL = Budget(0.4, 0.15)  # for each run: a cell's end must not be waited for
ON_A_PAGE = Budget(20.0, 3.0)

_FRAMELESS = ".wb-view{border:0;border-bottom:1px solid var(--wb-line);border-radius:0;max-width:none}"  # what is around it has a frame
_HEADLESS = _FRAMELESS + ".wb-view .wb-header{display:none}"  # and has said what the header says
# The comparison has said it; the button stays, and what it is about.
_SAID = _FRAMELESS + (
    '.wb-view .wb-parted>span{display:none}.wb-view .wb-parted::before{content:"first difference "}'
    ".wb-view .wb-parted:has(.wb-hidden){display:none}"
)
_DATA = "data-workbench-1"  # an attribute: of a script that they do not let pass, some cleaners show the text

# A shadow root keeps the notebook's styles, the static result's and those of other versions of the view away from this one.
# Not every front end runs the script where it stands, so it looks for its box by a key: what an output that is not trusted carries is left.
_BOOT = """(() => {
  const start = async (box, text) => {
    const packed = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    const bytes = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
    const size = new DataView(bytes).getUint32(0, true);
    const page = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, size)));
    const address = URL.createObjectURL(new Blob([page.script], {type: "text/javascript"}));
    const view = await import(address).finally(() => URL.revokeObjectURL(address));
    const still = [...box.childNodes];
    const [host, style, place] = ["div", "style", "div"].map((tag) => document.createElement(tag));
    host.dataset.lmSuppressShortcuts = "true";
    style.textContent = page.style;
    host.attachShadow({mode: "open"}).append(style, place);
    box.append(host);
    try {
      await view.play(place, page.saved, page.buffers.map(([start, end]) => bytes.slice(start, end)), page.uplot);
    } catch (error) {
      host.remove();
      throw error;
    }
    still.forEach((each) => each.remove());
  };
  for (const box of document.querySelectorAll('.wb-saved[DATA][data-workbench-key="KEY"]')) {
    const text = box.getAttribute("DATA");
    box.removeAttribute("DATA");
    start(box, text).catch((error) => console.warn("workbench: the pictures stay, as the player could not start:", error));
  }
})();""".replace("DATA", _DATA)


def result_bundle(run: Any, family: Sequence[Source] = ()) -> dict[str, str]:
    """What a notebook stores of a run: its static result, with a player where that pays; ``family``: of itself and its branches."""
    if not run.with_player or run.status in ("running", "paused") or in_terminal():
        return mimebundle(run)
    name = result_of(run).name
    if len(family) > 1:
        return mimebundle(run, lambda still: with_player([source.again() for source in family], still, name, _FRAMELESS))
    return mimebundle(run, lambda still: with_player([Source(run, 0)], still, name, _HEADLESS))


def branches_bundle(family: Sequence[Source]) -> dict[str, str]:
    """What is stored of a run and its branches where the run's own result stands elsewhere: a player of all, or their pictures."""
    still = "\n".join(pictures(source.trace) for source in family)
    shown = with_player([source.again() for source in family], still, "run", _FRAMELESS)
    return {"text/plain": "", "text/html": framed(shown)}


def comparison_with_player(found: ComparisonData) -> str:
    """A comparison, with a player of both runs in the place of its timelines where that pays."""
    return comparison_html(found, lambda still: with_player(_two(found), still, "compare(a, b)", _SAID))


def write_page(run: Watched, path: Path) -> Path:
    """Write the view of a run, and its static result, as one HTML file."""
    result = result_of(run)
    player = playing([Source(run, 0)], pictures(result.trace), ON_A_PAGE, _HEADLESS)
    return _write(path, run.name, document_body(result, player))


def write_comparison(found: ComparisonData, path: Path) -> Path:
    """Write the view of two runs, and their figures, as one HTML file."""
    body = comparison_html(found, lambda still: playing(_two(found), still, ON_A_PAGE, _SAID))
    return _write(path, " and ".join(found.names), body)


def write_screen(sources: Sequence[Source], path: Path) -> Path:
    """Write one page that shows ``sources``; where scripts are off it shows their pictures.

    Raises :class:`ViewError` when the view's files were not built, and :class:`TraceError` when the place cannot be written.
    """
    still = framed(*(pictures(source.trace) for source in sources))
    return _write(path, " and ".join(source.name for source in sources), playing(sources, still, ON_A_PAGE))


def with_player(sources: Sequence[Source], still: str, name: str, look: str = "") -> str:
    """``still`` (HTML), and what puts the player of ``sources`` in its place, unless that would make a notebook heavy.

    ``name`` is the Python expression whose ``view()`` and ``to_html()`` show it then.
    """
    if not is_built() or any(source.trace.fidelity != "exact" for source in sources):
        return still
    if sum(len(record.decisions) for source in sources for record in source.trace) <= PLAYER_ROWS:
        found = playing(sources, still, IN_A_CELL, look)
        if len(found) - len(still) <= PLAYER_BYTES:
            return found
    return still + _TOO_LONG.format(name=escape(name))


def playing(sources: Sequence[Source], still: str, budget: Budget, look: str = "") -> str:
    """``still`` (HTML), and what puts the player of ``sources`` in its place; ``still`` alone if there are no steps to play.

    Raises :class:`ViewError` for traces that are not exact, and where the view was not built.
    """
    for source in sources:
        if source.trace.fidelity != "exact":
            raise ViewError(f"{source.name} is {source.trace.fidelity}, not exact: it holds no decisions that could be shown step by step")
    if not any(len(source.trace) for source in sources):
        return still
    data = base64.b64encode(saved_screen(sources, budget, look))
    key = blake2b(data, digest_size=12).hexdigest()
    box = f'<div class="wb-saved" data-workbench-key="{key}" {_DATA}="{data.decode("ascii")}">{still}</div>'
    return f"{box}<script>{_BOOT.replace('KEY', key)}</script>"


def _two(found: ComparisonData) -> list[Source]:
    sources = [Source(trace, number, name) for number, (trace, name) in enumerate(zip(found.side_by_side, found.names, strict=True))]
    if found.divergence is not None:
        sources[-1].parted = (found.divergence.position, found.divergence.sentence)
    return sources


def _write(path: Path, title: str, body: str) -> Path:
    replace_file(path, _DOCUMENT.format(title=escape(title), body=body).encode())
    return path


_TOO_LONG = (
    '<div class="wb-part wb-foot">Too long to be played in the notebook’s file: <code>{name}.view()</code> shows every step here, '
    '<code>{name}.to_html("run.html")</code> writes them as a page.</div>'
)

_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} · inference-workbench</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 16px auto; max-width: 1240px; padding: 0 12px; font-family: system-ui, "DejaVu Sans", sans-serif; }}
body > .wb-run {{ max-width: none; background: var(--jp-layout-color0, #fff); }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #111; color: #e7eaee; }}
  :root {{ --jp-layout-color0: #15191f; --jp-layout-color1: #1b2028; --jp-content-font-color1: #e7eaee; --jp-content-font-color2: #98a1ad;
    --jp-border-color1: #4b545f; --jp-border-color2: #2b323b; --jp-brand-color1: #7cacf8; }}
}}
</style></head><body>
{body}
</body></html>
"""
