"""What a timeline draws and says: stretches of steps in which a request stays in one state."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from workbench.events import Scheduled, StepRecord
from workbench.plots._figure import words
from workbench.render._format import ms, plural
from workbench.render.board import Board, Lane, fold_kinds
from workbench.render.palette import LOOKS

MAX_STRETCHES = 4000  # more bars than that, and a browser does not zoom at once any more


class Stretch(NamedTuple):
    """Steps ``[first, end)`` of a lane, counted from the first of the trace, that are drawn as one bar of ``kind``."""

    lane: Lane
    kind: str
    first: int
    end: int


def stretches(board: Board, breaks: Sequence[int] = ()) -> tuple[list[Stretch], int]:
    """The bars of a board, and how many steps one cell of them stands for.

    No bar crosses a break.  Cells are single steps unless that makes too many bars; else a cell stands for 2, 4, 8, … steps and shows a
    preemption or a prefill if there was one, and else their most frequent state.
    """
    size = 1
    while True:
        found = [bar for lane in board.lanes for bar in _of(lane, size, breaks)]
        if len(found) <= MAX_STRETCHES or size >= len(board):
            return found, size
        size *= 2


def pauses(records: Sequence[StepRecord]) -> list[int]:
    """Places of the steps before which nothing ran for longer than the longest step took: the run was paused, or had nothing to do."""
    longest_s = max((record.duration_ms for record in records), default=0.0) / 1e3
    return [i for i, (before, after) in enumerate(pairwise(records), 1) if after.start_s - before.end_s > longest_s]


def rows_of(records: Sequence[StepRecord]) -> dict[str, dict[int, Scheduled]]:
    """What each request computed, by the place of the step."""
    rows: dict[str, dict[int, Scheduled]] = {}
    for i, record in enumerate(records):
        for row in record.scheduled:
            rows.setdefault(row.request_id, {})[i] = row
    return rows


def told(bar: Stretch, board: Board, rows: dict[int, Scheduled]) -> str:
    """What a stretch was, in the lines of a hover box: state, steps, token range, tokens from the cache, reason."""
    lane, kind, first, end = bar
    counts = Counter(kind for kind in lane.kinds[first:end] if kind)
    begin, last = board.records[first], board.records[end - 1]
    lines = [f"<b>{words(lane.request_id)}</b> · {LOOKS[kind].label}"]
    lines.append(f"step {begin.step:,}" if end - first == 1 else f"steps {begin.step:,}–{last.step:,} ({end - first:,})")
    lines[-1] += f", {ms((last.end_s - begin.start_s) * 1e3)}"
    if len(counts) > 1 or counts.total() < end - first:
        lines.append(", ".join(f"{LOOKS[kind].label} in {count:,}" for kind, count in counts.most_common()))
    lines += _worked(lane, [rows[i] for i in range(first, end) if i in rows], range(first, end))
    why = lane.why(first, end)
    return "<br>".join([*lines, words(why)] if why else lines)


def _worked(lane: Lane, rows: Sequence[Scheduled], places: range) -> Iterator[str]:
    if not rows:
        return
    cached = sum(row.num_cached for row in rows)
    computed = sum(row.num_tokens for row in rows)
    more = f", {cached:,} more from the prefix cache" if cached else ""
    yield f"tokens {rows[0].start:,} to {rows[-1].end:,}: {plural(computed, 'token')} computed{more}"
    emitted = [lane.emitted[i] for i in places if i in lane.emitted]
    if emitted:
        yield f"{plural(sum(emitted), 'token')} out of {plural(len(emitted), 'verification')}"


def _of(lane: Lane, size: int, breaks: Sequence[int]) -> Iterator[Stretch]:
    for kind, first, end in Lane(lane.request_id, fold_kinds(lane.kinds, size)).runs():
        first, end = first * size, min(end * size, len(lane.kinds))
        cuts = breaks[bisect_right(breaks, first) : bisect_left(breaks, end)]
        for start, stop in pairwise([first, *cuts, end]):
            yield Stretch(lane, kind, start, stop)
