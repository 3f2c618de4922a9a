"""The timeline: tokens of each step against its budget, a row per request, milliseconds per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.render import _svg as svg
from workbench.render._format import ms, number, plural
from workbench.render._svg import LEFT, RIGHT, Grid
from workbench.render.board import Board, board_of, fold
from workbench.render.lanes import box, definitions, end_mark, endings, lanes, swatch
from workbench.render.palette import DIM, DRAFT, FORWARD, LOOKS, PLAN, PREEMPTED, SAMPLE, WORK

_TOKENS_HEIGHT, _MS_HEIGHT = 58.0, 44.0
Phase = tuple[str, str, str, tuple[str, ...]]
_PHASES: tuple[Phase, ...] = (
    ("plan + commit", PLAN, "1", ("plan_ms", "commit_ms")),
    ("forward", FORWARD, "0.5", ("prepare_ms", "forward_ms")),
    ("sample", SAMPLE, "1", ("sample_ms",)),
)
_DRAFTING: Phase = ("propose drafts", DRAFT, "1", ("draft_ms",))


def timeline_svg(trace: Any) -> str:
    """The timeline of a trace as one self-contained ``<svg>``: no script, no outside reference, both themes readable.

    Above some 370 steps a column stands for several: bars then show means with the highest step pale behind, cells a preemption
    or a prefill if there was one and else the most frequent state, and the picture says so.
    """
    return timeline_of(board_of(trace), trace.model.name)


def timeline_of(board: Board, name: str, grid: Grid | None = None, shared: int | None = None) -> str:
    """:func:`timeline_svg` of a board that is already read, on columns as wide as ``grid``'s, to be set beside another one.

    A bracket spans the first ``shared`` steps, which the other one has as well, and a line stands where they part.
    """
    if not len(board):
        body = svg.label(svg.WIDTH / 2, 34, "no step was recorded", anchor="middle", size=12)
        return svg.document(body, 56, f"Timeline of {name}: no steps", "The run ended before its first step.")
    grid = Grid.of(len(board)) if grid is None else replace(grid, num_steps=len(board))
    ids = svg.prefix(name, len(board), *(lane.request_id for lane in board.lanes))
    parts, y = [definitions(ids), _tokens(board, grid)], 18 + _TOKENS_HEIGHT + 16
    rows, y = lanes(board, grid, y, ids)
    times, y = _times(board, grid, y + 14)
    axis, y = _axis(board, grid, y)
    past, y = _shared_past(grid, shared, y) if shared is not None else ("", y)
    legend, y = _legend(board, grid, y + 8, ids)
    return svg.document("".join([*parts, rows, times, axis, past, legend]), y, *_summary(board, name))


def _summary(board: Board, name: str) -> tuple[str, str]:
    used = [record.tokens.used for record in board.records]
    preempted = sum(len(lane.preempted) for lane in board.lanes)
    title = f"Timeline of {name}: {plural(len(board), 'step')}, {plural(len(board.lanes), 'request')}, {plural(preempted, 'preemption')}"
    description = (
        f"Tokens per step: at most {max(used):,} of a budget of {max(r.tokens.limit for r in board.records):,}, {sum(used):,} in all. "
        "Below, one row per request with one cell per step, then the milliseconds of each step."
    )
    return title, description


def _tokens(board: Board, grid: Grid) -> str:
    base = 18 + _TOKENS_HEIGHT
    limits = [high for _, high in fold([record.tokens.limit for record in board.records], grid.k)]
    peaks = [high for _, high in fold([record.tokens.used for record in board.records], grid.k)]
    fits = max(peaks) * 4 >= max(limits)
    top = max(*limits, *peaks) if fits else max(peaks) * 1.2 or 1
    scale = _TOKENS_HEIGHT / top
    parts, stacked = [], [0.0] * grid.columns
    for kind in WORK:
        tokens = board.tokens(kind)
        means = [mean for mean, _ in fold(tokens, grid.k)]
        stacked = [low + mean for low, mean in zip(stacked, means, strict=True)]
        heights = [max(high * scale, 1.5) if mean else 0.0 for high, mean in zip(stacked, means, strict=True)]
        if any(tokens):
            note = {"data-kind": kind, "data-tokens": sum(tokens)}
            title = f"{LOOKS[kind].label}: {plural(sum(tokens), 'token')} in {plural(sum(map(bool, tokens)), 'step')}"
            parts.append(svg.path(svg.bars(grid, heights, base), title, fill=LOOKS[kind].colour, **note))
    drawn = "".join(reversed(parts))  # each is stacked on the ones before it, so the tallest goes to the back
    if grid.k > 1:
        drawn = svg.path(svg.bars(grid, [peak * scale for peak in peaks], base), fill=DIM, fill_opacity="0.35") + drawn
    return drawn + svg.rule(LEFT, base + 0.5, grid.right) + _budget(grid, limits, scale, base, fits) + _caption(base, "tokens")


def _budget(grid: Grid, limits: Sequence[float], scale: float, base: float, fits: bool) -> str:
    words, top = number(max(limits), 6), number(_TOKENS_HEIGHT / scale)
    if not fits:
        return _caption(22, top) + svg.label(LEFT, 12, f"the token budget of a step, {words}, is far above this scale", size=10)
    d = svg.edge(grid, [limit * scale for limit in limits], base)
    line = svg.path(d, "token budget", stroke=DIM, stroke_dasharray="4 3", fill="none")
    return line + _caption(22, words) + svg.label(LEFT, 12, "token budget of a step", size=10)


def _caption(y: float, words: str) -> str:
    return svg.label(LEFT - 8, y, words, anchor="end")


def _phases(board: Board) -> tuple[Phase, ...]:
    return (*_PHASES, _DRAFTING) if any(record.timing.draft_ms for record in board.records) else _PHASES


def _times(board: Board, grid: Grid, y: float) -> tuple[str, float]:
    base = y + _MS_HEIGHT
    timings = [record.timing for record in board.records]
    totals = fold([timing.total_ms for timing in timings], grid.k)
    ordered = sorted(high for _, high in totals)
    usual = ordered[int(0.95 * (len(ordered) - 1))]
    top = ordered[-1] if ordered[-1] <= 3 * usual else usual * 1.5
    scale = _MS_HEIGHT / (top or 1)
    edges = [0.0] * len(timings)
    parts, below = [], ""
    if grid.k > 1:
        pale = svg.bars(grid, [min(high * scale, _MS_HEIGHT) for _, high in totals], base)
        parts.append(svg.path(pale, fill=DIM, fill_opacity="0.35"))
    for name, colour, opacity, phases in _phases(board):
        edges = [edge + sum(getattr(timing, phase) for phase in phases) for edge, timing in zip(edges, timings, strict=True)]
        outline = svg.bars(grid, [min(mean * scale, _MS_HEIGHT) for mean, _ in fold(edges, grid.k)], base)
        title = f"{name}: {ms(sum(getattr(timing, phase) for timing in timings for phase in phases))} in all"
        style = {"fill": colour, "fill-opacity": opacity, "fill-rule": "evenodd", "data-phase": name}
        parts.append(svg.path(outline + below, title, **style))
        below = outline
    parts += [_cut(grid, totals, top, y), svg.rule(LEFT, base + 0.5, grid.right), _caption(base, "ms"), _caption(y + 8, number(top, 2))]
    return "".join(parts), base


def _cut(grid: Grid, totals: Sequence[tuple[float, float]], top: float, y: float) -> str:
    """Marks on the steps that are taller than the scale, and the tallest one's number."""
    over = [(high, i) for i, (_, high) in enumerate(totals) if high > top * 1.001]
    if not over:
        return ""
    d = "".join(f"M{svg.num(grid.x(i + 0.5) - 3)} {svg.num(y - 1)}l3 -4l3 4z" for _, i in over)
    worst, column = max(over)
    near_right = grid.x(column) > RIGHT - 60
    note = svg.label(grid.x(column + near_right), y - 7, ms(worst), anchor="end" if near_right else "", size=10)
    return svg.path(d, f"{plural(len(over), 'step')} beyond the scale; the longest took {ms(worst)}", fill=LOOKS[PREEMPTED].colour) + note


