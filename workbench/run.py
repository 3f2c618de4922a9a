"""``Run``: a handle on prompts that an engine works through, and their result.

Steps happen on the run's own daemon thread; the handle can be asked, waited for and stopped from anywhere.  When the run is
over the same object is its result: outputs, trace, metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from workbench.events import ModelFacts, StepRecord
from workbench.metrics import RunMetrics, measure
from workbench.outputs import Completion, completions
from workbench.request import Request
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.table import StepTable
    from workbench.tokenizer import Tokenizer

Status = Literal["running", "finished", "stopped", "failed"]
_POLL_S = 0.05


class Chunk(msgspec.Struct, frozen=True):
    """A piece of streamed output: the text and tokens of one step."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None = None


class Steppable(Protocol):
    """What a run needs of its engine."""

    trace: Trace
    model: ModelFacts
    tokenizer: Tokenizer | None

    def step(self) -> StepRecord:
        """Take one step."""
        ...

    def abort(self, request_id: str) -> bool:
        """End a request."""
        ...

    def apply_commands(self) -> None:
        """Apply what was asked for during the last step."""
        ...

    def seconds_to_next_arrival(self) -> float | None:
        """How long there is nothing to do."""
        ...

    def release(self) -> None:
        """Let others step."""
        ...


class Run:
    """Prompts on their way through an engine, and what came of them.

    ``status``: ``running``, then ``finished``, ``stopped`` (by :meth:`stop` or an interrupt) or ``failed``.
    """

    def __init__(self, engine: Steppable, requests: Sequence[Request], on_step: Callable[[StepRecord], None] | None = None) -> None:
        self.engine = engine
        self.requests = tuple(requests)
        self.name = f"the run of {self.requests[0].id}" + (f" to {self.requests[-1].id}" if len(self.requests) > 1 else "")
        self.error: BaseException | None = None
        self._on_step = on_step
        self._first = len(engine.trace)
        self._last: int | None = None
        self._status: Status = "running"
        self._stop = threading.Event()
        self._done = threading.Event()
        self._guard = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._unfinished = {request.id for request in self.requests}
        self._thread = threading.Thread(target=self._work, name=f"workbench {self.name}", daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to step; called once, by the engine."""
        self._thread.start()

    @property
    def status(self) -> Status:
        """Where the run stands."""
        return self._status

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is the run's own thread."""
        return threading.current_thread() is self._thread

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run is over, ``timeout`` seconds at most; ``True`` if it is.  A failed run raises its error here."""
        over = self._done.wait(timeout)
        if self.error is not None:
            raise self.error
        return over

    def stop(self) -> None:
        """End the run after the step under way; what is there stays as the result, unfinished requests are aborted."""
        self._stop.set()

    def when_done(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once the run is over, on the run's thread; at once if it is over already."""
        with self._guard:
            over = self._done.is_set()
            if not over:
                self._listeners.append(listener)
        if over:
            listener()

    def wait_or_stop(self, pump: Callable[[], object] | None = None) -> None:
        """Wait, calling ``pump`` about 20 times a second; an interrupt stops the run, waits for its last step and is raised again."""
        try:
            while not self._done.wait(_POLL_S):
                if pump is not None:
                    pump()
        except BaseException:
            self.stop()
            self._done.wait()
            raise
        self.wait()

    def _work(self) -> None:
        status: Status = "failed"
        try:
            while self._unfinished and not self._stop.is_set():
                self._one_step()
            status = "stopped" if self._unfinished else "finished"
        except BaseException as error:
            self.error = error
        finally:
            self._finish(status)

    def _one_step(self) -> None:
        self.engine.apply_commands()
        idle_s = self.engine.seconds_to_next_arrival()
        if idle_s:
            self._stop.wait(min(idle_s, _POLL_S))
            return
        record = self.engine.step()
        self._unfinished.difference_update(finished.request_id for finished in record.finished)
        if self._on_step is not None:
            self._on_step(record)

    def _finish(self, status: Status) -> None:
        """Abort what is left, record that, and hand the engine back."""
        try:
            left = [request_id for request_id in self._unfinished if self.engine.abort(request_id)]
            if left:
                self.engine.step()  # records the aborts; nothing of this run is left to execute
        except BaseException as error:
            self.error = self.error or error
        self._last = len(self.engine.trace)
        self._status = "failed" if self.error is not None else status
        self.engine.release()
        with self._guard:
            self._done.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    # -- result ----------------------------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace:
        """The records of this run and the requests they speak of (a snapshot while it is running)."""
        return self._final_trace if self._last is not None else self._snapshot(len(self.engine.trace))

    @cached_property
    def _final_trace(self) -> Trace:
        trace = self._snapshot(self._last)
        tokenizer = self.engine.tokenizer
        if tokenizer is not None:
            used = {token for record in trace.records for sampled in record.sampled for token in sampled.token_ids}
            used.update(token for request in trace.requests.values() for token in request.prompt_token_ids)
            trace.token_texts = {token: tokenizer.token_text(token) for token in sorted(used)}
        return trace

    def _snapshot(self, last: int | None) -> Trace:
        whole = self.engine.trace
        records = whole.records[self._first : last]
        seen = {decision.request_id for record in records for decision in record.decisions}
        wanted = seen.union(request.id for request in self.requests)
        return Trace(whole.config, whole.model, [r for r in whole.requests.values() if r.id in wanted], records, whole.fidelity)

    @property
    def outputs(self) -> list[Completion]:
        """One :class:`Completion` per request, in the order in which they were given."""
        return list(self._final_outputs) if self._last is not None else completions(self.requests, self.trace, self.metrics)

    @cached_property
    def _final_outputs(self) -> list[Completion]:
        return completions(self.requests, self.trace, self.metrics)

    @property
    def metrics(self) -> RunMetrics:
        """Latencies, throughput, cache and speculation figures of the run."""
        return self._final_metrics if self._last is not None else measure(self.trace)

    @cached_property
    def _final_metrics(self) -> RunMetrics:
        return measure(self.trace)

    @property
    def steps(self) -> StepTable:
        """The steps as a table: prints aligned; ``to_pandas()`` and ``to_arrow()`` convert it."""
        return self.trace.steps

    def summary(self) -> str:
        """The run in a few lines of text."""
        from workbench.render.text import render_text

        return render_text(self)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the trace to one file that :func:`workbench.load_trace` reads."""
        return self.trace.save(path)

    def to_perfetto(self, path: str | PathLike[str]) -> Path:
        """Write a Chrome trace-event file for Perfetto."""
        return self.trace.to_perfetto(path)

    def __repr__(self) -> str:
        return f"<Run {self.status}: {len(self.requests)} requests, {len(self.trace)} steps on {self.engine.model.name}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from workbench.render import mimebundle

        return mimebundle(self)


def stream_chunks(launch: Callable[..., Run]) -> Iterator[Chunk]:
    """Start a run by ``launch(on_step=…)`` and yield a :class:`Chunk` per step that brought tokens; closing the iterator stops it."""
    records: SimpleQueue[StepRecord | None] = SimpleQueue()
    run = launch(on_step=records.put)
    own = {request.id for request in run.requests}
    run.when_done(lambda: records.put(None))
    try:
        while (record := records.get()) is not None:
            ended = {end.request_id: end.reason for end in record.finished}
            for sampled in record.sampled:
                if sampled.request_id in own:
                    yield Chunk(sampled.request_id, sampled.text, sampled.token_ids, ended.get(sampled.request_id))
        run.wait()
    finally:
        run.stop()
        run.wait()
