"""The scheduler: queues and block tables of one engine, and the two verbs that move them.

``plan`` decides the next step (the rules are in :mod:`workbench.planner`); ``commit`` takes the tokens that came back, ends
what has ended, and returns the step's record.  Between the two, the plan is executed by somebody else; if that fails,
``abandon`` puts everything back so that nothing is lost.

It knows nothing of tensors, text or clocks: time is handed in, text is somebody else's (:class:`TextSink`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from time import perf_counter
from typing import Literal, Protocol

from workbench.batching import make_batcher
from workbench.config import EngineConfig
from workbench.draft import StepDraft
from workbench.errors import IntegrityError, RequestError
from workbench.events import (
    Arrival,
    Budget,
    Command,
    Decision,
    Finished,
    PromptScores,
    Proposed,
    Sampled,
    SpecRound,
    StepRecord,
    StepTiming,
    TokenLogprobs,
)
from workbench.plan import PlanRow, StepOutput, StepPlan
from workbench.policies import make_kv_cache, make_planner
from workbench.queues import Queues
from workbench.request import Request
from workbench.speculative.adaptive import AdaptiveDrafts
from workbench.state import RequestState, Status

FinishReason = Literal["stop", "length", "abort"]


class TextSink(Protocol):
    """Turns tokens into text while they come, and knows the stop strings."""

    def push(self, state: RequestState, token_id: int) -> bool:
        """Take one more output token, the last of ``state``'s; ``True`` when it completed a stop string."""
        ...

    def take(self, request_id: str, *, finished: bool) -> str:
        """Text that became final since the last call."""
        ...

    def stop_reason(self, request_id: str) -> str | None:
        """The stop string that ended the output."""
        ...