def _axis(board: Board, grid: Grid, y: float) -> tuple[str, float]:
    """Step numbers under the columns, at round distances."""
    room = 46 / grid.pitch * grid.k
    gap = next(size * unit for unit in (1, 10, 100, 1000, 10_000, 100_000) for size in (1, 2, 5) if size * unit >= room)
    marks = [i for i, record in enumerate(board.records) if record.step % gap == 0]
    parts = [svg.label(grid.x(i / grid.k + 0.5 / grid.k), y + 13, str(board.records[i].step), anchor="middle", size=10) for i in marks]
    return "".join(parts) + _caption(y + 13, "step"), y + 16


def _shared_past(grid: Grid, shared: int, y: float) -> tuple[str, float]:
    """A bracket under the steps that two runs have in common, and a line through the picture after the last of them."""
    end, base = grid.x(shared / grid.k) - grid.gap / 2, y + 6
    d = f"M{svg.num(LEFT)} {svg.num(base - 4)}v4H{svg.num(end)}v-4" if shared else ""
    bracket = svg.path(d, "the same in both", stroke=DIM, fill="none")
    mark = svg.path(f"M{svg.num(end)} 14V{svg.num(base)}", "here the two runs part", stroke=LOOKS[PREEMPTED].colour, stroke_width=1.5)
    words = "the same in both" if shared * grid.pitch / grid.k > 90 else "same" if shared * grid.pitch / grid.k > 30 else ""
    note = svg.label((LEFT + end) / 2, base + 11, words, anchor="middle", size=10) if words else ""
    return bracket + mark + note, base + 14


def _legend(board: Board, grid: Grid, y: float, ids: str) -> tuple[str, float]:
    """Only what occurs in the picture, wrapped to its width."""
    seen = board.kinds()
    entries = [(swatch(kind, ids), look.label) for kind, look in LOOKS.items() if kind in seen]
    entries += [(end_mark(reason, 3, -1), f"ended by {reason}") for reason in endings(board)]
    phases = [("", "ms:"), *((box(colour, opacity=opacity), words) for words, colour, opacity, _ in _phases(board))]
    if grid.k > 1:
        phases.append(("", f"each column is {grid.k} steps: bars are means (pale: the highest),"))
        phases.append(("", "cells a preemption or prefill if there was one, else the most frequent state"))
    states, y = svg.legend(entries, y)
    times, y = svg.legend(phases, y - 1)
    return states + times, y
