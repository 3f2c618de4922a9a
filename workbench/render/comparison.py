"""How a comparison looks: the sentence, both timelines on the same columns, and the table of figures."""

from __future__ import annotations

from collections.abc import Callable

from workbench.findings.comparison import ComparisonData, Figure
from workbench.render._format import NONE, escape, ms, number, percent, plain, plural
from workbench.render._svg import Grid
from workbench.render.board import board_of
from workbench.render.frame import framed, part, table
from workbench.render.timeline import timeline_of
from workbench.trace import Trace

_COLUMNS = ("", "a", "b", "b − a", "b ÷ a")


def comparison_text(found: ComparisonData) -> str:
    """The sentence, what was changed, and the figures in aligned columns."""
    lines = [found.sentence, *(f"  {note}" for note in found.notes)]
    lines += [f"  {letter}: {_whose(found, i)}" for i, letter in enumerate("ab")]
    rows = [_COLUMNS, *map(_row, found.figures)]
    sizes = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    table_lines = [
        "  ".join([row[0].ljust(sizes[0]), *(cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True))]) for row in rows
    ]
    return "\n".join([*map(plain, lines), "", *table_lines])


def comparison_html(found: ComparisonData, player: Callable[[str], str] | None = None) -> str:
    """The same with both timelines as one HTML fragment: no script, everything from outside escaped, both themes readable.

    ``player`` is given the HTML of the timelines and returns what shall stand in their place.
    """
    notes = "".join(f'<div class="wb-nums">{escape(note)}</div>' for note in found.notes)
    said = f'<div class="wb-part"><b>{escape(found.sentence)}</b>{notes}</div>'
    figures = part("figures", "times in milliseconds, from the clocks of both", table(_COLUMNS, map(_row, found.figures)))
    timelines = "\n".join(_timelines(found))
    return framed(said, timelines if player is None else player(timelines), figures)


def _timelines(found: ComparisonData) -> list[str]:
    """Both from the first pair of steps on, a column of one above the same column of the other."""
    traces = found.side_by_side
    grid = Grid.of(max(map(len, traces)))
    shared = None if found.divergence is None else found.divergence.position
    drawn = []
    for i, (letter, trace) in enumerate(zip("ab", traces, strict=True)):
        picture = timeline_of(board_of(trace), f"{letter}, {trace.model.name}", grid, shared)
        drawn.append(part(f"run {letter}", _whose(found, i), f'<div class="wb-scroll">{picture}</div>'))
    return drawn


def _whose(found: ComparisonData, i: int) -> str:
    trace: Trace = (found.a, found.b)[i]
    return f"{found.names[i]}, {plural(len(trace), 'step')}"


def _row(figure: Figure) -> tuple[str, ...]:
    unit = f" ({figure.unit})" if figure.unit not in ("", "ms", "share", figure.name) else ""
    difference = figure.difference
    sign = "" if difference is None or difference == 0 else "+" if difference > 0 else "−"
    apart = NONE if difference is None else sign + _value(abs(difference), figure.unit)
    ratio = NONE if figure.ratio is None else f"× {number(figure.ratio)}"
    return figure.name + unit, _value(figure.a, figure.unit), _value(figure.b, figure.unit), apart, ratio


def _value(value: float | None, unit: str) -> str:
    return ms(value) if unit == "ms" else percent(value) if unit == "share" else number(value, 4)
