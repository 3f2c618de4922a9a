"""The scheduler: who runs in a step, with how many tokens, and who must make room.

``plan`` takes the decisions of vLLM 0.32.0's v1 scheduler in its order: running requests first, in batch order,
preempting when the pool is exhausted; then, if nobody was preempted, the waiting ones until one does not fit.  Every
place where a request is not run, in full or at all, writes a :class:`~workbench.events.Decision`.  ``commit`` takes the
tokens that came back, ends what has ended, and returns the step's record.

It knows nothing of tensors, text or clocks: time is handed in, text is somebody else's (:class:`TextSink`).
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Literal, Protocol

from workbench.admission import StepDraft, admit_waiting
from workbench.batching import BatchView, make_batcher
from workbench.config import EngineConfig
from workbench.errors import IntegrityError, RequestError
from workbench.events import (
    Arrival,
    Budget,
    Decision,
    Finished,
    Reason,
    Sampled,
    SpecRound,
    StepRecord,
    StepTiming,
    Verdict,
)
from workbench.kv import KvCache
from workbench.plan import Kind, PlanRow, StepOutput, StepPlan
from workbench.queue import WaitingQueue
from workbench.request import Request
from workbench.state import RequestState, Status

FinishReason = Literal["stop", "length", "abort"]


class TextSink(Protocol):
    """Turns tokens into text while they come, and knows the stop strings."""

    def push(self, request_id: str, token_id: int) -> bool:
        """Take one more output token; ``True`` when it completed a stop string."""
        ...

    def take(self, request_id: str, *, finished: bool) -> str:
        """Text that became final since the last call."""
        ...

    def stop_reason(self, request_id: str) -> str | None:
        """The stop string that ended the output."""
        ...


class Scheduler:
    """Queues, block tables and the rules between them, for one engine.

    ``max_model_len`` is the longest prompt plus output; it must fit the pool, so that a request alone can always finish.
    """

    def __init__(self, config: EngineConfig, *, num_blocks: int, max_model_len: int) -> None:
        self.config = config
        self.max_model_len = max_model_len
        self.kv = KvCache(num_blocks, config.block_size, enable_prefix_caching=config.enable_prefix_caching)
        self.batcher = make_batcher(config)
        self.states: dict[str, RequestState] = {}  # unfinished, in order of arrival
        self.pending: list[RequestState] = []
        self.waiting = WaitingQueue(config.policy)
        self.running: list[RequestState] = []
        self.held: list[RequestState] = []
        self.step = 0
        self._num_added = 0
        self._aborted: list[Finished] = []
        self._draft: StepDraft | None = None

    # -- requests come and go --------------------------------------------------------------------------------------

    def add(self, request: Request, *, now_s: float = 0.0) -> RequestState:
        """Take a request in; refused at once if it could never run.

        Raises :class:`RequestError` for an empty prompt, a duplicate id, or a prompt that leaves no room for output.
        """
        self._refuse_impossible(request)
        state = RequestState(request, self._num_added, self.max_model_len)
        self._num_added += 1
        self.states[request.id] = state
        state.arrival_s = now_s if request.arrival_s is None else request.arrival_s
        self.pending.append(state)
        return state

    def abort(self, request_id: str) -> bool:
        """End a request now, wherever it is; ``False`` if it is not (or no longer) known."""
        state = self.states.get(request_id)
        if state is None:
            return False
        if state.status is Status.PENDING:
            self.pending.remove(state)
        elif state.status is Status.RUNNING:
            self.running.remove(state)
        else:
            self.waiting.remove(state)
        self._aborted.append(self._finish(state, "abort"))
        return True

    @property
    def has_unfinished(self) -> bool:
        return bool(self.states)

    @property
    def num_unfinished(self) -> int:
        return len(self.states)

    # -- plan ------------------------------------------------------------------------------------------------------

    def plan(self, now_s: float = 0.0) -> StepPlan:
        """Decide the next step; ``now_s`` is the engine's clock."""
        if self._draft is not None:
            raise IntegrityError("plan was called twice without a commit between")
        draft = self._draft = StepDraft(self.step, now_s, perf_counter(), self.config)
        self._release_batch()
        self._take_arrivals(draft)
        self._plan_running(draft)
        self._plan_waiting(draft)
        self._explain_pending(draft)
        draft.close(self)
        return StepPlan(self.step, self.config.block_size, tuple(draft.rows))

    def _plan_running(self, draft: StepDraft) -> None:
        """Give every running request its next tokens, in batch order, as long as the budget lasts."""
        threshold = self.config.long_prefill_token_threshold
        alone = len(self.running) + len(self.waiting) <= 1
        index = 0
        while index < len(self.running):
            state = self.running[index]
            wanted = len(state.token_ids) + len(state.draft_token_ids) - state.num_computed_tokens
            if draft.tokens_left <= 0:
                draft.defer(state, Reason.TOKEN_BUDGET, wanted, 0, draft.token_limit)
                index += 1
                continue
            tokens, cut = wanted, Reason.FULL
            if 0 < threshold < tokens and not alone:
                tokens, cut = threshold, Reason.LONG_PREFILL_THRESHOLD
            if tokens > draft.tokens_left:
                tokens, cut = draft.tokens_left, Reason.TOKEN_BUDGET
            room = self.max_model_len - 1 - state.num_computed_tokens
            if tokens > room:
                tokens, cut = room, Reason.MAX_MODEL_LEN
            if tokens <= 0:
                draft.defer(state, Reason.MAX_MODEL_LEN, wanted, 0, self.max_model_len)
            elif self._make_room(draft, state, state.num_computed_tokens + tokens):
                index = self.running.index(state) if draft.shifted else index
                self._schedule(draft, state, tokens, cut, wanted)
            else:
                return  # it was preempted itself, and was the last in line
            index += 1

    def _make_room(self, draft: StepDraft, state: RequestState, num_tokens: int) -> bool:
        """Cover ``num_tokens`` with blocks, preempting others if need be; ``False`` if ``state`` itself had to go.

        The victim is the last admitted (fcfs) or the worst ``(priority, arrival)`` (priority), as in vLLM.
        """
        draft.shifted = False
        while not self.kv.allocate(state, num_tokens):
            if self.config.policy == "priority":
                victim = max(self.running, key=lambda other: other.key)
            else:
                victim = self.running[-1]
            needed, free = self.kv.shortfall(state, num_tokens), self.kv.pool.num_free
            self._preempt(draft, victim)
            draft.preempt(victim, state, needed, free)
            if victim is state:
                self._explain_unreached(draft)
                return False
            draft.shifted = True
        return True

    def _preempt(self, draft: StepDraft, victim: RequestState) -> None:
        """Take a running request's blocks; it will be recomputed (content that stays findable is hit again)."""
        self.running.remove(victim)
        self.kv.free(victim)
        victim.status = Status.PREEMPTED
        victim.num_computed_tokens = 0
        victim.draft_token_ids = ()
        victim.num_preemptions += 1
        self.waiting.put_back(victim)

    def _explain_unreached(self, draft: StepDraft) -> None:
        """The running requests behind one that preempted itself do not run either."""
        for state in self.running:
            if state.id not in draft.decisions:
                draft.defer(state, Reason.PREEMPTION_IN_STEP, 0, 0, 0, blocker=draft.preempted[-1])

    def _plan_waiting(self, draft: StepDraft) -> None:
        if not self.waiting:
            return
        if draft.preempted:
            draft.defer_all(self.waiting, Reason.PREEMPTION_IN_STEP, len(draft.preempted), 0, blocker=draft.preempted[-1])
            return
        in_batch = tuple(state.id for state in (*self.running, *self.held)) if self.batcher.holds_finished else ()
        hold = self.batcher.hold(BatchView(self.step, self.waiting, in_batch, bool(self.pending)))
        if hold is not None:
            for state in self.waiting:
                draft.defer(state, hold.reason, hold.needed, hold.available, hold.limit, blocker=hold.blocker)
            return
        admit_waiting(self, draft)

    def _schedule(self, draft: StepDraft, state: RequestState, tokens: int, cut: Reason, wanted: int, cached: int = 0) -> None:
        """Put ``tokens`` of a request into the step; its computed count moves on before the step runs."""
        start = state.num_computed_tokens
        end = start + tokens
        known = len(state.token_ids)
        drafts = state.draft_token_ids[: end - known] if end > known else ()
        kind: Kind = "verify" if drafts else "decode" if start >= state.num_prompt_tokens and known - start == 1 else "prefill"
        row = PlanRow(state.request, kind, start, end, state.token_ids, state.block_ids, end >= known, drafts)
        state.draft_token_ids = ()
        state.num_computed_tokens = end
        self.kv.register(state, end if end < known else known)
        draft.take(state, row, cut, wanted, cached)

    def _explain_pending(self, draft: StepDraft) -> None:
        for state in self.pending:
            due = state.request.arrival_step
            draft.defer(state, Reason.NOT_ARRIVED, 0 if due is None else due, self.step, 0)

    # -- commit ----------------------------------------------------------------------------------------------------

    def commit(self, plan: StepPlan, output: StepOutput, texts: TextSink | None = None) -> StepRecord:
        """Take the step's tokens in and return what happened.

        Rejected drafts are taken back from the computed count; tokens are appended one by one, each followed by the stop
        rules; drafts for a request still inside its prompt are dropped.
        """
        draft = self._draft
        if draft is None or draft.step != plan.step or len(output.token_ids) != len(plan.rows):
            raise IntegrityError(f"commit of step {plan.step} does not belong to the plan that is open")
        began = perf_counter()
        done: list[RequestState] = []
        proposals = output.proposed or [[]] * len(plan.rows)
        for position, (row, tokens) in enumerate(zip(plan.rows, output.token_ids, strict=True)):
            state = self.states.get(row.request.id)
            if state is None or not tokens:  # aborted while the step ran, or a prefill chunk
                continue
            if row.draft_token_ids:
                state.num_computed_tokens -= len(row.draft_token_ids) + 1 - len(tokens)
                draft.spec.append(_round(state.id, row.draft_token_ids, tokens))
            logprobs = output.logprobs[position] if output.logprobs else ()
            finished = self._append(draft, state, tokens, logprobs, texts)
            if finished is not None:
                done.append(state)
                draft.finished.append(finished)
            else:
                state.draft_token_ids = tuple(proposals[position])
        if done:
            self.running = [state for state in self.running if state.status is Status.RUNNING]
        self._draft = None
        self.step += 1
        return self._record(draft, output, began)

    def _append(
        self, draft: StepDraft, state: RequestState, tokens: Sequence[int], logprobs: Sequence[object], texts: TextSink | None
    ) -> Finished | None:
        """Append a step's tokens until one ends the request."""
        kept = 0
        finished: Finished | None = None
        for token in tokens:
            state.token_ids.append(token)
            kept += 1
            rule = stop_rule(state, token)
            stopped_by_token = rule is not None and rule[0] == "stop"
            if texts is not None and not (stopped_by_token and not state.request.sampling.include_stop_str_in_output):
                if texts.push(state.id, token) and not stopped_by_token:
                    rule = ("stop", texts.stop_reason(state.id))
            if rule is not None:
                finished = self._finish(state, *rule)
                break
        text = texts.take(state.id, finished=finished is not None) if texts is not None else ""
        draft.sampled.append(Sampled(state.id, tuple(tokens[:kept]), text, tuple(logprobs[:kept])))  # type: ignore[arg-type]
        return finished

    def _finish(self, state: RequestState, reason: FinishReason, stop_reason: int | str | None = None) -> Finished:
        del self.states[state.id]
        if self.batcher.holds_finished and reason != "abort":
            state.status = Status.HELD
            self.held.append(state)
        else:
            state.status = Status.FINISHED
            self.kv.free(state)
        return Finished(state.id, reason, stop_reason)

    def _release_batch(self) -> None:
        """Give back what a static or dynamic batch held, once its last request is done."""
        if self.held and not self.running:
            for state in self.held:
                state.status = Status.FINISHED
                self.kv.free(state)
            self.held.clear()

    def _record(self, draft: StepDraft, output: StepOutput, began: float) -> StepRecord:
        usage = self.kv.pool.usage
        commit_ms = (perf_counter() - began) * 1e3
        return StepRecord(
            step=draft.step,
            start_s=draft.now_s,
            timing=StepTiming(draft.plan_ms, output.prepare_ms, output.forward_ms, output.sample_ms, commit_ms),
            tokens=Budget(draft.token_limit, draft.token_limit - draft.tokens_left),
            seqs=Budget(self.config.max_num_seqs, len(draft.running)),
            kv=draft.usage,
            kv_after=usage,
            scheduled=tuple(draft.scheduled),
            decisions=tuple(draft.decisions.values()),
            block_events=self.kv.pool.take_events(),
            sampled=tuple(draft.sampled),
            spec=tuple(draft.spec),
            arrived=tuple(draft.arrived),
            admitted=tuple(draft.admitted),
            preempted=tuple(draft.preempted),
            resumed=tuple(draft.resumed),
            finished=tuple(draft.aborted + draft.finished),
            running=draft.running,
            waiting=draft.waiting,
            held=draft.held,
        )

    # -- arrivals --------------------------------------------------------------------------------------------------

    def _take_arrivals(self, draft: StepDraft) -> None:
        draft.aborted, self._aborted = self._aborted, []
        if not self.pending:
            return
        still: list[RequestState] = []
        for state in self.pending:
            request = state.request
            due_step = request.arrival_step is None or request.arrival_step <= self.step
            if not due_step or (request.arrival_s is not None and request.arrival_s > draft.now_s):
                still.append(state)
                continue
            state.status = Status.WAITING
            state.arrival_step = self.step
            self.waiting.arrive(state)
            draft.arrived.append(Arrival(state.id, state.arrival_s if request.arrival_step is None else draft.now_s))
        self.pending = still

    def _refuse_impossible(self, request: Request) -> None:
        length, limit = request.num_prompt_tokens, self.max_model_len
        if not length:
            raise RequestError(f"request {request.id!r} has an empty prompt: give it at least one token")
        if request.id in self.states or any(state.id == request.id for state in self.held):
            raise RequestError(f"a request with id {request.id!r} is already in the engine: choose another id")
        if length < limit:
            return
        pool, size = self.kv.pool.num_blocks, self.config.block_size
        if length >= pool * size:
            raise RequestError(
                f"request {request.id!r}: a prompt of {length} tokens and one token of output need {self.kv.blocks_for(length + 1)} blocks of {size}; "
                f"the pool has {pool}: raise num_blocks or shorten the prompt"
            )
        raise RequestError(
            f"request {request.id!r}: a prompt of {length} tokens leaves no room for output, max_model_len is {limit}: shorten the prompt or raise max_model_len"
        )

    def check_integrity(self) -> None:
        """Raise :class:`IntegrityError` unless queues, tables and pool agree; run after each step with ``debug=True``."""
        holders = [*self.running, *self.held]
        self.kv.pool.check_integrity(state.block_ids for state in holders)
        listed = [*self.running, *self.waiting, *self.pending]
        if sorted(state.id for state in listed) != sorted(self.states):
            raise IntegrityError(f"{len(listed)} requests in the queues, {len(self.states)} unfinished")
        if len(self.running) > self.config.max_num_seqs:
            raise IntegrityError(f"{len(self.running)} requests run, max_num_seqs is {self.config.max_num_seqs}")
        for state in self.running:
            if state.num_computed_tokens > len(state.block_ids) * self.config.block_size:
                raise IntegrityError(f"{state!r} has more computed tokens than slots")


def stop_rule(state: RequestState, token: int) -> tuple[FinishReason, int | str | None] | None:
    """Whether the token just appended ends the request, in vLLM's order: ``min_tokens``, end of sequence, stop ids, length."""
    sampling, request = state.request.sampling, state.request
    if state.num_output_tokens >= sampling.min_tokens:
        if not sampling.ignore_eos and token in request.eos_token_ids:
            return "stop", None
        if token in sampling.stop_token_ids:
            return "stop", token
    return ("length", None) if len(state.token_ids) >= state.limit else None


def _round(request_id: str, drafts: Sequence[int], tokens: Sequence[int]) -> SpecRound:
    accepted = len(tokens) - 1
    return SpecRound(request_id, len(drafts), accepted, len(tokens), accepted if accepted < len(drafts) else None)
