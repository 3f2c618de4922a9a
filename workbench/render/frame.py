"""The frame that all our HTML fragments share: one box with a head, named parts, and tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from workbench.render._format import escape
from workbench.render.html import framed

__all__ = ["framed", "part", "table"]


def part(name: str, note: str, content: str) -> str:
    """A part with its name at the left and a note at the right, both escaped here; ``content`` is HTML."""
    title = f'<div class="wb-name"><b>{escape(name)}</b> <span>{escape(note)}</span></div>'
    return f'<div class="wb-part">{title}\n{content}</div>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table of escaped cells; the columns in ``left`` hold words, the others numbers."""
    sides = [' style="text-align:left"' if i in left else "" for i in range(len(columns))]
    head = "".join(f"<th{side}>{escape(name)}</th>" for name, side in zip(columns, sides, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{side}>{escape(cell)}</td>" for cell, side in zip(row, sides, strict=True)) + "</tr>" for row in rows
    )
    return f'<div class="wb-scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
