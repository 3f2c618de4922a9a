"""One step in the making: its budget, its rows, its decisions, and the admission of waiting requests.

:class:`StepDraft` lives for one step.  It carries the token budget and notes every request that was given tokens or
refused them, so that no branch of the scheduler stays silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING

from workbench.config import EngineConfig
from workbench.events import Arrival, Decision, Finished, KvUsage, Reason, Sampled, Scheduled, SpecRound, Verdict
from workbench.plan import PlanRow
from workbench.state import RequestState, Status

if TYPE_CHECKING:
    from workbench.scheduler import Scheduler


class StepDraft:
    """Everything about the step that is being planned, until it becomes a record."""

    def __init__(self, step: int, now_s: float, began: float, config: EngineConfig) -> None:
        self.step = step
        self.now_s = now_s
        self.token_limit = self.tokens_left = config.max_num_batched_tokens
        self.rows: list[PlanRow] = []
        self.scheduled: list[Scheduled] = []
        self.decisions: dict[str, Decision] = {}
        self.arrived: list[Arrival] = []
        self.admitted: list[str] = []
        self.preempted: list[str] = []
        self.resumed: list[str] = []
        self.aborted: list[Finished] = []
        self.finished: list[Finished] = []
        self.sampled: list[Sampled] = []
        self.spec: list[SpecRound] = []
        self.shifted = False  # whether a preemption moved positions in the running list
        self.prefilling = False  # whether anybody scheduled so far entered the step inside its prompt
        self.running: tuple[str, ...] = ()
        self.waiting: tuple[str, ...] = ()
        self.held: tuple[str, ...] = ()
        self.usage = KvUsage(0, 0, 0)
        self.plan_ms = 0.0
        self._began = began

    def take(self, state: RequestState, row: PlanRow, cut: Reason, wanted: int, cached: int) -> None:
        """A request runs, in full (``cut`` is ``FULL``) or cut short."""
        tokens = row.end - row.start
        if cut is Reason.FULL or tokens == wanted:
            decision = Decision(state.id, Verdict.SCHEDULED, Reason.FULL, tokens)
        else:
            limit = self.tokens_left if cut is Reason.TOKEN_BUDGET else tokens
            decision = Decision(state.id, Verdict.PARTIAL, cut, tokens, wanted, limit, self.token_limit if cut is Reason.TOKEN_BUDGET else tokens)
        self.tokens_left -= tokens
        self.prefilling = self.prefilling or row.start < state.num_prompt_tokens
        self.rows.append(row)
        self.scheduled.append(Scheduled(state.id, row.kind, row.start, row.end, cached, len(row.draft_token_ids)))
        self.decisions[state.id] = decision

    def defer(
        self, state: RequestState, reason: Reason, needed: int, available: int, limit: int, *, blocker: str | None = None
    ) -> None:
        """A request does not run in this step."""
        if state.id not in self.decisions:  # one that was preempted has its decision already
            self.decisions[state.id] = Decision(state.id, Verdict.DEFERRED, reason, 0, needed, available, limit, blocker)

    def defer_all(self, states: Iterable[RequestState], reason: Reason, available: int, limit: int, *, blocker: str | None = None) -> None:
        """Nobody in the queue is admitted, for a reason they share; ``needed`` is the place in the queue."""
        for place, state in enumerate(states, start=1):
            self.defer(state, reason, place, available, limit, blocker=blocker)

    def preempt(self, victim: RequestState, beneficiary: RequestState, needed: int, free: int) -> None:
        """A running request lost its blocks; what it was given in this step returns to the budget."""
        self.preempted.append(victim.id)
        for position, row in enumerate(self.rows):
            if row.request.id == victim.id:
                self.tokens_left += row.end - row.start
                del self.rows[position], self.scheduled[position]
                break
        self.decisions[victim.id] = Decision(
            victim.id, Verdict.PREEMPTED, Reason.PREEMPTED_FOR, 0, needed, free, None, beneficiary.id
        )

    def close(self, scheduler: Scheduler) -> None:
        """Planning is over: note the queues as they stand."""
        self.running = tuple([state.id for state in scheduler.running])
        self.waiting = tuple([state.id for state in scheduler.waiting])
        self.held = tuple([state.id for state in scheduler.held])
        self.usage = scheduler.kv.pool.usage
        self.plan_ms = (perf_counter() - self._began) * 1e3


def admit_waiting(scheduler: Scheduler, draft: StepDraft) -> None:
    """Admit waiting requests in queue order until one does not fit; those behind it wait behind it.

    The rules are vLLM 0.32.0's: no skipping ahead; a request is admitted only if, with ``reserve_full_prompt``, all of
    its known tokens fit the free blocks; waiting requests never preempt.
    """
    config, waiting = scheduler.config, scheduler.waiting
    while waiting:
        head = waiting.head
        if draft.tokens_left <= 0:
            return draft.defer_all(waiting, Reason.TOKEN_BUDGET, 0, draft.token_limit)
        if len(scheduler.running) + len(scheduler.held) >= config.max_num_seqs:
            return draft.defer_all(waiting, Reason.MAX_NUM_SEQS, 0, config.max_num_seqs)
        if not _admit(scheduler, draft, head):
            for state in waiting:
                draft.defer(state, Reason.HEAD_OF_LINE, 0, 0, 0, blocker=head.id)
            return None
    return None


def _admit(scheduler: Scheduler, draft: StepDraft, state: RequestState) -> bool:
    """Let the head of the queue in; ``False``, with its decision written, when it does not fit."""
    config, kv = scheduler.config, scheduler.kv
    found = kv.find_prefix(state)
    cached = len(found) * config.block_size
    wanted = len(state.token_ids) - cached
    tokens, cut = wanted, Reason.FULL
    threshold = config.long_prefill_token_threshold
    if 0 < threshold < tokens and len(scheduler.running) + len(scheduler.waiting) > 1:
        tokens, cut = threshold, Reason.LONG_PREFILL_THRESHOLD
    if not config.enable_chunked_prefill and tokens > draft.tokens_left:
        draft.defer(state, Reason.CHUNKED_PREFILL_OFF, tokens, draft.tokens_left, draft.token_limit)
        return False
    if tokens > draft.tokens_left:
        tokens, cut = draft.tokens_left, Reason.TOKEN_BUDGET
    padding = _speculative_padding(scheduler, draft, state, tokens, cached)
    if tokens + padding > draft.tokens_left:
        draft.defer(state, Reason.SPECULATIVE_PADDING, tokens + padding, draft.tokens_left, draft.token_limit)
        return False
    end = cached + tokens + padding
    covered = max(end, len(state.token_ids)) if config.reserve_full_prompt else end
    if not kv.shortfall(state, covered, found) <= kv.pool.num_free or not kv.allocate(state, end, found):
        holder = max(scheduler.running, key=lambda other: len(other.block_ids), default=None)
        needed = kv.shortfall(state, covered, found)
        draft.defer(state, Reason.NO_FREE_BLOCKS, needed, kv.pool.num_free, kv.pool.num_blocks, blocker=holder.id if holder else None)
        return False
    scheduler.waiting.pop()
    scheduler.running.append(state)
    draft.admitted.append(state.id)
    if state.status is Status.PREEMPTED:
        draft.resumed.append(state.id)
    state.status = Status.RUNNING
    state.num_computed_tokens = cached
    state.draft_token_ids = (-1,) * padding
    scheduler._schedule(draft, state, tokens + padding, cut, wanted + padding, cached)
    return True


def _speculative_padding(scheduler: Scheduler, draft: StepDraft, state: RequestState, tokens: int, cached: int) -> int:
    """Placeholder drafts for a newcomer that needs one token, so that the whole batch verifies alike (vLLM 0.32.0)."""
    width = scheduler.config.num_speculative_tokens
    if not width or tokens != 1 or draft.prefilling or not (draft.rows or cached):
        return 0
    return width if cached + tokens + width <= scheduler.max_model_len else 0
