"""The rows of the timeline: one per request, one cell per step (or per column of several)."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.render import _svg as svg
from workbench.render._format import plural, shorten
from workbench.render._svg import LEFT, Grid
from workbench.render.board import Board, Lane, fold_kinds
from workbench.render.palette import CACHE, DECODE, DIM, HELD, IDLE, LINE, LOOKS, PREEMPTED, WAITING, WORK

MAX_ROWS = 32
_MANY_RUNS = 160  # above this many stretches one tooltip covers all stretches of a kind, which keeps the file small
_FEW_CELLS = 900  # up to this many, cells are drawn one by one, with round corners
_ROW, _CELL = 18.0, 13.0
_ENDS = {
    "stop": "m0 6.5a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "length": "m0 2h3.5v9h-3.5z",
    "abort": "m0 4l1-1 2.5 2.5 2.5-2.5 1 1-2.5 2.5 2.5 2.5-1 1-2.5-2.5-2.5 2.5-1-1 2.5-2.5z",
}

Run = tuple[str, int, int]  # state, first column, end column


def definitions(ids: str) -> str:
    """The hatchings that :func:`lanes` and :func:`swatch` refer to."""
    waiting = svg.hatch(f"{ids}-waiting", LINE, 5, "M-1 1L1 -1M0 5L5 0M4 6L6 4")
    return svg.element("defs", waiting + svg.hatch(f"{ids}-held", LINE, 5, "M0 2.5H1.5"))


def lanes(board: Board, grid: Grid, y: float, ids: str) -> tuple[str, float]:
    """The rows from ``y`` down, and where they end; surplus requests are counted, not drawn."""
    shown = board.lanes[:MAX_ROWS]
    folded = [_columns(lane, grid) for lane in shown]
    merge = sum(map(len, folded)) > _MANY_RUNS
    parts = []
    for lane, runs in zip(shown, folded, strict=True):
        name = lane.request_id
        parts.append(svg.label(LEFT - 8, y + 10.5, shorten(name, 10), anchor="end", ink=True, title=name if len(name) > 10 else ""))
        for group in _groups(runs) if merge else [[run] for run in runs]:
            parts.append(_stretch(board, lane, grid, group, y, ids))
        parts += [_from_cache(lane, grid, y), _notches(lane, grid, y), _end(lane, grid, y)]
        y += _ROW
    if len(board.lanes) > len(shown):
        parts.append(svg.label(LEFT, y + 10.5, f"… and {plural(len(board.lanes) - len(shown), 'more request')}"))
        y += _ROW
    return "".join(parts), y


def endings(board: Board) -> list[str]:
    """How the requests in sight ended, in a fixed order."""
    found = {lane.finished[1] for lane in board.lanes[:MAX_ROWS] if lane.finished}
    return [reason for reason in _ENDS if reason in found]


def _columns(lane: Lane, grid: Grid) -> list[Run]:
    return list(Lane(lane.request_id, fold_kinds(lane.kinds, grid.k)).runs())


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    return [[run for run in runs if run[0] == kind] for kind in dict.fromkeys(kind for kind, _, _ in runs)]


def _stretch(board: Board, lane: Lane, grid: Grid, group: Sequence[Run], y: float, ids: str) -> str:
    """One state of one request, over one stretch of columns or over all that it has."""
    kind = group[0][0]
    runs = [(first, end) for _, first, end in group]
    steps = [i for first, end in runs for i in range(first * grid.k, min(end * grid.k, grid.num_steps)) if lane.kinds[i] == kind]
    title = f"{lane.request_id} · {_span(board, steps)} · {_what(lane, kind, steps)}"
    note = {"data-kind": kind, "data-steps": len(steps)}
    if kind in WORK:
        return _worked(grid, kind, runs, y, title, note, len(board.lanes) * grid.columns <= _FEW_CELLS)
    if kind == PREEMPTED:
        d = "".join(_triangle(grid.x((first + end) / 2) - grid.gap / 2, y + 2) for first, end in runs)
        return svg.path(d, title, fill=LOOKS[kind].colour, **note)
    pattern = "held" if kind == HELD else "waiting"
    frame = LINE if kind == IDLE else ""
    return svg.path(svg.boxes(grid, runs, y, _CELL), title, fill=f"url(#{ids}-{pattern}) none", stroke=frame, **note)


def _worked(grid: Grid, kind: str, runs: Sequence[tuple[int, int]], y: float, title: str, note: dict[str, object], fine: bool) -> str:
    """Cells of work: rounded ones where there is room, else a dashed line as thick as a cell, which is much shorter to write."""
    colour, height = LOOKS[kind].colour, 9.0 if kind == DECODE else _CELL
    if fine and grid.pitch >= 7:
        d = svg.rounded(grid, runs, y + (_CELL - height) / 2, height)
        return svg.path(d, title, fill=colour, stroke=colour, stroke_width="2", stroke_linejoin="round", **note)
    dash = f"{grid.width:.3f} {grid.gap}" if grid.gap else ""
    d = svg.stripes(grid, runs, y + _CELL / 2)
    return svg.path(d, title, stroke=colour, stroke_width=height, stroke_dasharray=dash, fill="none", **note)


def _triangle(x: float, y: float) -> str:
    return f"M{svg.num(x - 5)} {svg.num(y)}h10l-5 9z"


def _span(board: Board, steps: Sequence[int]) -> str:
    first, last = board.records[steps[0]].step, board.records[steps[-1]].step
    if first == last:
        return f"step {first}"
    return f"steps {first}–{last}" if len(steps) == last - first + 1 else f"{len(steps)} of steps {first}–{last}"


def _what(lane: Lane, kind: str, steps: Sequence[int]) -> str:
    label = LOOKS[kind].label
    if kind in WORK:
        cached = sum(lane.cached.get(i, 0) for i in steps)
        words = f"{label} · {plural(sum(lane.tokens.get(i, 0) for i in steps), 'token')}"
        return words + (f", {cached} more from the prefix cache" if cached else "")
    why = lane.why(steps[0], steps[-1] + 1)
    return f"{label}: {why}" if why else label


def _from_cache(lane: Lane, grid: Grid, y: float) -> str:
    """The part of an admission that the prefix cache spared, as the lower share of its cell."""
    columns: dict[int, list[int]] = {}
    for i, cached in lane.cached.items():
        seen = columns.setdefault(i // grid.k, [0, 0])
        seen[0] += cached
        seen[1] += lane.tokens.get(i, 0)
    if not columns:
        return ""
    d = ""
    for column, (cached, computed) in columns.items():
        height = max(_CELL * cached / (cached + computed), 3.0)
        d += svg.boxes(grid, [(column, column + 1)], y + _CELL - height, height)
    total = sum(lane.cached.values())
    title = f"{lane.request_id} · {plural(total, 'token')} from the prefix cache"
    return svg.path(d, title, fill=LOOKS[CACHE].colour, **{"data-kind": CACHE, "data-tokens": total})


def _notches(lane: Lane, grid: Grid, y: float) -> str:
    """White notches in a verification: one per token that came out of it."""
    if grid.k > 1 or grid.pitch < 8:
        return ""
    level = svg.num(y + _CELL - 2.5)
    d = "".join(f"M{svg.num(grid.x(i) + 1.5)} {level}h{svg.num(min(emitted * 2.5, grid.width - 2))}" for i, emitted in lane.emitted.items())
    return svg.path(d, stroke="#fff", stroke_width=2.4, stroke_dasharray="1.5 1", fill="none")


def _end(lane: Lane, grid: Grid, y: float) -> str:
    if lane.finished is None:
        return ""
    index, reason = lane.finished
    return end_mark(reason, grid.x(index // grid.k + 1) + 2, y, f"{lane.request_id} finished: {reason}")


def end_mark(reason: str, x: float, y: float, title: str = "") -> str:
    """The shape that says how a request ended."""
    return svg.path(f"M{svg.num(x)} {svg.num(y)}{_ENDS.get(reason, _ENDS['stop'])}", title, class_="wb-ink", fill=DIM)


def swatch(kind: str, ids: str) -> str:
    """A state as the legend shows it."""
    if kind == PREEMPTED:
        return svg.path(_triangle(5, 1), fill=LOOKS[kind].colour)
    if kind in (WAITING, IDLE, HELD):
        pattern = "held" if kind == HELD else "waiting"
        return box(f"url(#{ids}-{pattern}) none", LINE if kind == IDLE else "")
    return box(LOOKS[kind].colour, height=7 if kind == DECODE else 10)


def box(fill: str, stroke: str = "", height: float = 10, opacity: str = "") -> str:
    """A small filled square for a legend."""
    y = svg.num((10 - height) / 2 + 0.5)
    return svg.element("rect", "", width="10", height=svg.num(height), y=y, rx="2", fill=fill, stroke=stroke, fill_opacity=opacity)
