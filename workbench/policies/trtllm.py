"""``TrtPlanner``: TensorRT-LLM's capacity policies.

A step is decided in two stages, as there.  *Capacity*: who may hold blocks.

``guaranteed_no_evict``  who runs has reserved the blocks that it may need until it ends; others join while theirs fit as well, and the
                         first that does not fit bars those behind it.  Nobody ever loses blocks.
``max_utilization``      only the blocks of the next step count; when they do not suffice, the last started request in the list is paused.
``static_batch``         like ``guaranteed_no_evict``, but prompts are computed only while nobody generates.

Then *the batch*: who generates takes a token each from ``max_num_batched_tokens``, prompts share what is left, first come first served; a
prompt that is cut is cut to whole blocks (``long_prefill_token_threshold`` is TensorRT-LLM's limit of a context's length).  A prompt's
blocks are all taken with its first chunk, and can be found by others when all of it was computed.  A request that waits while
another, chosen before it, is about to compute the first block that it lacks is passed over in this step.

Requests stand in one list by priority, then arrival; there a higher number is more urgent, here, as everywhere in the workbench, a
smaller one.  Source: TensorRT-LLM, ``batch_manager/capacityScheduler.cpp`` and ``microBatchScheduler.cpp``.  Two rules are ours: in the
policies that reserve, a prompt that was begun comes before those that were not, whatever their priority, because its place is taken; and
a request for which somebody was paused is not passed over because of its own first block.  Left out: LoRA and PEFT pages, disaggregated
and encoder requests, cross attention, beams, attention windows, draft tokens, EQUAL_PROGRESS chunks, partial reuse of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.config import EngineConfig
from workbench.draft import StepDraft
from workbench.events import Reason
from workbench.kv import KvCache
from workbench.plan import StepPlan
from workbench.policies import moves
from workbench.policies.base import Planner
from workbench.prefix import extend_hashes
from workbench.queues import Queues
from workbench.state import RequestState, Status


class TrtPlanner:
    """Fills a :class:`StepDraft` from the queues by one of three capacity policies."""

    def __init__(self, config: EngineConfig, queues: Queues, kv: KvCache) -> None:
        self.config = config
        self.queues = queues
        self.kv = kv

    def fill(self, draft: StepDraft) -> None:
        """Decide about every unfinished request."""
        self.queues.waiting.sort(_place)
        self._reject_impossible(draft)
        listed = sorted([*self.queues.running, *self.queues.waiting], key=_place)
        fitting = self._utilise(draft, listed) if self.config.policy == "max_utilization" else self._reserve(draft, listed)
        self._batch(draft, fitting)
        moves.explain_pending(draft, self.queues)
        draft.close(self.queues, self.kv.pool.usage)

    def put_back(self, state: RequestState) -> None:
        """Take a running request's blocks; its output becomes part of its prompt."""
        moves.put_back(self.queues, self.kv, state)

    def settle(self, plan: StepPlan) -> None:
        """From now on the blocks of prompts that are complete, and of outputs, can be found."""
        for row in plan.rows:
            state = self.queues.states.get(row.request.id)
            if row.samples and state is not None:
                self.kv.register(state, row.end)

    def keep(self, state: RequestState) -> None:
        """Nothing: every full block can be found already."""

    def carry(self, previous: Planner) -> None:
        """Nothing: every step is decided afresh."""

    # -- capacity ------------------------------------------------------------------------------------------------------

    def _reserve(self, draft: StepDraft, listed: Sequence[RequestState]) -> list[RequestState]:
        """GUARANTEED_NO_EVICT and STATIC_BATCH: everything to its end, or not at all."""
        static = self.config.policy == "static_batch"
        fitting = [state for state in listed if _generates(state)][: self.config.max_num_seqs]
        free = self.kv.pool.num_free - sum(self._to_completion(state) for state in fitting)
        pending = sorted((state for state in listed if not _generates(state)), key=lambda state: state.status is not Status.RUNNING)
        if static and fitting:
            for state in pending:
                draft.defer(state, Reason.BATCH_RUNNING, 0, len(fitting), self.config.max_num_seqs, blocker=fitting[0].id)
            return fitting
        producers = {} if static else self._producers(pending)
        for place, state in enumerate(pending):
            if not static and self._passed_over(draft, state, producers):
                continue
            needed = self._to_completion(state)
            if len(fitting) >= self.config.max_num_seqs:
                draft.defer_all(self._undecided(draft, pending[place:]), Reason.MAX_NUM_SEQS, 0, self.config.max_num_seqs)
                break
            if needed > free:
                holder = max(fitting, key=lambda other: self.kv.blocks_for(other.limit), default=None)
                name = holder.id if holder is not None else None
                draft.defer(state, Reason.RESERVED_TO_COMPLETION, needed, max(free, 0), self.kv.pool.num_blocks, blocker=name)
                self._bar(draft, pending[place + 1 :], state)
                break
            free -= needed
            fitting.append(state)
        self._unserved(draft, listed, fitting)
        return fitting

    def _utilise(self, draft: StepDraft, listed: Sequence[RequestState]) -> list[RequestState]:
        """MAX_UTILIZATION: the blocks of the next step; the last started makes room for whom they do not suffice."""
        fitting: list[RequestState] = []
        promised, place, end = 0, 0, len(listed)
        producers = self._producers(listed)
        while place < end:
            state = listed[place]
            if self._passed_over(draft, state, producers):
                place += 1
                continue
            needed, free = self._next_step(state), self.kv.pool.num_free - promised
            if len(fitting) < self.config.max_num_seqs and needed <= free:
                promised += needed
                fitting.append(state)
                place += 1
                continue
            started = [at for at in range(place, end) if listed[at].status is Status.RUNNING]
            if not started:
                self._stop(draft, listed[place:end], fitting, needed, free)
                break
            end = started[-1]
            if len(fitting) < self.config.max_num_seqs:
                self._pause(draft, listed[end], state, needed, free)
            else:
                self._pause(draft, listed[end], fitting[-1], 1, 0, Reason.PLACE_TAKEN)
        self._unserved(draft, listed, fitting)
        return fitting

    def _stop(self, draft: StepDraft, rest: Sequence[RequestState], fitting: Sequence[RequestState], needed: int, free: int) -> None:
        """The first of ``rest`` is not let in, and nobody behind it."""
        if len(fitting) >= self.config.max_num_seqs:
            draft.defer_all(rest, Reason.MAX_NUM_SEQS, 0, self.config.max_num_seqs)
            return
        holder = moves.who_holds_most(self.queues)
        draft.defer(rest[0], Reason.NO_FREE_BLOCKS, needed, max(free, 0), self.kv.pool.num_blocks, blocker=holder)
        self._bar(draft, rest[1:], rest[0])

    def _pause(
        self, draft: StepDraft, victim: RequestState, other: RequestState, needed: int, free: int, reason: Reason = Reason.PREEMPTED_FOR
    ) -> None:
        self.put_back(victim)
        victim.num_preemptions += 1
        draft.preempt(victim, other, needed, max(free, 0), reason)

    def _unserved(self, draft: StepDraft, listed: Sequence[RequestState], fitting: Sequence[RequestState]) -> None:
        """Whoever the list's end was cut off with: somebody was paused, or the places are taken."""
        chosen = {state.id for state in fitting}
        rest = [state for state in self._undecided(draft, listed) if state.id not in chosen]
        if draft.preempted:
            draft.defer_all(rest, Reason.PREEMPTION_IN_STEP, len(draft.preempted), 0, blocker=draft.preempted[-1])
        else:
            draft.defer_all(rest, Reason.MAX_NUM_SEQS, 0, self.config.max_num_seqs)

    def _to_completion(self, state: RequestState) -> int:
        """Free blocks that a request still takes until it has all the tokens that it may have."""
        return self.kv.shortfall(state, state.limit, () if state.block_ids else self.kv.find_prefix(state))

    def _next_step(self, state: RequestState) -> int:
        """Free blocks that a request takes in its next step: its next token's, or those of its whole prompt."""
        return self.kv.shortfall(state, len(state.token_ids), () if state.block_ids else self.kv.find_prefix(state))

    # -- prefixes that are on their way --------------------------------------------------------------------------------

    def _producers(self, listed: Sequence[RequestState]) -> dict[bytes, str]:
        """The first unknown block of every prompt that is being computed, and whose it is."""
        producers: dict[bytes, str] = {}
        for state in listed:
            digest = self._first_unknown(state) if state.status is Status.RUNNING and not _generates(state) else None
            if digest is not None:
                producers.setdefault(digest, state.id)
        return producers

    def _passed_over(self, draft: StepDraft, state: RequestState, producers: dict[bytes, str]) -> bool:
        """Whether a request that has not begun should wait for a block that somebody else is about to compute."""
        if state.status is Status.RUNNING or state.request.sampling.prompt_logprobs is not None:
            return False
        digest = self._first_unknown(state)
        producer = producers.setdefault(digest, state.id) if digest is not None else state.id
        if producer == state.id:
            return False
        draft.defer(state, Reason.SIBLING_PREFIX, len(state.token_ids), 0, None, blocker=producer)
        return True

    def _first_unknown(self, state: RequestState) -> bytes | None:
        if not self.kv.enable_prefix_caching:
            return None
        extend_hashes(state.block_hashes, state.token_ids, self.kv.block_size)
        wanted = state.block_hashes[: (len(state.token_ids) - 1) // self.kv.block_size]
        return next((digest for digest in wanted if self.kv.pool.index.find(digest) is None), None)

    # -- the batch -----------------------------------------------------------------------------------------------------

    def _batch(self, draft: StepDraft, fitting: Sequence[RequestState]) -> None:
        """Share the token budget: one for each that generates, the rest for prompts in order."""
        prompts: list[RequestState] = []
        for place, state in enumerate(fitting):
            if state.id in draft.decisions:  # paused for one before it
                continue
            if _generates(state):
                if not self._generate(draft, state):
                    break
            elif self.config.enable_chunked_prefill:
                prompts.append(state)
            elif not self._whole(draft, state):
                self._bar(draft, fitting[place + 1 :], state)
                break
        for state in prompts:
            self._chunk(draft, state)
        for state in self._undecided(draft, fitting):
            draft.defer(state, Reason.TOKEN_BUDGET, len(state.token_ids) - state.num_computed_tokens, draft.tokens_left, draft.token_limit)

    def _generate(self, draft: StepDraft, state: RequestState) -> bool:
        """Give one token to a request that generates; ``False`` when none is left."""
        if draft.tokens_left <= 0:
            return False
        if self._make_room(draft, state):
            moves.run(draft, state, 1, Reason.FULL, 1)
        return True

    def _make_room(self, draft: StepDraft, state: RequestState) -> bool:
        """Cover the next token; pausing is needed only in a run that was made from another policy's, or whose pool became smaller."""
        while not self.kv.allocate(state, len(state.token_ids)):
            victim = max(self.queues.running, key=_place)
            self._pause(draft, victim, state, self._next_step(state), self.kv.pool.num_free)
            if victim is state:
                return False
        return True

    def _whole(self, draft: StepDraft, state: RequestState) -> bool:
        """Compute a whole prompt; ``False``, with its decision written, when it does not fit the step."""
        wanted = self._left_to_compute(state)
        if wanted <= draft.tokens_left:
            self._start(draft, state, wanted, Reason.FULL)
            return True
        if wanted > draft.token_limit and not self.queues.running:  # nobody is left who could fill the prefix cache for it
            self.queues.waiting.remove(state)
            draft.reject(state, wanted, draft.token_limit, "tokens in one step")
            return True
        draft.defer(state, Reason.CHUNKED_PREFILL_OFF, wanted, draft.tokens_left, draft.token_limit)
        return False

    def _chunk(self, draft: StepDraft, state: RequestState) -> None:
        """Compute as much of a prompt as the step has room for, cut to whole blocks."""
        if state.id in draft.decisions:  # paused for the token of another
            return
        wanted = self._left_to_compute(state)
        tokens, cut = wanted, Reason.FULL
        if 0 < self.config.long_prefill_token_threshold < tokens:
            tokens, cut = self.config.long_prefill_token_threshold, Reason.LONG_PREFILL_THRESHOLD
        if tokens > draft.tokens_left:
            tokens, cut = draft.tokens_left, Reason.TOKEN_BUDGET
        if tokens < wanted:
            tokens -= tokens % self.config.block_size
        if tokens:
            self._start(draft, state, tokens, cut)

    def _left_to_compute(self, state: RequestState) -> int:
        """Tokens of a prompt that were neither computed nor found."""
        if state.status is Status.RUNNING:
            return len(state.token_ids) - state.num_computed_tokens
        return len(state.token_ids) - len(self.kv.find_prefix(state)) * self.config.block_size

    def _start(self, draft: StepDraft, state: RequestState, tokens: int, cut: Reason) -> None:
        """Run a chunk; the first one takes the blocks of the whole prompt."""
        known = len(state.token_ids)
        found = self.kv.find_prefix(state) if state.status is not Status.RUNNING else []
        cached = len(found) * self.config.block_size
        if not self.kv.allocate(state, known, found):
            needed, holder = self.kv.shortfall(state, known, found), moves.who_holds_most(self.queues)
            draft.defer(state, Reason.NO_FREE_BLOCKS, needed, self.kv.pool.num_free, self.kv.pool.num_blocks, blocker=holder)
            return
        if state.status is not Status.RUNNING:
            moves.admit(draft, self.queues, state, cached)
        moves.run(draft, state, tokens, cut, known - state.num_computed_tokens, cached)

    # -- small ---------------------------------------------------------------------------------------------------------

    def _reject_impossible(self, draft: StepDraft) -> None:
        """The pool became smaller since they were added: they can never be given what they may need."""
        for state in list(self.queues.waiting):
            most = len(state.token_ids) if self.config.policy == "max_utilization" else state.limit
            if not self.kv.fits_ever(most):
                self.queues.waiting.remove(state)
                draft.reject(state, self.kv.blocks_for(most), self.kv.pool.num_blocks)

    def _bar(self, draft: StepDraft, states: Sequence[RequestState], head: RequestState) -> None:
        for state in states:
            draft.defer(state, Reason.HEAD_OF_LINE, 0, 0, 0, blocker=head.id)

    def _undecided(self, draft: StepDraft, states: Sequence[RequestState]) -> list[RequestState]:
        return [state for state in states if state.id not in draft.decisions]


def _place(state: RequestState) -> tuple[int, int, int]:
    """A request's place in the list: by priority, then by arrival."""
    return (state.key[0], state.arrival_step, state.key[1])


def _generates(state: RequestState) -> bool:
    """Whether a running request's prompt is behind it."""
    computed = state.num_computed_tokens
    return state.status is Status.RUNNING and computed >= state.num_prompt_tokens and len(state.token_ids) - computed == 1
