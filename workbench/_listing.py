"""``Listing``: a small table that prints as text in a terminal and as markdown in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Listing:
    """Rows under headings, with a title and a closing hint; all cells are text.

    >>> print(Listing("Runs", ("run", "status"), [("r", "finished")]))
    Runs
      run  status
      r    finished
    """

    def __init__(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[object]], hint: str = "") -> None:
        self.title = title
        self.headings = tuple(headings)
        self.rows = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
        self.hint = hint

    def __repr__(self) -> str:
        rows = [self.headings, *self.rows] if self.rows else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in (self.title, *table, self.hint) if line)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/markdown": self._markdown()}

    def _markdown(self) -> str:
        rule = "|" + "---|" * len(self.headings)
        table = [_row(self.headings), rule, *map(_row, self.rows)] if self.rows else []
        return "\n".join([f"**{_escaped(self.title)}**", "", *table, "", _escaped(self.hint)]).strip()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Text that markdown shows as it is: no markup, no HTML, one line."""
    quoted = "".join("\\" + char if char in r"\`*_[]|~#$" else char for char in " ".join(text.split()))
    return quoted.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
