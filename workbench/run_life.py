"""How a run moves: its own thread, halting, ending, and who is told of it.

One thread steps at a time: the run's own between :meth:`RunLife.resume` and the moment it halts or is over, else the caller's.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Self

from workbench.errors import RequestError
from workbench.events import StepRecord
from workbench.interrupts import POLL_S, held_back, wait_for_event
from workbench.request import Request
from workbench.steppable import Steppable

Status = Literal["paused", "running", "finished", "stopped", "failed"]


class RunLife(ABC):
    """Requests that an engine works through, and where that stands: ``status`` and ``error`` have their owner here."""

    def __init__(
        self, engine: Steppable, requests: Sequence[Request], name: str | None, on_step: Callable[[StepRecord], None] | None
    ) -> None:
        self.engine = engine
        self.requests = tuple(requests)
        ids = [request.id for request in requests]
        self.name = name or f"the run of {ids[0]}" + (f" to {ids[-1]}" if len(ids) > 1 else "")
        self.error: BaseException | None = None
        self.failed_step: int | None = None  # the step in which it was raised, if it was raised in one
        self._on_step = on_step
        self._status: Status = "paused"
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._idle = threading.Event()  # nobody steps: paused or over
        self._idle.set()
        self._done = threading.Event()
        self._guard = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _keep_result(self) -> None:
        """Keep what came of the run; called when it is over, before anybody is told so."""

    @property
    def status(self) -> Status:
        """Where the run stands."""
        return self._status

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is the run's own thread."""
        return threading.current_thread() is self._thread

    def resume(self, *, background: bool = False) -> Self:
        """Step on to the end on the run's own thread, and wait for it unless ``background``; returns the run itself.

        An interrupt while waiting stops the run cleanly and is raised again.  A run that is over stays as it is.
        Raises :class:`EngineBusyError` while another run is active.
        """
        with held_back():
            if self._status == "paused":
                self._begin()
            if not background:
                self.wait_or_stop()
        return self

    def _begin(self) -> None:
        self.engine.take(self)
        self._pause.clear()
        self._idle.clear()
        self._status = "running"
        self._thread = threading.Thread(target=self._work, name=f"workbench {self.name}", daemon=True)
        self._thread.start()
        self._changed()

    def pause(self) -> None:
        """Halt after the step under way; :meth:`step`, :meth:`rewind` and :meth:`resume` go on from there."""
        self._pause.set()
        if not self.is_current_thread:
            wait_for_event(self._idle)

    def step(self) -> StepRecord:
        """Take one step of a paused run, on the caller's thread.  Raises :class:`EngineBusyError` while it runs."""
        if self._done.is_set():
            raise RequestError(f"{self.name} is over ({self._status}): rewind it to step again")
        record = self.engine.step()
        self.engine.hold_clock()
        self._stepped(record)
        if not self._unfinished:
            self._finish("finished")
        return record

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, ``timeout`` seconds at most; ``True`` if the run is over.

        ``False`` when time was up, or at once when the run is paused.  A failed run raises its error here.
        """
        wait_for_event(self._idle, timeout)
        if self.error is not None:
            raise self.error
        return self._done.is_set()

    def stop(self) -> None:
        """End the run after the step under way; what is there stays as the result, unfinished requests are aborted."""
        with self._guard:
            self._stop.set()
            halted = self._status == "paused"
        if halted:
            self._finish("stopped")

    def when_done(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once the run is over, on the run's thread; at once if it is over already."""
        with self._guard:
            over = self._done.is_set()
            if not over:
                self._listeners.append(listener)
        if over:
            listener()

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call ``watcher`` after every step, and whenever the run starts, halts, ends or is taken back; returns how to end that.

        It is called on whichever thread made the change, and must be quick.
        """
        with self._guard:
            self._watchers = (*self._watchers, watcher)

        def forget() -> None:
            with self._guard:
                self._watchers = tuple([each for each in self._watchers if each is not watcher])

        return forget

    def wait_or_stop(self, pump: Callable[[], object] | None = None) -> None:
        """Wait until the run is over, calling ``pump`` about 20 times a second; an interrupt stops the run and is raised again."""
        with held_back() as interrupts:
            try:
                while not self._done.wait(POLL_S) and not interrupts.is_waiting:
                    if pump is not None:
                        pump()
            finally:
                if not self._done.is_set():
                    self.stop()
                    self._done.wait()
        self.wait()

    @property
    def _unfinished(self) -> list[str]:
        left = self.engine.unfinished
        return [request.id for request in self.requests if request.id in left]

    def _work(self) -> None:
        try:
            while self._unfinished and not self._stop.is_set() and not self._pause.is_set():
                self._one_step()
        except BaseException as error:
            self.error, self.failed_step = error, self.engine.trace.next_step
        with self._guard:
            halts = self._pause.is_set() and not self._stop.is_set() and self.error is None and bool(self._unfinished)
            if halts:
                self.engine.hold_clock()
                self.engine.release()
                self._status = "paused"
        if halts:
            self._idle.set()
            self._changed()
        else:
            self._finish("stopped" if self._unfinished else "finished")

    def _one_step(self) -> None:
        self.engine.apply_commands()
        idle_s = self.engine.seconds_to_next_arrival()
        if idle_s:
            self._stop.wait(min(idle_s, POLL_S))
            return
        self._stepped(self.engine.step())

    def _stepped(self, record: StepRecord) -> None:
        if self._on_step is not None:
            self._on_step(record)
        self._changed()

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher()

    def _finish(self, status: Status) -> None:
        """Abort what is left, record that, and hand the engine back."""
        try:
            left = [request_id for request_id in self._unfinished if self.engine.abort(request_id)]
            if left:
                self.engine.step()  # records the aborts; nothing of this run is left to execute
        except BaseException as error:
            self.error = self.error or error
        self._keep_result()
        self._status = "failed" if self.error is not None else status
        self.engine.release()
        with self._guard:
            self._done.set()
            self._idle.set()
            listeners, self._listeners = self._listeners, []
        self._changed()
        for listener in listeners:
            listener()

    def _reopen(self) -> None:
        """Paused again after the engine was taken back, whatever had come of the steps that are gone."""
        with self._guard:
            self.error, self.failed_step = None, None
            self._status = "paused"
            self._stop.clear()
            self._done.clear()
        self._changed()
