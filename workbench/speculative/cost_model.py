"""What steps and drafting cost on this machine, learned from the steps that ran.

Two tables of milliseconds: :class:`StepCosts` over the tokens that a step reads, :class:`DraftCosts` over the drafts per request.  Both
remember the last few measurements of each situation and answer with their lower median, so that neither a stalled step nor a first, slow
one counts for long; situations never seen are read off their neighbours.  How long the contexts are is ignored: it changes slowly, and
all numbers of drafts pay for it alike.
"""

from __future__ import annotations

import bisect
import functools
import math
from typing import NamedTuple

NUM_PACES = 5  # recent steps whose median says how fast the machine is just now
NUM_SAMPLES = 7  # measurements kept of one situation: their median shrugs off three stalls
STALE_STEPS = 256  # measurements older than this give way to the next one
FIXED_TOKENS = 16  # until measured, a step costs as much as reading so many tokens, and its own on top
FIRST_DOUBT, SECOND_DOUBT, STALE_DOUBT = 0.7, 0.25, 0.25
MAX_GUESS_DOUBT = 0.6  # of what was read off neighbours
BEYOND_DOUBT = 0.1  # at least, of what goes on with a slope that was measured: costs bend upwards, so it is too low rather than too high
MAX_CELLS = 128
SHORTEST_MS = 1e-6  # of a clock that stands still


class Estimate(NamedTuple):
    """A predicted time.  ``doubt`` is the share of it that may well be too much: 0 would be certain, 0.7 is a guess."""

    ms: float
    doubt: float

    @property
    def hoped_ms(self) -> float:
        """The time if the doubt is justified."""
        return self.ms * (1.0 - self.doubt)


class Cell(NamedTuple):
    """The last measurements of one situation; ``size`` is what its table is sorted by, ``step`` when the last was taken."""

    num_requests: int
    size: int
    samples: tuple[float, ...]
    level_ms: float
    step: int

    def doubt(self, step: int) -> float:
        """A first measurement may be a warm-up, two are little, old ones may be outdated."""
        count, age = len(self.samples), step - self.step
        few = 0.5 / count if count > 2 else SECOND_DOUBT if count == 2 else FIRST_DOUBT
        stale = STALE_DOUBT * age / STALE_STEPS if age < STALE_STEPS else STALE_DOUBT
        return few if few > stale else stale