class Scheduler:
    """Decides step by step for one engine; see the module's text for the cycle.

    ``max_model_len`` is the longest prompt plus output; it must fit the pool, so that a request alone can always finish.
    """

    def __init__(self, config: EngineConfig, *, num_blocks: int, max_model_len: int) -> None:
        self.config = config
        self.max_model_len = max_model_len
        self.queues = Queues(config.policy)
        self.kv = make_kv_cache(config, num_blocks)
        self.batcher = make_batcher(config)
        self.planner = make_planner(config, self.queues, self.kv, self.batcher, max_model_len)
        self.adaptive = AdaptiveDrafts(config.max_drafts) if config.adapts_drafts else None
        self.step = 0
        self._num_added = 0
        self._arrived: list[Arrival] = []  # noted when they happen, recorded with the next step that commits
        self._aborted: list[Finished] = []
        self._commands: list[Command] = []
        self._draft: StepDraft | None = None

    # -- requests come and go --------------------------------------------------------------------------------------

    def add(self, request: Request, *, now_s: float = 0.0) -> RequestState:
        """Take a request in; refused at once if it could never run.

        Raises :class:`RequestError` for an empty prompt, a duplicate id, or a prompt that leaves no room for output.
        """
        self.check(request)
        state = RequestState(request, self._num_added, self.max_model_len)
        self._num_added += 1
        state.arrival_s = now_s if request.arrival_s is None else request.arrival_s
        self.queues.states[request.id] = state
        self.queues.pending.append(state)
        self.note(Command("add", request.id, state.arrival_s))
        return state

    def check(self, request: Request) -> None:
        """Raise :class:`RequestError` if ``request`` cannot be added."""
        if request.id in self.queues.states or any(state.id == request.id for state in self.queues.held):
            raise RequestError(f"a request with id {request.id!r} is already in the engine: choose another id")
        self.check_length(request)

    def check_length(self, request: Request) -> None:
        """Raise :class:`RequestError` if the prompt is empty, or too long ever to run here."""
        length, pool, size = request.num_prompt_tokens, self.kv.pool.num_blocks, self.config.block_size
        if not length:
            raise RequestError(f"request {request.id!r} has an empty prompt: give it at least one token")
        if length >= pool * size:
            raise RequestError(
                f"request {request.id!r}: a prompt of {length} tokens and one token of output need {self.kv.blocks_for(length + 1)} blocks "
                f"of {size}; the pool has {pool}: raise num_blocks or shorten the prompt"
            )
        if length >= self.max_model_len:
            raise RequestError(
                f"request {request.id!r}: a prompt of {length} tokens leaves no room for output, max_model_len is {self.max_model_len}: "
                "shorten the prompt or raise max_model_len"
            )

    def abort(self, request_id: str) -> bool:
        """End a request now, wherever it is; ``False`` if it is not (or no longer) known."""
        state = self.queues.states.get(request_id)
        if state is None:
            return False
        if state.status is Status.PENDING:
            self.queues.pending.remove(state)
        elif state.status is Status.RUNNING:
            self.queues.running.remove(state)
        else:
            self.queues.waiting.remove(state)
        self._aborted.append(self._finish(state, "abort"))
        self.note(Command("abort", request_id))
        return True

    def note(self, command: Command) -> None:
        """Have ``command`` recorded with the next step that commits."""
        self._commands.append(command)

    def copy(self) -> Scheduler:
        """An independent scheduler in the same state; between two steps only."""
        if self._draft is not None:
            raise IntegrityError("a scheduler can be copied between two steps only")
        twin = copy.copy(self)
        twin.queues, twin.kv = self.queues.copy(), self.kv.copy()
        twin.batcher = make_batcher(self.config)
        twin.planner = make_planner(self.config, twin.queues, twin.kv, twin.batcher, self.max_model_len)
        twin.planner.carry(self.planner)
        twin.adaptive = self.adaptive.copy() if self.adaptive is not None else None
        twin._arrived, twin._aborted, twin._commands = self._arrived.copy(), self._aborted.copy(), self._commands.copy()
        return twin

    @property
    def has_unfinished(self) -> bool:
        """Whether any request still has tokens to come."""
        return bool(self.queues.states)

    # -- plan ------------------------------------------------------------------------------------------------------

    def plan(self, now_s: float = 0.0) -> StepPlan:
        """Decide the next step; ``now_s`` is the engine's clock."""
        if self._draft is not None:
            raise IntegrityError("plan was called twice without commit or abandon between")
        draft = self._draft = StepDraft(self.step, now_s, perf_counter(), self.config)
        self._release_batch()
        self._take_arrivals(now_s)
        self.planner.fill(draft)
        for state, why in draft.rejected:
            self._aborted.append(self._finish(state, "abort", why))
        if self.adaptive is not None:
            draft.choice = self.adaptive.choose(sum(row.samples for row in draft.rows), self.step)
        num_drafts = self.config.max_drafts if draft.choice is None else draft.choice.num_drafts
        return StepPlan(self.step, self.config.block_size, tuple(draft.rows), num_drafts, self.max_model_len)

    def open_decisions(self) -> dict[str, Decision]:
        """The decisions of the plan that was neither committed nor taken back yet, by request."""
        return dict(self._draft.decisions) if self._draft is not None else {}

    def _take_arrivals(self, now_s: float) -> None:
        """Move requests whose time has come to the waiting queue."""
        if not self.queues.pending:
            return
        still: list[RequestState] = []
        for state in self.queues.pending:
            due_step, due_s = state.request.arrival_step, state.request.arrival_s
            if (due_step is not None and due_step > self.step) or (due_s is not None and due_s > now_s):
                still.append(state)
                continue
            if due_step is not None:
                state.arrival_s = now_s
            state.status = Status.WAITING
            state.arrival_step = self.step
            self.queues.waiting.arrive(state)
            self._arrived.append(Arrival(state.id, state.arrival_s))
        self.queues.pending = still

    def _release_batch(self) -> None:
        """Give back what a static or dynamic batch held, once its last request is done."""
        if self.queues.held and not self.queues.running:
            for state in self.queues.held:
                state.status = Status.FINISHED
                self.kv.free(state)
            self.queues.held.clear()

    # -- commit ----------------------------------------------------------------------------------------------------

    def commit(self, plan: StepPlan, output: StepOutput, texts: TextSink | None = None) -> StepRecord:
        """Take the step's tokens in and return what happened.

        Rejected drafts are taken back from the computed count; tokens are appended one by one, each followed by the stop
        rules; drafts for a request still inside its prompt are dropped.
        """
        draft = self._open_draft(plan)
        if len(output.token_ids) != len(plan.rows):
            raise IntegrityError(f"the plan has {len(plan.rows)} rows, the output {len(output.token_ids)}")
        began = perf_counter()
        self.planner.settle(plan)
        for position, row in enumerate(plan.rows):
            if output.prompt_logprobs and output.prompt_logprobs[position]:
                draft.prompt_scores.append(PromptScores(row.request.id, row.start + 1, output.prompt_logprobs[position]))
            state = self.queues.states.get(row.request.id)
            if state is not None and output.token_ids[position]:  # else aborted while the step ran, or a prefill chunk
                self._commit_row(draft, state, row, output, position, texts)
        self._share_draft_time(draft, output.draft_ms)
        if draft.finished:
            self.queues.running[:] = [state for state in self.queues.running if state.status is Status.RUNNING]
        self._draft = None
        self.step += 1
        record = self._record(draft, output, began)
        if self.adaptive is not None:
            self.adaptive.observe(record)
        return record

    def abandon(self, plan: StepPlan) -> None:
        """Take a plan back whose execution failed or was interrupted.

        Its requests wait again, in batch order and with the output they had; what the step would have computed is
        forgotten.  The step's number is used again.
        """
        draft = self._open_draft(plan)
        self.note(Command("abandoned", at_s=draft.now_s))
        for event in list(self.kv.pool.events):  # they stay, for the next record: a reader can still follow every block
            if event.kind == "cached":  # promised by the plan, never computed
                self.kv.pool.retract(event.block_id, event.request_id)
        for row in reversed(plan.rows):
            state = self.queues.states.get(row.request.id)
            if state is not None:
                self.planner.put_back(state)
        self._draft = None

    def _open_draft(self, plan: StepPlan) -> StepDraft:
        if self._draft is None or self._draft.step != plan.step:
            raise IntegrityError(f"step {plan.step} is not the plan that is open")
        return self._draft

    def _commit_row(
        self, draft: StepDraft, state: RequestState, row: PlanRow, output: StepOutput, position: int, texts: TextSink | None
    ) -> None:
        tokens = output.token_ids[position]
        if row.draft_token_ids:
            verify_ms = (output.prepare_ms + output.forward_ms + output.sample_ms) * row.num_tokens / draft.num_tokens
            draft.spec.append(_spec_round(row, tokens, state.draft_ms, verify_ms))
        state.draft_ms = 0.0
        known = len(state.token_ids)
        logprobs = output.logprobs[position] if output.logprobs else ()
        finished = self._append(draft, state, tokens, logprobs, texts)
        if row.draft_token_ids:  # rejected, or past the end of the request
            state.num_computed_tokens -= len(row.draft_token_ids) + 1 - (len(state.token_ids) - known)
        if finished is not None:
            draft.finished.append(finished)
        elif output.proposed and output.proposed[position]:
            state.draft_token_ids = tuple(output.proposed[position])
            draft.proposed.append(Proposed(state.id, state.draft_token_ids))

    def _share_draft_time(self, draft: StepDraft, draft_ms: float) -> None:
        """Every draft took as long as any other."""
        total = sum(len(proposed.token_ids) for proposed in draft.proposed)
        for proposed in draft.proposed:
            self.queues.states[proposed.request_id].draft_ms = draft_ms * len(proposed.token_ids) / total

    def _append(
        self, draft: StepDraft, state: RequestState, tokens: Sequence[int], logprobs: tuple[TokenLogprobs, ...], texts: TextSink | None
    ) -> Finished | None:
        """Append a step's tokens until one ends the request."""
        kept, finished = 0, None
        for token in tokens:
            state.token_ids.append(token)
            kept += 1
            rule = self._rule_after(state, token, texts)
            if rule is not None:
                finished = self._finish(state, *rule)
                break
        text = texts.take(state.id, finished=finished is not None) if texts is not None else ""
        draft.sampled.append(Sampled(state.id, tuple(tokens[:kept]), text, logprobs[:kept]))
        return finished

    def _rule_after(self, state: RequestState, token: int, texts: TextSink | None) -> tuple[FinishReason, int | str | None] | None:
        """The rule that ends the request after ``token``.  A stop string counts before the length, a token that stops is no text."""
        rule = stop_rule(state, token)
        if texts is None:
            return rule
        by_token = rule is not None and rule[0] == "stop"
        if by_token and not state.request.sampling.include_stop_str_in_output:
            return rule
        completed = texts.push(state, token)
        return ("stop", texts.stop_reason(state.id)) if completed and not by_token else rule

    def _finish(self, state: RequestState, reason: FinishReason, stop_reason: int | str | None = None) -> Finished:
        del self.queues.states[state.id]
        if self.batcher.holds_finished and reason != "abort":
            state.status = Status.HELD
            self.queues.held.append(state)
        else:
            state.status = Status.FINISHED
            if reason != "abort":
                self.planner.keep(state)
            self.kv.free(state)
        return Finished(state.id, reason, stop_reason)

    def _record(self, draft: StepDraft, output: StepOutput, began: float) -> StepRecord:
        arrived, self._arrived = tuple(self._arrived), []
        aborted, self._aborted = tuple(self._aborted), []
        commands, self._commands = tuple(self._commands), []
        pool = self.kv.pool
        return StepRecord(
            step=draft.step,
            start_s=draft.now_s,
            tokens=Budget(draft.token_limit, draft.token_limit - draft.tokens_left),
            seqs=Budget(self.config.max_num_seqs, len(draft.running)),
            kv=draft.usage,
            kv_after=pool.usage,
            scheduled=tuple(draft.scheduled),
            decisions=tuple(draft.decisions.values()),
            block_events=pool.take_events(),
            sampled=tuple(draft.sampled),
            spec=tuple(draft.spec),
            arrived=arrived,
            admitted=tuple(draft.admitted),
            preempted=tuple(draft.preempted),
            resumed=tuple(draft.resumed),
            finished=aborted + tuple(draft.finished),
            running=draft.running,
            waiting=draft.waiting,
            held=draft.held,
            prompt_scores=tuple(draft.prompt_scores),
            commands=commands,
            proposed=tuple(draft.proposed),
            draft_choice=draft.choice,
            draft_problem=" ".join(output.draft_problem.split()),  # whatever was raised, it is told in one line
            timing=StepTiming(
                draft.plan_ms,
                output.prepare_ms,
                output.forward_ms,
                output.sample_ms,
                (perf_counter() - began) * 1e3,
                output.draft_ms,
            ),
        )

    def check_integrity(self) -> None:
        """Raise :class:`IntegrityError` unless queues, tables and pool agree; run after each step with ``debug=True``."""
        queues = self.queues
        queues.check_integrity()
        self.kv.check_integrity((*queues.running, *queues.held))
        for state in queues.running:
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


def _spec_round(row: PlanRow, tokens: Sequence[int], draft_ms: float, verify_ms: float) -> SpecRound:
    proposed, accepted = len(row.draft_token_ids), len(tokens) - 1
    rejected_at = accepted if accepted < proposed else None
    return SpecRound(row.request.id, proposed, accepted, len(tokens), rejected_at, draft_ms, verify_ms)
