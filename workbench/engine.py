"""``Engine``: a model, a scheduler and a runner, stepped.

One step is ``plan → execute → commit``; everything else here gets requests in, keeps two threads from stepping at once, and
hands out :class:`~workbench.run.Run` handles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from workbench._knobs import unknown_name
from workbench.config import EngineConfig
from workbench.errors import ConfigError, EngineBusyError, EngineClosedError, RequestError
from workbench.events import ModelFacts, StepRecord
from workbench.intake import Intake, Prompt
from workbench.interrupts import held_back
from workbench.limits import memory_limit_bytes
from workbench.mailbox import Mailbox
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.run import Chunk, Run, stream_chunks
from workbench.runners.base import Runner
from workbench.scheduler import Scheduler
from workbench.sizing import longest_request, pool_blocks
from workbench.texts import Texts
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
        self.config = _config(model, config, knobs)
        self.runner, self.tokenizer, num_blocks = _runner(model, self.config, tokenizer)
        self.model: ModelFacts = self.runner.facts
        if self.config.num_speculative_tokens and not getattr(self.runner, "proposes_drafts", False):
            width = self.config.num_speculative_tokens
            raise ConfigError(f"num_speculative_tokens is {width}, but this runner proposes no drafts: leave it at 0")
        limit = longest_request(self.config, self.model, num_blocks)
        self.scheduler = Scheduler(self.config, num_blocks=num_blocks, max_model_len=limit)
        self.trace = Trace(self.config, self.model)
        self.last_run: Run | None = None
        self._intake = Intake(self.tokenizer, vocab_size=self.model.vocab_size, seed=self.config.seed)
        self._texts = Texts(self.tokenizer) if self.tokenizer is not None else None
        self._mailbox: Mailbox[Run] = Mailbox()
        self._lock = threading.RLock()
        self._num_requests = 0
        self._closed = False
        self._clock_zero = perf_counter()

    # -- stepping --------------------------------------------------------------------------------------------------

    def step(self) -> StepRecord:
        """Plan, execute and commit one step; returns its record.

        If execution fails or is interrupted, the plan is taken back: its requests wait again and nothing is lost.
        """
        with self._owned(), held_back() as interrupts:
            plan = self.scheduler.plan(self.clock_s)
            try:
                with interrupts.allowed():
                    output = self.runner.execute(plan) if plan.rows else StepOutput([])
            except BaseException:
                self.scheduler.abandon(plan)
                raise
            record = self.scheduler.commit(plan, output, self._texts)
            self._keep(record)
            return record

    @property
    def clock_s(self) -> float:
        """Seconds since the engine was made: the clock of arrivals and records."""
        return perf_counter() - self._clock_zero

    @property
    def has_unfinished(self) -> bool:
        """Whether any request still has tokens to come."""
        return self.scheduler.has_unfinished

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
        due_s = [state.request.arrival_s for state in queues.pending if state.request.arrival_s is not None]
        return max(0.0, min(due_s) - self.clock_s) if len(due_s) == len(queues.pending) else None

    def _keep(self, record: StepRecord) -> None:
        self.trace.append(record)
        if self._texts is not None:
            for finished in record.finished:
                self._texts.close(finished.request_id)
        if self.config.debug:
            self.scheduler.check_integrity()

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
        return self._between_steps(lambda: self._admit([own], _sampling(sampling, params), chat)[0])

    def abort(self, request_id: str) -> bool:
        """End a request between two steps; ``False`` if it is not (or no longer) in the engine."""
        return self._between_steps(lambda: self.scheduler.abort(request_id))

    def _admit(self, prompts: Sequence[Prompt | Mapping[str, Any]], sampling: SamplingParams, chat: bool | None) -> list[Request]:
        """Check all, then add all: one bad prompt leaves the engine as it was."""
        requests: list[Request] = []
        for entry in prompts:
            requests += self._intake.requests(entry, f"r{self._num_requests + len(requests)}", sampling, chat)
        names = [request.id for request in requests]
        for request in requests:
            self.scheduler.check(request)
            if names.count(request.id) > 1 or request.id in self.trace.requests:
                raise RequestError(f"a request with id {request.id!r} is already in the engine: choose another id")
        now_s = self.clock_s
        for request in requests:
            self.scheduler.add(request, now_s=now_s)
            self.trace.add_request(request)
            if self._texts is not None:
                self._texts.open(request)
        self._num_requests += len(requests)
        return requests

    # -- runs ------------------------------------------------------------------------------------------------------

    def run(
        self,
        prompts: Prompt | Sequence[Prompt | Mapping[str, Any]],
        *,
        background: bool = False,
        on_step: Callable[[StepRecord], None] | None = None,
        chat: bool | None = None,
        sampling: SamplingParams | None = None,
        **params: Any,
    ) -> Run:
        """Run prompts to their end on the run's own thread; waits unless ``background``.

        ``prompts`` is one prompt, or a list of prompts: text, token ids, chat messages, or mappings with their own ``arrival_step``,
        ``priority`` and sampling parameters.  ``on_step`` is called on the run's thread after each step and must be quick.  An interrupt
        stops the run cleanly and is raised again; the partial result is :attr:`last_run`.
        Raises :class:`EngineBusyError` while another run is active.
        """
        self._check_open()
        self._check_free()  # before the lock, which an active run holds while it steps
        with self._lock:
            self._check_free()
            requests = self._admit(_listed(prompts), _sampling(sampling, params), chat)
            run = self.last_run = Run(self, requests, on_step)
            self._mailbox.owner = run
        run.start()
        if not background:
            run.wait_or_stop()
        return run

    def stream(self, prompt: Prompt | Mapping[str, Any], *, chat: bool | None = None, **params: Any) -> Iterator[Chunk]:
        """Yield the output of one prompt piece by piece; leaving the loop early stops the run."""
        return stream_chunks(lambda on_step: self.run([prompt], background=True, on_step=on_step, chat=chat, **params))

    @property
    def active_run(self) -> Run | None:
        """The run that owns the engine at the moment."""
        return self._mailbox.owner

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
        return f"Engine({self.model.name!r}, {self.num_blocks} blocks of {self.config.block_size}, step {self.scheduler.step}, {state})"

    # -- who may step ----------------------------------------------------------------------------------------------

    def _owned(self) -> AbstractContextManager[bool]:
        """The lock under which the engine steps; refuses a closed engine and any thread but the active run's."""
        self._check_open()
        self._check_free()
        return self._lock

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError("this engine was closed: make a new one")

    def _check_free(self) -> None:
        run = self._mailbox.owner
        if run is not None and not run.is_current_thread:
            raise EngineBusyError(f"{run.name} is running on this engine: wait for it (run.wait()) or stop it (run.stop())")

    def _between_steps(self, command: Callable[[], Answer]) -> Answer:
        """Run ``command`` now, or, while a run is active, on its thread between two steps; returns what it returns."""
        self._check_open()
        answer: Answer = self._mailbox.call(command, self._lock)
        return answer

    def apply_commands(self) -> None:
        """Apply the commands that arrived during the last step; called by the active run."""
        self._mailbox.apply()

    def release(self) -> None:
        """The active run is over; called by it."""
        self._mailbox.release()


