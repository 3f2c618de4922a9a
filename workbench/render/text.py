"""The result of a run for terminals: plain text (``text/plain``) and a rich renderable with the same content.

Prompts and outputs are data: control characters are shown as symbols, rich markup in them stays text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from workbench.render import facts
from workbench.render._format import plain, plural, shorten
from workbench.render.board import board_of, fold_kinds
from workbench.render.palette import LOOKS

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_OUTPUTS = 32
_LINES = 12  # of one output
_ROWS = 32


def render_text(run: Any, width: int = 100) -> str:
    """The result as plain text without control codes: outputs, numbers and a timeline of letters, ``width`` columns wide."""
    result = facts.result_of(run)
    pictures = (_timeline(result.trace, width), _table(result.metrics, width))
    told = (textwrap.fill(plain(line), max(width, 20)) for line in facts.speculation(result))
    parts = ["\n".join([*_head(result), *told]), *_outputs(result, width), *pictures, _foot(result)]
    return "\n\n".join(part for part in parts if part)


def rich_result(run: Any) -> RenderableType:
    """The same for a colour terminal, as a rich renderable."""
    from rich.console import Group
    from rich.text import Text

    result = facts.result_of(run)
    first, *rest = [*_head(result), *map(plain, facts.speculation(result))]
    parts: list[RenderableType] = [Text(first, style="bold"), *(Text(line, style="dim") for line in rest), Text()]
    for name, members in list(facts.families(result))[:MAX_OUTPUTS]:
        parts += _rich_family(plain(name), members)
    parts += [_rich_timeline(result.trace), _rich_table(result.metrics)]
    if trouble := facts.trouble(result):
        parts.append(Text(plain(trouble), style="bold red"))
    return Group(*parts)


def _head(result: facts.Result) -> list[str]:
    figures = [f"{name} {value}" if name[0].isupper() else f"{value} {name}" for value, name in facts.headline(result.metrics)]
    return [plain(f"{facts.model_line(result.trace)} · {result.status} · {facts.extent(result.metrics)}"), " · ".join(figures)]


def _outputs(result: facts.Result, width: int) -> Iterator[str]:
    families = list(facts.families(result))
    for name, members in families[:MAX_OUTPUTS]:
        yield "\n".join(_family(plain(name), members, width))
    if len(families) > MAX_OUTPUTS:
        yield f"… and {plural(len(families) - MAX_OUTPUTS, 'more output')} in run.outputs"


def _family(name: str, members: Sequence[Any], width: int) -> Iterator[str]:
    indent = " " * min(len(name) + 2, 8)
    yield f"{name}  {shorten(plain(facts.prompt_of(members[0])), max(width - len(name) - 2, 20))}"
    for completion in members:
        if len(members) > 1:
            yield f"{indent}[{completion.index + 1} of {len(members)}]"
        text = plain(facts.text_of(completion))
        lines = [line for part in text.split("\n") for line in textwrap.wrap(part, max(width - len(indent), 20)) or [""]]
        yield from (indent + line for line in lines[:_LINES])
        if len(lines) > _LINES:
            yield f"{indent}… {plural(len(lines) - _LINES, 'more line')}"
        yield f"{indent}({plain(facts.request_line(completion))})"


def _letters(trace: Any, width: int) -> tuple[list[tuple[str, list[str]]], int, set[str]]:
    """``(request, state per column)`` of the first requests, steps per column, and the states that occur."""
    board = board_of(trace)
    gutter = 10
    k = max(1, -(-len(board) // max(width - gutter, 1)))
    lanes = [(plain(lane.request_id), fold_kinds(lane.kinds, k)) for lane in board.lanes[:_ROWS]]
    return lanes, k, {kind for _, kinds in lanes for kind in kinds if kind}


def _timeline(trace: Any, width: int) -> str:
    lanes, k, seen = _letters(trace, width)
    if not lanes:
        return ""
    rows = [f"{shorten(name, 8):<8}  " + "".join(LOOKS[kind].letter if kind else " " for kind in kinds).rstrip() for name, kinds in lanes]
    return "\n".join([*rows, _key(k, seen)])


def _key(k: int, seen: set[str]) -> str:
    key = " · ".join(f"{look.letter} {look.label}" for kind, look in LOOKS.items() if kind in seen)
    return f"{'':10}{'one column per step' if k == 1 else f'one column per {k} steps'}: {key}"


def _table(metrics: Any, width: int) -> str:
    rows = [facts.COLUMNS, *(tuple(shorten(plain(cell), 16) for cell in row) for row in facts.table(metrics)[:_ROWS])]
    if len(rows) == 1:
        return ""
    sizes = [max(len(row[i]) for row in rows) for i in range(len(facts.COLUMNS))]
    if sum(sizes) + 2 * len(sizes) > width:  # a narrow terminal has the same numbers under each output
        return ""
    first, *rest = sizes
    return "\n".join(
        "  ".join([row[0].ljust(first), *(cell.rjust(size) for cell, size in zip(row[1:], rest, strict=True))]) for row in rows
    )


def _foot(result: facts.Result) -> str:
    name = result.name
    return plain(facts.trouble(result)) or f"Times are milliseconds.  Every step: {name}.steps · all figures: {name}.summary()"


def _rich_family(name: str, members: Sequence[Any]) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    yield Text.assemble((f"{name}  ", "bold"), (shorten(plain(facts.prompt_of(members[0])), 400), "dim"))
    for completion in members:
        which = f"{completion.index + 1} of {len(members)} · " if len(members) > 1 else ""
        body = Text.assemble(plain(facts.text_of(completion)), "\n", (which + plain(facts.request_line(completion)), "dim italic"))
        yield Padding(body, (0, 0, 1, min(len(name) + 2, 8)))


def _rich_timeline(trace: Any) -> RenderableType:
    from rich.text import Text

    lanes, k, seen = _letters(trace, 100)
    drawn = Text(no_wrap=True, overflow="crop")
    for name, kinds in lanes:
        drawn.append(f"{shorten(name, 8):<8}  ")
        for kind, run in groupby(kinds):
            look = LOOKS.get(kind)
            drawn.append((look.letter if look else " ") * len(list(run)), style=look.colour if look else "")
        drawn.append("\n")
    return drawn.append(_key(k, seen) + "\n" if lanes else "", style="dim")


def _rich_table(metrics: Any) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, header_style="dim", pad_edge=False, caption="times in milliseconds", caption_style="dim", caption_justify="left"
    )
    for i, name in enumerate(facts.COLUMNS):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in facts.table(metrics)[:_ROWS]:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table
