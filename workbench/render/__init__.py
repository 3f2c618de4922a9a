"""How a run looks: static results for notebooks, terminals and files, and the live text while it goes on.

Everything here reads a trace, or a run that has one, and never an engine.  Nothing is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["mimebundle"]


def mimebundle(run: Any, player: Callable[[str], str] | None = None) -> dict[str, str]:
    """What a notebook stores of a run: HTML for readers, SVG for exporters without HTML, text for terminals.

    ``player`` is given the HTML of the pictures and returns what shall stand in their place.
    """
    from workbench.render.facts import result_of
    from workbench.render.html import page, pictures
    from workbench.render.svg import kv_svg, stacked, timeline_svg
    from workbench.render.text import render_text

    result = result_of(run)
    timeline, kv = timeline_svg(result.trace), kv_svg(result.trace)
    picture = stacked([timeline, kv], f"Run of {result.trace.model.name}", "Timeline above, KV cache below.")
    shown = pictures(result.trace, timeline, kv)
    html = page(result, shown if player is None else player(shown))
    return {"text/plain": render_text(result), "text/html": html, "image/svg+xml": picture}
