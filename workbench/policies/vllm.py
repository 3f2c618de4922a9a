"""``VllmPlanner``: vLLM's rules for one step, in vLLM's order.

Running requests first, in batch order, preempting when the pool is exhausted; then, if nobody was preempted, the waiting
ones until one does not fit.  Source of every rule: vLLM 0.32.0, ``vllm/v1/core/sched/scheduler.py``, as its recorded
decisions show them (``tests/data/vllm-0.32.0``).
"""

from __future__ import annotations

from workbench.batching import Batcher, BatchView
from workbench.config import EngineConfig
from workbench.draft import StepDraft
from workbench.events import Reason
from workbench.kv import KvCache
from workbench.plan import Kind, PlanRow, StepPlan
from workbench.policies.base import Planner
from workbench.queues import Queues
from workbench.state import RequestState, Status


class VllmPlanner:
    """Fills a :class:`StepDraft` from the queues; moves requests between them as it decides."""

    def __init__(self, config: EngineConfig, queues: Queues, kv: KvCache, batcher: Batcher, max_model_len: int) -> None:
        self.config = config
        self.queues = queues
        self.kv = kv
        self.batcher = batcher
        self.max_model_len = max_model_len

    def fill(self, draft: StepDraft) -> None:
        """Decide about every unfinished request."""
        self._plan_running(draft)
        self._plan_waiting(draft)
        self._explain_pending(draft)
        draft.close(self.queues, self.kv.pool.usage)

    def settle(self, plan: StepPlan) -> None:
        """Nothing: a block can be found as soon as it is planned to be full."""

    def keep(self, state: RequestState) -> None:
        """Nothing: every full block can be found already."""

    def carry(self, previous: Planner) -> None:
        """Nothing: every step is decided afresh."""

    def _plan_running(self, draft: StepDraft) -> None:
        """Give every running request its next tokens, in batch order, as long as the budget lasts."""
        threshold = self.config.long_prefill_token_threshold
        alone = len(self.queues.running) + len(self.queues.waiting) <= 1
        index = 0
        while index < len(self.queues.running):
            state = self.queues.running[index]
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
            elif self._make_room(draft, state, min(state.num_computed_tokens + tokens + self.config.lookahead_tokens, self.max_model_len)):
                index = self.queues.running.index(state) if draft.shifted else index
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
                victim = max(self.queues.running, key=lambda other: other.key)
            else:
                victim = self.queues.running[-1]
            needed, free = self.kv.shortfall(state, num_tokens), self.kv.pool.num_free
            self.put_back(victim)
            victim.num_preemptions += 1
            draft.preempt(victim, state, needed, free)
            if victim is state:
                self._explain_unreached(draft)
                return False
            draft.shifted = True
        return True

    def put_back(self, state: RequestState) -> None:
        """Take a running request's blocks; it waits again and will be recomputed (what stays findable is hit again)."""
        self.queues.running.remove(state)
        self.kv.free(state)
        state.status = Status.PREEMPTED
        state.num_computed_tokens = 0
        state.draft_token_ids = ()
        self.queues.waiting.put_back(state)

    def _explain_unreached(self, draft: StepDraft) -> None:
        """The running requests behind one that preempted itself do not run either."""
        for state in self.queues.running:
            if state.id not in draft.decisions:
                draft.defer(state, Reason.PREEMPTION_IN_STEP, 0, 0, 0, blocker=draft.preempted[-1])

    def _plan_waiting(self, draft: StepDraft) -> None:
        if not self.queues.waiting:
            return
        if draft.preempted:
            draft.defer_all(self.queues.waiting, Reason.PREEMPTION_IN_STEP, len(draft.preempted), 0, blocker=draft.preempted[-1])
            return
        in_batch = tuple(state.id for state in (*self.queues.running, *self.queues.held)) if self.batcher.holds_finished else ()
        hold = self.batcher.hold(BatchView(draft.step, self.queues.waiting, in_batch, bool(self.queues.pending)))
        if hold is not None:
            for state in self.queues.waiting:
                draft.defer(state, hold.reason, hold.needed, hold.available, hold.limit, blocker=hold.blocker)
            return
        self._admit_waiting(draft)

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
        for state in self.queues.pending:
            draft.defer(state, Reason.NOT_ARRIVED, state.request.arrival_step, draft.step, None)

    def _admit_waiting(self, draft: StepDraft) -> None:
        """Admit waiting requests in queue order until one does not fit; those behind it wait behind it.

        The rules are vLLM 0.32.0's: no skipping ahead; a request is admitted only if, with ``reserve_full_prompt``, all of
        its known tokens fit the free blocks; waiting requests never preempt.
        """
        config, waiting = self.config, self.queues.waiting
        while waiting:
            head = waiting.head
            if not self.kv.fits_ever(len(head.token_ids)):  # the pool became smaller since it was added
                draft.reject(waiting.pop(), self.kv.blocks_for(len(head.token_ids)), self.kv.pool.num_blocks)
                continue
            if draft.tokens_left <= 0:
                return draft.defer_all(waiting, Reason.TOKEN_BUDGET, 0, draft.token_limit)
            if len(self.queues.running) + len(self.queues.held) >= config.max_num_seqs:
                return draft.defer_all(waiting, Reason.MAX_NUM_SEQS, 0, config.max_num_seqs)
            if not self._admit(draft, head):
                return draft.defer_behind(head, waiting)
        return None

    def _admit(self, draft: StepDraft, state: RequestState) -> bool:
        """Let the head of the queue in; ``False``, with its decision written, when it does not fit."""
        config, kv = self.config, self.kv
        found = kv.find_prefix(state)
        cached = len(found) * config.block_size
        wanted = len(state.token_ids) - cached
        tokens, cut = wanted, Reason.FULL
        threshold = config.long_prefill_token_threshold
        if 0 < threshold < tokens and len(self.queues.running) + len(self.queues.waiting) > 1:
            tokens, cut = threshold, Reason.LONG_PREFILL_THRESHOLD
        if not config.enable_chunked_prefill and tokens > draft.tokens_left:
            if tokens > draft.token_limit and not self.queues.running:  # nobody is left who could fill the prefix cache for it
                draft.reject(self.queues.waiting.pop(), tokens, draft.token_limit, "tokens in one step")
                return True
            draft.defer(state, Reason.CHUNKED_PREFILL_OFF, tokens, draft.tokens_left, draft.token_limit)
            return False
        if tokens > draft.tokens_left:
            tokens, cut = draft.tokens_left, Reason.TOKEN_BUDGET
        padding = self._speculative_padding(draft, state, tokens, cached)
        if tokens + padding > draft.tokens_left:
            draft.defer(state, Reason.SPECULATIVE_PADDING, tokens + padding, draft.tokens_left, draft.token_limit)
            return False
        slots = min(cached + tokens + padding + config.lookahead_tokens, self.max_model_len)
        covered = max(slots, len(state.token_ids)) if config.reserve_full_prompt else slots
        if not kv.shortfall(state, covered, found) <= kv.pool.num_free or not kv.allocate(state, slots, found):
            holder = max(self.queues.running, key=lambda other: len(other.block_ids), default=None)
            needed = kv.shortfall(state, covered, found)
            draft.defer(state, Reason.NO_FREE_BLOCKS, needed, kv.pool.num_free, kv.pool.num_blocks, blocker=holder.id if holder else None)
            return False
        self.queues.waiting.pop()
        self.queues.running.append(state)
        draft.admitted.append(state.id)
        if state.status is Status.PREEMPTED:
            draft.resumed.append(state.id)
        state.status = Status.RUNNING
        state.num_computed_tokens = cached
        state.draft_token_ids = (-1,) * padding
        self._schedule(draft, state, tokens + padding, cut, wanted + padding, cached)
        return True

    def _speculative_padding(self, draft: StepDraft, state: RequestState, tokens: int, cached: int) -> int:
        """Placeholder drafts for a newcomer that needs one token, so that the whole batch verifies alike (vLLM 0.32.0)."""
        width = self.config.padding_drafts
        if not width or tokens != 1 or draft.prefilling or not (draft.rows or cached):
            return 0
        return width if cached + tokens + width <= self.max_model_len else 0
