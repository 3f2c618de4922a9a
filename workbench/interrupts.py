"""Where an interrupt may strike: in the model's forward pass, never in the middle of a decision.

``Ctrl-C`` (the notebook's ■) raises ``KeyboardInterrupt`` between any two bytecodes of the main thread.  Half a scheduler step
would leave the engine's books wrong, so while they are being written an interrupt waits.  So it does while one waits for an event:
one that strikes inside ``Event.wait`` can leave the event's lock taken, and whoever sets the event then waits for ever.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

POLL_S = 0.05  # between two looks for an interrupt


class Interrupts:
    """Holds interrupts back; see :func:`held_back`."""

    def __init__(self) -> None:
        self._waiting: tuple[int, FrameType | None] | None = None
        self._handler = signal.getsignal(signal.SIGINT)

    @property
    def is_waiting(self) -> bool:
        """Whether an interrupt came and is held back, here or by a block around this one."""
        outer = getattr(self._handler, "__self__", None)
        return self._waiting is not None or (isinstance(outer, Interrupts) and outer.is_waiting)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._waiting = (number, frame)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let interrupts through again for a while; one that waits is raised now."""
        signal.signal(signal.SIGINT, self._handler)
        try:
            self.raise_waiting()
            yield
        finally:
            signal.signal(signal.SIGINT, self._hold)

    def raise_waiting(self) -> None:
        """Hand an interrupt that waits to whoever handles it."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and callable(self._handler):
            self._handler(*waiting)


class _NoInterrupts(Interrupts):
    """In any thread but the main one nothing has to be held back."""

    def __init__(self) -> None:
        self._waiting = self._handler = None

    @contextmanager
    def allowed(self) -> Iterator[None]:
        yield


@contextmanager
def held_back() -> Iterator[Interrupts]:
    """Hold interrupts back until the block ends, but for what runs under :meth:`Interrupts.allowed`."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield _NoInterrupts()
        return
    interrupts = Interrupts()
    signal.signal(signal.SIGINT, interrupts._hold)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, interrupts._handler)
    interrupts.raise_waiting()


def wait_for_event(event: threading.Event, timeout_s: float | None = None) -> bool:
    """``event.wait(timeout_s)``, at the end of which an interrupt is raised: within ``POLL_S`` of its coming."""
    ends_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
    with held_back() as interrupts:
        while not event.wait(max(0.0, min(POLL_S, ends_s - time.monotonic()))):
            if interrupts.is_waiting or time.monotonic() >= ends_s:
                break
    return event.is_set()
