"""``Engine``: a model, a scheduler and a runner, stepped.

One step is ``plan → execute → commit``; everything else here gets requests in, keeps two threads from stepping at once, and
hands out :class:`~workbench.run.Run` handles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.adjust import change_knobs, check_changeable, edit_request, unknown_request
from workbench.assembly import as_edits, as_list, make_config, make_runner, make_timeline, sampling_of, timeline_of
from workbench.config import EngineConfig
from workbench.errors import EngineBusyError, EngineClosedError, RequestError
from workbench.events import ModelFacts, StepRecord
from workbench.history import Restored
from workbench.intake import Intake, Prompt
from workbench.interrupts import held_back
from workbench.limits import memory_limit_bytes
from workbench.mailbox import Mailbox
from workbench.request import Request, SamplingParams
from workbench.run import Run
from workbench.runners.base import Runner
from workbench.scheduler import Scheduler
from workbench.sizing import pool_blocks
from workbench.streaming import Chunk, stream_chunks
from workbench.timeline import Timeline
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.models import LoadedModel
    from workbench.tokenizer import Tokenizer


Answer = TypeVar("Answer")


class Engine:
    """An inference engine that can be stepped, watched and asked why.

    ``model`` is a name (``"smollm2"``), a folder in Hugging Face layout, a GGUF file, a hub id, a
    :class:`~workbench.models.LoadedModel` (engines that share one share its weights), or any
    :class:`~workbench.runners.base.Runner`.  Knobs are :class:`~workbench.config.EngineConfig` fields, by keyword or as ``config``.

    Raises :class:`ConfigError` for impossible knobs and :class:`ModelError` for a model that cannot be had.

    >>> from workbench.runners.scripted import ScriptedRunner
    >>> engine = Engine(ScriptedRunner({"r0": [5, 6]}), num_blocks=4)
    >>> engine.add_request([1, 2, 3], max_tokens=2).id
    'r0'
    >>> [engine.step().scheduled[0].kind, engine.step().scheduled[0].kind, engine.has_unfinished]
    ['prefill', 'decode', False]
    """

    def __init__(
        self,
        model: str | Path | LoadedModel | Runner = "smollm2",
        *,
        config: EngineConfig | None = None,
        tokenizer: Tokenizer | None = None,
        **knobs: Any,
    ) -> None:
        chosen = make_config(model, config, knobs)
        runner, tokenizer, num_blocks = make_runner(model, chosen, tokenizer)
        self._begin(make_timeline(chosen, runner, tokenizer, num_blocks), tokenizer)

    def _begin(self, timeline: Timeline, tokenizer: Tokenizer | None) -> None:
        self._timeline = timeline
        self.tokenizer = tokenizer
        self.model: ModelFacts = timeline.runner.facts
        self.last_run: Run | None = None
        self._intake = Intake(tokenizer, vocab_size=self.model.vocab_size, seed=self.config.seed)
        self._mailbox: Mailbox[Run] = Mailbox()
        self._lock = threading.RLock()
        self._closed = False

    @classmethod
    def from_trace(cls, trace: Trace, model: str | Path | LoadedModel | Runner | None = None) -> Engine:
        """An engine that stands where ``trace`` ends: it steps on, rewinds and forks as if it had taken those steps itself.

        ``model`` must be the one that was recorded (by default it is loaded by the trace's own settings); its KV cache is computed again
        when it is first needed.  :attr:`last_run` is the run that the trace holds.
        Raises :class:`TraceError` for a trace that lacks its beginning or does not follow from its own settings.
        """
        runner, tokenizer, _ = make_runner(trace.config.model if model is None else model, trace.config, None)
        engine = object.__new__(cls)
        engine._begin(timeline_of(trace, runner, tokenizer), tokenizer)
        engine.last_run = Run.of_trace(engine)
        return engine

    # -- stepping --------------------------------------------------------------------------------------------------

    def step(self) -> StepRecord:
        """Plan, execute and commit one step; returns its record.

        If execution fails or is interrupted, the plan is taken back: its requests wait again and nothing is lost.
        """
        with self._owned(), held_back() as interrupts:
            return self._timeline.step(interrupts)

    @property
    def config(self) -> EngineConfig:
        """The settings as they are now."""
        return self.scheduler.config

    @property
    def scheduler(self) -> Scheduler:
        """Who decides."""
        return self._timeline.scheduler

    @property
    def runner(self) -> Runner:
        """Who executes."""
        return self._timeline.runner

    @property
    def trace(self) -> Trace:
        """Every step since the engine was made."""
        return self._timeline.trace

    @property
    def clock_s(self) -> float:
        """Seconds since the engine was made, without time spent between two futures: the clock of arrivals and records."""
        return self._timeline.clock.now_s

    @property
    def has_unfinished(self) -> bool:
        """Whether any request still has tokens to come."""
        return self.scheduler.has_unfinished

    @property
    def unfinished(self) -> set[str]:
        """Ids of the requests that still have tokens to come."""
        return set(self.scheduler.queues.states)

    def current(self, request_id: str) -> Request:
        """A request as it is now, edits included; raises :class:`KeyError` for one that was never here."""
        state = self.scheduler.queues.states.get(request_id)
        return state.request if state is not None else self.trace.requests[request_id]

    @property
    def num_blocks(self) -> int:
        """Usable KV blocks."""
        return self.scheduler.kv.pool.num_blocks

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output that a request may reach, in tokens."""
        return self.scheduler.max_model_len

    def seconds_to_next_arrival(self) -> float | None:
        """How long nothing can happen because every unfinished request arrives later by the clock; ``None`` if a step makes sense."""
        queues = self.scheduler.queues
        if queues.running or queues.waiting or not queues.pending:
            return None
        self._timeline.clock.go()  # waiting is part of the run
        due_s = [state.request.arrival_s for state in queues.pending if state.request.arrival_s is not None]
        return max(0.0, min(due_s) - self.clock_s) if len(due_s) == len(queues.pending) else None

    # -- requests --------------------------------------------------------------------------------------------------

    def add_request(
        self,
        prompt: Prompt | Mapping[str, Any],
        *,
        request_id: str | None = None,
        priority: int = 0,
        arrival_step: int | None = None,
        arrival_s: float | None = None,
        chat: bool | None = None,
        sampling: SamplingParams | None = None,
        **params: Any,
    ) -> Request:
        """Add one prompt: text, token ids, or chat messages; it arrives now, or as ``arrival_step`` / ``arrival_s`` say.

        Text goes through the chat template when the model has one, unless ``chat=False``.  ``params`` are
        :class:`~workbench.request.SamplingParams` fields.  With ``n > 1`` the first completion's request is returned.
        Raises :class:`RequestError` at once when the request could never run.
        """
        own: dict[str, Any] = dict(prompt) if isinstance(prompt, Mapping) else {"prompt": prompt}
        given = {"id": request_id, "priority": priority or None, "arrival_step": arrival_step, "arrival_s": arrival_s}
        own.update({key: value for key, value in given.items() if value is not None})
        return self.between_steps(lambda: self._admit([own], sampling_of(sampling, params), chat)[0])

    def abort(self, request_id: str) -> bool:
        """End a request between two steps; ``False`` if it is not (or no longer) in the engine."""
        return self.between_steps(lambda: self.scheduler.abort(request_id))

    def _admit(self, prompts: Sequence[Prompt | Mapping[str, Any]], sampling: SamplingParams, chat: bool | None) -> list[Request]:
        """Check all, then add all: one bad prompt leaves the engine as it was."""
        requests: list[Request] = []
        for entry in prompts:
            requests += self._intake.requests(entry, f"r{len(self.trace.requests) + len(requests)}", sampling, chat)
        names = [request.id for request in requests]
        for request in requests:
            self.scheduler.check(request)
            if names.count(request.id) > 1 or request.id in self.trace.requests:
                raise RequestError(f"a request with id {request.id!r} is already in the engine: choose another id")
        now_s = self.clock_s
        for request in requests:
            self.scheduler.add(request, now_s=now_s)
            self.trace.add_request(request)
        return requests

    # -- changing, going back, and second engines ------------------------------------------------------------------

    def change(self, **knobs: Any) -> None:
        """Give the engine other settings between two steps; those that need another pool or cache take a :meth:`fork`.

        Raises :class:`ConfigError` with the knobs that may change.
        """
        check_changeable(knobs, live=True)
        self.between_steps(lambda: change_knobs(self.scheduler, knobs))

    def edit(self, request_id: str, **changes: Any) -> Request:
        """Change an unfinished request's sampling, priority or prompt between two steps; with another prompt it starts afresh."""
        return self.between_steps(lambda: self._edit(self.scheduler, request_id, changes))

    def rewind(self, step: int) -> Restored:
        """Go back to the state before ``step``, KV tensors, texts, settings and clock included.

        Later records are dropped, and requests that were added later are gone.  Returns how the state was brought back.
        Raises :class:`TraceError` for a step that does not exist.
        """
        return self.between_steps(lambda: self._rewind(step))

    def fork(
        self,
        step: int | None = None,
        *,
        add: Prompt | Sequence[Prompt | Mapping[str, Any]] = (),
        edit: Mapping[str, Mapping[str, Any]] | None = None,
        abort: Sequence[str] = (),
        **knobs: Any,
    ) -> Engine:
        """A second, independent engine from the state before ``step`` (by default the next one), on the same weights.

        ``knobs`` are settings to change, ``abort`` ids of requests to end, ``edit`` maps an id to the fields to change, ``add`` are prompts
        as :meth:`run` takes them.  Nothing that is done to the fork touches this engine.
        Raises :class:`TraceError`, :class:`ConfigError` or :class:`RequestError` with what is allowed.
        """
        check_changeable(knobs)
        prompts, edits = as_list(add) if add else [], as_edits(edit or {})
        names = [abort] if isinstance(abort, str) else list(abort)
        return self.between_steps(lambda: self._fork(step, prompts, edits, names, knobs))

    def scheduler_before(self, step: int) -> Scheduler:
        """A copy of the scheduler as it stood before ``step``, to look at or to try things on."""
        return self.between_steps(lambda: self._timeline.scheduler_before(step))

    @property
    def last_restored(self) -> Restored | None:
        """How this engine was last brought to a state of the past, by :meth:`rewind` or :meth:`fork`."""
        return self._timeline.last_restored

    def _rewind(self, step: int) -> Restored:
        with held_back() as interrupts:
            return self._timeline.rewind(step, interrupts)

    def _edit(self, scheduler: Scheduler, request_id: str, changes: Mapping[str, Any]) -> Request:
        state = scheduler.queues.states.get(request_id)
        return edit_request(scheduler, request_id, self._intake.edit(state.request, changes) if state is not None else changes)

    def _fork(
        self, step: int | None, add: list[Any], edits: Mapping[str, Mapping[str, Any]], abort: Sequence[str], knobs: Mapping[str, Any]
    ) -> Engine:
        at = self.scheduler.step if step is None else step

        def prepare(scheduler: Scheduler) -> None:
            if knobs:
                change_knobs(scheduler, knobs)
                pool_blocks(scheduler.config, self.model, memory_bytes=memory_limit_bytes())  # refuses what memory cannot hold
            for request_id in abort:
                if not scheduler.abort(request_id):
                    raise unknown_request(scheduler, request_id, at)
            for request_id, changes in edits.items():
                self._edit(scheduler, request_id, changes)

        return self._twin(self._timeline.fork(at, prepare), add)

    def _twin(self, timeline: Timeline, add: list[Any]) -> Engine:
        twin = object.__new__(Engine)
        twin._begin(timeline, self.tokenizer)
        if add:
            twin._admit(add, SamplingParams(), None)
        return twin

    # -- runs ------------------------------------------------------------------------------------------------------

    def run(
        self,
        prompts: Prompt | Sequence[Prompt | Mapping[str, Any]],
        *,
        background: bool = False,
        paused: bool = False,
        on_step: Callable[[StepRecord], None] | None = None,
        chat: bool | None = None,
        sampling: SamplingParams | None = None,
        **params: Any,
    ) -> Run:
        """Run prompts to their end on the run's own thread; waits unless ``background``, and with ``paused`` does not begin.

        ``prompts`` is one prompt, or a list of prompts: text, token ids, chat messages, or mappings with their own ``arrival_step``,
        ``priority`` and sampling parameters.  ``on_step`` is called on the run's thread after each step and must be quick.  An interrupt
        stops the run cleanly and is raised again; the partial result is :attr:`last_run`.
        Raises :class:`EngineBusyError` while another run is active.
        """
        self.check_open()
        self._check_free()  # before the lock, which an active run holds while it steps
        with self._lock:
            self._check_free()
            requests = self._admit(as_list(prompts), sampling_of(sampling, params), chat)
            run = self.last_run = Run(self, requests, on_step)
            if paused:
                self.hold_clock()
        return run if paused else run.resume(background=background)

    def stream(self, prompt: Prompt | Mapping[str, Any], *, chat: bool | None = None, **params: Any) -> Iterator[Chunk]:
        """Yield the output of one prompt piece by piece; leaving the loop early stops the run."""
        return stream_chunks(lambda on_step: self.run([prompt], background=True, on_step=on_step, chat=chat, **params))

    @property
    def active_run(self) -> Run | None:
        """The run that owns the engine at the moment."""
        return self._mailbox.owner

    def park(self) -> None:
        """Give back the KV cache but keep all else: the next step, :meth:`rewind` or :meth:`fork` computes its contents again."""
        self.between_steps(self._timeline.park)

    def close(self) -> None:
        """Stop an active run and give back the KV cache; the engine cannot be used afterwards."""
        if self._closed:
            return
        if self.active_run is not None:
            self.active_run.stop()
            self.active_run.wait()
        self._closed = True
        self.runner.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.scheduler.queues.states)} unfinished requests"
        state += ", KV cache given back" if self._timeline.is_parked and not self._closed else ""
        return f"Engine({self.model.name!r}, {self.num_blocks} blocks of {self.config.block_size}, step {self.scheduler.step}, {state})"

    # -- who may step ----------------------------------------------------------------------------------------------

    def _owned(self) -> AbstractContextManager[bool]:
        """The lock under which the engine steps; refuses a closed engine and any thread but the active run's."""
        self.check_open()
        self._check_free()
        return self._lock

    def check_open(self) -> None:
        """Raise :class:`EngineClosedError` if it was closed."""
        if self._closed:
            raise EngineClosedError("this engine was closed: make a new one")

    def _check_free(self) -> None:
        run = self._mailbox.owner
        if run is not None and not run.is_current_thread:
            raise EngineBusyError(f"{run.name} is running on this engine: wait for it (run.wait()) or stop it (run.stop())")

    def between_steps(self, command: Callable[[], Answer]) -> Answer:
        """Run ``command`` now, or, while a run is active, on its thread between two steps; returns what it returns."""
        self.check_open()
        answer: Answer = self._mailbox.call(command, self._lock)
        return answer

    def take(self, run: Run) -> None:
        """Let ``run``, and nobody else, step this engine from now on; called by it."""
        self.check_open()
        self._check_free()
        with self._lock:
            self._check_free()
            self._mailbox.owner = run

    def apply_commands(self) -> None:
        """Apply the commands that arrived during the last step; called by the active run."""
        self._mailbox.apply()

    def release(self) -> None:
        """The active run is over, or paused; called by it."""
        self._mailbox.release()

    def hold_clock(self) -> None:
        """Let no time pass until the next step: a person looks at a paused run, and that is no latency of anybody's."""
        self._timeline.clock.hold()
