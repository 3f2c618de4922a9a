"""``Worker``: does what buttons ask for, one thing after the other, on a daemon thread that ends when there is nothing to do.

Whoever hears a button (the main thread, a subshell, the control thread) hands the job over and is free again at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

IDLE_S = 2.0


class Worker:
    """A queue of jobs; each must deal with its own errors."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Do ``job`` when those before it are done."""
        with self._guard:
            self._jobs.put(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except Empty:
                with self._guard:
                    if self._jobs.empty():
                        self._thread = None
                        return
                continue
            job()
