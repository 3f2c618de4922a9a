"""What is shown while a run goes on: one line about the engine and the text so far, at most ten redraws a second.

Steps reach a :class:`LiveText` through :meth:`LiveText.on_step`, which the run's thread calls and which only appends to a deque.
Drawing happens in :meth:`LiveText.pump`, on the thread that waits.  So the engine never waits for a browser, and a
notebook is never flooded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from workbench.events import StepRecord
from workbench.render._format import number, percent
from workbench.render.screens import Screen, screen_here

MAX_HZ = 10.0
_SHARE = 0.05  # of the time, at most, goes into looking and drawing
_WINDOW_S = 1.0  # of engine time, for the rate
_TEXTS, _TAIL = 12, 600  # requests in sight, and characters of each


def status_line(records: Sequence[StepRecord]) -> str:
    """One line about the newest of ``records``: ``step 41 · 3 running, 2 waiting · KV 63 % · 184 tok/s``.

    The rate counts sampled tokens over the last second of engine time, as far as ``records`` go back.
    """
    if not records:
        return "starting"
    last = records[-1]
    queue = f"{len(last.running)} running" + (f", {len(last.waiting)} waiting" if last.waiting else "")
    parts = [f"step {last.step}", queue, f"KV {percent(last.kv.in_use / last.kv.total if last.kv.total else 0.0)}"]
    rate = _rate(records)
    return " · ".join(parts if rate is None else [*parts, f"{number(rate)} tok/s"])


def _rate(records: Sequence[StepRecord]) -> float | None:
    end, start, tokens = records[-1].end_s, records[-1].start_s, 0
    for record in reversed(records):
        if end - record.end_s > _WINDOW_S:
            break
        tokens += sum(len(sampled.token_ids) for sampled in record.sampled)
        start = record.start_s
    return tokens / (end - start) if end > start else None


class LiveText:
    """Streamed text and a status line in one place that is drawn over and over, and vanishes at the end.

    ``screen`` is found for where this runs unless given; ``clock`` counts seconds.  :meth:`pump`, :meth:`update` and :meth:`close`
    belong to one thread.

    >>> class Printer:
    ...     def show(self, line, texts): print(line, texts)
    ...     def close(self, final): print("done")
    >>> with LiveText(screen=Printer()) as live:
    ...     live.pump()
    starting {}
    True
    done
    """

    def __init__(self, *, screen: Screen | None = None, max_hz: float = MAX_HZ, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen or screen_here()
        self._clock = clock
        self._interval_s = 1.0 / max_hz
        self._inbox: deque[StepRecord] = deque()
        self._recent: deque[StepRecord] = deque(maxlen=256)
        self._texts: dict[str, str] = {}
        self._due_s = clock()
        self._stale = True
        self._closed = False

    def on_step(self, record: StepRecord) -> None:
        """Take note of a step: cheap, and safe from any thread."""
        self._inbox.append(record)

    def pump(self) -> bool:
        """Draw what is new, if it is time to; returns whether it drew."""
        return self.update(())

    def update(self, records: Iterable[StepRecord], texts: Mapping[str, str] | None = None) -> bool:
        """Take in ``records``, or ``texts`` in place of what they say, and draw if something is new and it is time to."""
        for record in records:
            self.on_step(record)
        began = self._clock()
        if self._closed or began < self._due_s:
            return False
        self._take_in()
        if texts is not None and texts != self._texts:
            self._texts, self._stale = dict(texts), True
        drawn = self._stale
        if drawn:
            self._screen.show(status_line(self._recent), self._in_sight())
            self._stale = False
        spent = self._clock() - began
        self._due_s = began + max(self._interval_s, spent / _SHARE)
        return drawn

    def close(self, final: Any | None = None) -> None:
        """Draw for the last time: ``final`` in place of the text, or nothing."""
        if not self._closed:
            self._closed = True
            self._screen.close(final)

    def __enter__(self) -> LiveText:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_in(self) -> None:
        while self._inbox:
            self._note(self._inbox.popleft())

    def _note(self, record: StepRecord) -> None:
        self._stale = True
        self._recent.append(record)
        for sampled in record.sampled:
            # Only the tail is in sight, so only the tail is kept: the cost stays flat however long an output grows.
            self._texts[sampled.request_id] = (self._texts.get(sampled.request_id, "") + sampled.text)[-2 * _TAIL :]

    def _in_sight(self) -> dict[str, str]:
        """The tails of what is being written now, filled up with the latest others, in order of first text."""
        running = set(self._recent[-1].running) if self._recent else set()
        latest_first = list(self._texts)[::-1]
        chosen = set(sorted(latest_first, key=lambda request_id: request_id not in running)[:_TEXTS])
        return {name: text if len(text) <= _TAIL else "…" + text[-_TAIL:] for name, text in self._texts.items() if name in chosen}