def _config(model: object, config: EngineConfig | None, knobs: dict[str, Any]) -> EngineConfig:
    for name in knobs:
        if name not in EngineConfig.__struct_fields__:
            raise ConfigError(unknown_name("knob", name, EngineConfig.__struct_fields__))
    if isinstance(model, str | Path):
        knobs.setdefault("model", str(model)) if config is None else None
    elif hasattr(model, "facts"):
        knobs["model"] = model.facts.name
    return config.replace(**knobs) if config is not None else EngineConfig(**knobs)


def _runner(model: object, config: EngineConfig, tokenizer: Tokenizer | None) -> tuple[Runner, Tokenizer | None, int]:
    """The runner for a model, the tokenizer that goes with it, and the size of its pool."""
    memory = memory_limit_bytes()
    if isinstance(model, Runner):
        return model, tokenizer, getattr(model, "num_blocks", None) or pool_blocks(config, model.facts, memory_bytes=memory)
    from workbench.models import load_model
    from workbench.runners.torch_runner import TorchRunner

    if isinstance(model, str | Path):
        loaded = load_model(config.model, **config.loading)
    else:
        loaded = model  # type: ignore[assignment]
    num_blocks = pool_blocks(config, loaded.facts, memory_bytes=memory)
    runner = TorchRunner(loaded, num_blocks=num_blocks, block_size=config.block_size, num_threads=config.num_threads)
    return runner, tokenizer or loaded.tokenizer, num_blocks


def _sampling(sampling: SamplingParams | None, params: dict[str, Any]) -> SamplingParams:
    if sampling is None:
        return SamplingParams.of(**params)
    return sampling.replace(**params) if params else sampling


def _listed(prompts: Any) -> list[Any]:
    """One prompt or many, as a list: a text, a mapping, a list of ints and a list of messages are one prompt each."""
    if isinstance(prompts, str | Mapping):
        return [prompts]
    entries = list(prompts)
    if not entries:
        raise RequestError("there is no prompt to run: give at least one")
    token_ids = all(type(entry) is int for entry in entries)
    messages = all(isinstance(entry, Mapping) and "role" in entry for entry in entries)
    return [entries] if token_ids or messages else entries
