"""``Clock``: the seconds on which arrivals and records are dated; it can be held, and put back."""

from __future__ import annotations

from time import perf_counter


class Clock:
    """Runs from 0 when it is made.

    Time that an engine spends stopped between two futures is not part of either: a clock that is put back is held until the
    next step, which is dated exactly there.
    """

    def __init__(self) -> None:
        self._zero = perf_counter()
        self._held_s: float | None = None

    @property
    def now_s(self) -> float:
        """Seconds since the beginning, without the time held."""
        return perf_counter() - self._zero if self._held_s is None else self._held_s

    def hold(self, at_s: float | None = None) -> None:
        """Stand still, now or at ``at_s``, until :meth:`go`."""
        self._held_s = self.now_s if at_s is None else at_s

    def go(self) -> float:
        """Run on from where it was held, and return what it shows."""
        now_s = self.now_s
        if self._held_s is not None:
            self._zero = perf_counter() - self._held_s
            self._held_s = None
        return now_s
