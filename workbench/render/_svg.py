"""Writing SVG by hand: numbers, paths over a grid of columns, elements with a tooltip.  Knows nothing about runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from workbench.render._format import escape
from workbench.render.palette import DIM, LINE

WIDTH = 840.0
LEFT, RIGHT = 72.0, 824.0  # where columns may lie; labels stand left of it, end marks right
_FONT = "system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif"
_STYLE = (
    ".wb-svg{font-variant-numeric:tabular-nums}.wb-svg .wb-ink{fill:currentColor}"
    ".wb-svg .wb-dim{fill:var(--jp-content-font-color2,#767d87)}"
    ":root.wb-svg{color:#24292f}@media(prefers-color-scheme:dark){:root.wb-svg{color:#e6edf3}}"  # only where the SVG is the document
)


@dataclass(frozen=True)
class Grid:
    """``columns`` equal columns of width ``pitch``; a cell leaves ``gap`` at its right.

    Each column stands for ``k`` consecutive steps of ``num_steps``.
    """

    pitch: float
    gap: float
    k: int
    num_steps: int

    @property
    def columns(self) -> int:
        return -(-self.num_steps // self.k)

    @property
    def width(self) -> float:
        """Of one cell, its gap left out."""
        return self.pitch - self.gap

    @property
    def right(self) -> float:
        return self.x(self.columns)

    def solid(self) -> Grid:
        """The same columns without gaps, for levels that go on from step to step."""
        return replace(self, gap=0.0)

    def x(self, column: float) -> float:
        return LEFT + column * self.pitch

    @classmethod
    def of(cls, num_steps: int, widest: float = 22.0, narrowest: float = 2.0) -> Grid:
        """The grid that shows ``num_steps``: several per column when they would be too narrow to see."""
        k = max(1, -(-num_steps // int((RIGHT - LEFT) / narrowest)))
        pitch = min(widest, (RIGHT - LEFT) / max(-(-num_steps // k), 1))
        return cls(pitch, 1.0 if pitch >= 5 else 0.6 if pitch >= 3.6 else 0.0, k, num_steps)


def num(value: float) -> str:
    """A coordinate to a tenth of a pixel, without surplus zeros."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def stripes(grid: Grid, runs: Iterable[tuple[int, int]], y: float) -> str:
    """A path of one horizontal line per half-open run of columns, to be stroked as thick as a cell is high."""
    return "".join(f"M{num(grid.x(first))} {num(y)}H{num(grid.x(end) - grid.gap)}" for first, end in runs)


def rounded(grid: Grid, runs: Iterable[tuple[int, int]], y: float, height: float) -> str:
    """A path of one rectangle per column, inset by a pixel for a stroke with round joins to round its corners."""
    inner = f"h{num(grid.width - 2)}v{num(height - 2)}h-{num(grid.width - 2)}z"
    return "".join(f"M{num(grid.x(i) + 1)} {num(y + 1)}{inner}" for first, end in runs for i in range(first, end))


def boxes(grid: Grid, runs: Iterable[tuple[int, int]], y: float, height: float) -> str:
    """A path of one rectangle per half-open run of columns."""
    return "".join(
        f"M{num(grid.x(first))} {num(y)}H{num(grid.x(end) - grid.gap)}v{num(height)}H{num(grid.x(first))}z" for first, end in runs
    )


def bars(grid: Grid, heights: Sequence[float], base: float) -> str:
    """A path of bars that stand on ``base``; where columns have no gap, one outline."""
    if grid.gap:
        width = num(grid.width)
        return "".join(f"M{num(grid.x(i))} {num(base)}v-{num(h)}h{width}v{num(h)}z" for i, h in enumerate(heights) if h > 0)
    return edge(grid, heights, base, start=base) + f"V{num(base)}z" if any(heights) else ""


def edge(grid: Grid, heights: Sequence[float], base: float, start: float | None = None) -> str:
    """A path along the tops of the columns, as one staircase."""
    if not heights:
        return ""
    top = num(base - heights[0] if start is None else start)
    parts = [f"M{num(grid.x(0))} {top}"]
    for i, height in enumerate(heights):
        here = num(base - height)
        if here != top:
            parts.append(("" if i == 0 else f"H{num(grid.x(i))}") + f"V{here}")
            top = here
    return "".join(parts) + f"H{num(grid.right)}"


def path(d: str, title: str = "", **attributes: object) -> str:
    """A ``<path>``; nothing at all when there is nothing to draw.  ``title`` becomes its tooltip."""
    return element("path", f"<title>{escape(title)}</title>" if title else "", d=d, **attributes) if d else ""


def label(x: float, y: float, content: str, *, anchor: str = "", ink: bool = False, size: float = 11, title: str = "") -> str:
    """A line of text in a colour that follows the theme."""
    inside = escape(content) + (f"<title>{escape(title)}</title>" if title else "")
    return element(
        "text", inside, class_="wb-ink" if ink else "wb-dim", x=num(x), y=num(y), text_anchor=anchor, font_size=num(size), fill=DIM
    )


def rule(x1: float, y: float, x2: float, dash: str = "", **attributes: object) -> str:
    """A thin horizontal line."""
    return element("path", "", d=f"M{num(x1)} {num(y)}H{num(x2)}", stroke=LINE, stroke_dasharray=dash, fill="none", **attributes)


def element(name: str, content: str = "", **attributes: object) -> str:
    """An element on its own line; ``class_`` loses its underscore, others become hyphens; values are escaped."""
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value not in (None, ""))
    written = "".join(f' {attribute}="{escape(value)}"' for attribute, value in given)
    return f"<{name}{written}>{content}</{name}>\n" if content else f"<{name}{written}/>\n"


def legend(entries: Iterable[tuple[str, str]], y: float) -> tuple[str, float]:
    """Swatches (10 × 10, at the origin) with their words from ``y`` down, wrapped to the width; and where it ends."""
    parts, x = [], LEFT
    for swatch, words in entries:
        indent = 15 if swatch else 0
        width = len(words) * 5.7 + indent
        if x + width > RIGHT:
            x, y = LEFT, y + 17
        parts.append(element("g", swatch + label(indent, 10, words, size=10.5), transform=f"translate({num(x)} {num(y)})"))
        x += width + 16
    return "".join(parts), y + 18


def document(body: str, height: float, title: str, description: str) -> str:
    """A whole ``<svg>``: scales with its container, names itself to screen readers, follows the theme."""
    head = f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n<style>{_STYLE}</style>\n"
    return element(
        "svg",
        "\n" + head + body,
        xmlns="http://www.w3.org/2000/svg",
        class_="wb-svg",
        role="img",
        viewBox=f"0 0 {num(WIDTH)} {num(height)}",
        width="100%",
        font_family=_FONT,
        aria_label=title,
    )


def prefix(*parts: object) -> str:
    """An id prefix that depends only on ``parts``, so that a re-run of the same cell changes no id."""
    return "wb" + hashlib.blake2s("\n".join(map(str, parts)).encode(errors="replace"), digest_size=4).hexdigest()


def hatch(name: str, colour: str, size: float, slant: str) -> str:
    """A hatching pattern with the id ``name``; ``slant`` is its path inside a square tile of ``size``."""
    stroke = element("path", "", d=slant, stroke=colour, stroke_width="1", fill="none").strip()
    return element("pattern", stroke, id=name, patternUnits="userSpaceOnUse", width=num(size), height=num(size))