def updated(cell: Cell | None, num_requests: int, size: int, ms: float, step: int) -> Cell:
    """The cell with one more measurement: the oldest goes, and all go when the last of them is stale."""
    samples = (ms,) if cell is None or step - cell.step >= STALE_STEPS else (*cell.samples, ms)[-NUM_SAMPLES:]
    return Cell(num_requests, size, samples, sorted(samples)[(len(samples) - 1) // 2], step)


def token_class(num_tokens: float) -> int:
    """Token counts that cost about the same: each of its own up to 16, from there on within 9 %.

    >>> [token_class(n) for n in (1, 16, 17, 32, 33, 64)]
    [1, 16, 17, 24, 24, 32]
    """
    return round(num_tokens) if num_tokens <= 16 else 16 + round(8 * math.log2(num_tokens / 16))


@functools.cache
def batch_class(num_requests: int) -> int:
    """Batches that share their measurements: each of its own up to 4, from there on within about 20 %.

    >>> [batch_class(b) for b in (1, 4, 5, 8, 28, 32, 38)]
    [1, 4, 5, 6, 10, 10, 10]
    """
    return num_requests if num_requests <= 4 else 4 + round(2 * math.log2(num_requests / 4))


class StepCosts:
    """Milliseconds of a step without prompts, by its requests and by the tokens that it reads for them (drafts included).

    Machines are slower at times, by a quarter where others share them.  What one number of drafts took in a slow minute must not be held
    against what another took in a fast one: measurements are kept as if at one pace, and the pace of the last few steps is put on again.

    A situation that was seen answers for itself.  Others are interpolated over the token counts, whatever their batch was; beyond them
    the last slope goes on, but never steeper than in proportion to the tokens.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], Cell] = {}
        self._curve: dict[int, Cell] = {}  # per class of token counts the cell that was measured last, of any batch
        self._sizes: list[int] = []  # its keys, sorted
        self._paces: tuple[float, ...] = ()  # what the last steps took, as a multiple of what such steps take otherwise

    def __bool__(self) -> bool:
        return bool(self._cells)

    def copy(self) -> StepCosts:
        """An independent copy."""
        twin = StepCosts()
        twin._cells, twin._curve, twin._sizes = dict(self._cells), dict(self._curve), list(self._sizes)
        twin._paces = self._paces
        return twin

    @property
    def _pace(self) -> float:
        return sorted(self._paces)[(len(self._paces) - 1) // 2] if self._paces else 1.0

    def learn(self, num_requests: int, num_tokens: int, ms: float, step: int) -> None:
        """Note what a step cost."""
        size = token_class(num_tokens)
        key = (batch_class(num_requests), size)
        known = self._cells.get(key)
        if known is not None and len(known.samples) > 1:
            self._paces = (*self._paces, ms / max(_scaled(known, num_tokens), SHORTEST_MS))[-NUM_PACES:]
        ms /= max(self._pace, SHORTEST_MS)
        # The newest goes to the end, so that the first is the one to forget.
        if size not in self._curve:
            bisect.insort(self._sizes, size)
        self._cells[key] = self._curve[size] = updated(self._cells.pop(key, None), num_requests, num_tokens, ms, step)
        if len(self._cells) > MAX_CELLS:
            self._forget(next(iter(self._cells)))

    def _forget(self, key: tuple[int, int]) -> None:
        cell = self._cells.pop(key)
        if self._curve[key[1]] is cell:
            del self._curve[key[1]]
            self._sizes.remove(key[1])

    def predict(self, num_requests: int, num_tokens: float, step: int) -> Estimate:
        """What a step of so many requests and tokens (their expectation, when drafts may be missing) will cost.

        Needs at least one measurement.
        """
        usual = self._usual(num_requests, num_tokens, step)
        return Estimate(usual.ms * self._pace, usual.doubt)

    def _usual(self, num_requests: int, num_tokens: float, step: int) -> Estimate:
        """The same at the pace at which measurements are kept."""
        cell = self._cells.get((batch_class(num_requests), token_class(num_tokens)))
        if cell is not None:
            return Estimate(_scaled(cell, num_tokens), cell.doubt(step))
        after = bisect.bisect_left(self._sizes, token_class(num_tokens))
        below = self._curve[self._sizes[after - 1]] if after else None
        above = self._curve[self._sizes[after]] if after < len(self._sizes) else None
        if above is None and (slope := self._last_slope()) is not None:
            last = self._curve[self._sizes[-1]]
            return Estimate(last.level_ms + slope * max(0.0, num_tokens - last.size), max(BEYOND_DOUBT, last.doubt(step)))
        if below is None or above is None:
            nearest = below or above
            assert nearest is not None, "predict() before learn()"
            ms = _scaled(nearest, num_tokens)
        else:
            share = min(1.0, max(0.0, (num_tokens - below.size) / max(1, above.size - below.size)))
            ms = below.level_ms + share * (above.level_ms - below.level_ms)
            nearest = below if share < 0.5 else above
        apart = 0.5 * abs(math.log2(max(1.0, num_tokens) / max(1, nearest.size)))
        return Estimate(ms, min(MAX_GUESS_DOUBT, nearest.doubt(step) + apart))

    def _last_slope(self) -> float | None:
        """Milliseconds a token beyond the last point, if it was measured.

        From a point clearly before the last one, or noise between close points would decide.
        """
        last = self._curve[self._sizes[-1]]
        before = next((c for s in reversed(self._sizes) if (c := self._curve[s]).size <= last.size / 1.5), None)
        if before is None:
            return None
        return min(max(0.0, (last.level_ms - before.level_ms) / (last.size - before.size)), last.level_ms / last.size)


def _scaled(cell: Cell, num_tokens: float) -> float:
    """A measurement carried over to another number of tokens, by the rule for what was never measured."""
    return cell.level_ms * (FIXED_TOKENS + num_tokens) / (FIXED_TOKENS + cell.size)


class DraftCosts:
    """Milliseconds of proposing drafts after a step, by the requests and the drafts per request.

    A number of drafts never asked for is taken in proportion from the nearest one of the nearest batch: the drafts of a request are
    computed one after the other.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], Cell] = {}

    def copy(self) -> DraftCosts:
        """An independent copy."""
        twin = DraftCosts()
        twin._cells = dict(self._cells)
        return twin

    def learn(self, num_requests: int, num_drafts: int, ms: float, step: int) -> None:
        """Note what proposing ``num_drafts`` for each of so many requests cost."""
        key = (batch_class(num_requests), num_drafts)
        self._cells[key] = updated(self._cells.pop(key, None), num_requests, num_drafts, ms, step)
        if len(self._cells) > MAX_CELLS:
            del self._cells[next(iter(self._cells))]

    def predict(self, num_requests: int, num_drafts: int, step: int) -> Estimate:
        """What proposing will cost; nothing, until it was measured."""
        batch = batch_class(num_requests)
        cell = self._cells.get((batch, num_drafts))
        if cell is not None:
            return Estimate(cell.level_ms, cell.doubt(step))
        if not self._cells or not num_drafts:
            return Estimate(0.0, 0.0)
        cell = self._nearest(batch, num_drafts)
        ratio = num_drafts / cell.size * (FIXED_TOKENS + num_requests) / (FIXED_TOKENS + cell.num_requests)
        return Estimate(cell.level_ms * ratio, min(MAX_GUESS_DOUBT, cell.doubt(step) + 0.25))

    def _nearest(self, batch: int, num_drafts: int) -> Cell:
        """The closest number of drafts of this batch; if none was ever measured, of the closest batch."""
        for apart in range(1, num_drafts):
            for other in (num_drafts - apart, num_drafts + apart):
                cell = self._cells.get((batch, other))
                if cell is not None:
                    return cell
        return self._cells[min(self._cells, key=lambda known: (abs(known[0] - batch), abs(known[1] - num_drafts)))]
