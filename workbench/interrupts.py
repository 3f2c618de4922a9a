"""Where an interrupt may strike: in the model's forward pass, never in the middle of a decision.

``Ctrl-C`` (the notebook's ■) raises ``KeyboardInterrupt`` between any two bytecodes of the main thread.  Half a scheduler step
would leave the engine's books wrong, so while they are being written an interrupt waits.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Holds interrupts back; see :func:`held_back`."""

    def __init__(self) -> None:
        self._waiting: tuple[int, FrameType | None] | None = None
        self._handler = signal.getsignal(signal.SIGINT)

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
        self._waiting = None

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
