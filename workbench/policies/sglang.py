"""``LpmPlanner``: SGLang's scheduler with ``--schedule-policy lpm`` (longest prefix match).

A step computes prompts only, or decodes only: as long as any prompt can be added, prompts go first.  Who waits is asked in the order of how
much of it the radix tree knows, most first; a request whose beginning a sibling ahead of it is about to compute goes last.  With more than
128 waiting, order is left as it is; without a prefix cache it is first come, first served by priority (a smaller number first).

A prompt is added when the tokens that all may still write fit the pool *as far as one can guess*: those that run are counted with
``new_token_ratio`` of what they may still write.  The guess starts at 0.7, falls with every step of decoding, and rises when it was
too low: then some that decode are *retracted*, fewest outputs first, and their blocks reused.

Source: SGLang, ``managers/schedule_policy.py``, ``managers/scheduler.py``, ``managers/schedule_batch.py``, with its defaults.
``max_num_batched_tokens`` is its ``chunked_prefill_size`` (``max_prefill_tokens`` when ``enable_chunked_prefill`` is off),
``max_num_seqs`` its ``max_running_requests``, ``block_size`` its ``page_size``.  One rule is ours: a request that has the engine to
itself is let in when its tokens fit, whatever the guess says, since nothing could change it.  Left out: mixed chunks, the
ignore-eos estimate of a disabled cache, priority preemption, dfs-weight, lof, random and routing keys, hierarchical cache, LoRA,
sliding windows, overlap, drafts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.config import EngineConfig
from workbench.draft import StepDraft
from workbench.events import Reason
from workbench.kv import KvCache
from workbench.plan import StepPlan
from workbench.policies import moves
from workbench.policies.base import Planner
from workbench.policies.prefill_adder import PrefillAdder, Stop
from workbench.queues import Queues, WaitingQueue
from workbench.radix import RadixTree
from workbench.state import RequestState, Status

LONG_QUEUE = 128
"""More waiting requests than this are not matched and sorted."""
SIBLING_TOKENS = 32
"""A request known for at most this many tokens waits for a sibling that shares at least as many."""

INITIAL_RATIO = 0.7
LEAST_RATIO = INITIAL_RATIO * 0.14
RATIO_DECAY = (INITIAL_RATIO - LEAST_RATIO) / 600
RETRACT_STEPS = 20
"""After a retraction the guess grants everyone that is left so many tokens more."""


class LpmPlanner:
    """Fills a :class:`StepDraft` from the queues; remembers its guess, and whether the batch was found full."""

    def __init__(self, config: EngineConfig, queues: Queues, kv: KvCache) -> None:
        self.config = config
        self.queues = queues
        self.kv = kv
        self.new_token_ratio = INITIAL_RATIO
        self.batch_is_full = False  # nobody is let in until one has left
        self._batch_size = 0  # after the last step

    def fill(self, draft: StepDraft) -> None:
        """Decide about every unfinished request."""
        if len(self.queues.running) < self._batch_size or not self.queues.running:
            self.batch_is_full = False
        self._prefill(draft)
        if draft.rows:
            for state in self.queues.running:
                draft.defer(state, Reason.PREFILL_FIRST, 1, len(draft.rows), None, blocker=draft.rows[0].request.id)
        else:
            self._decode(draft)
        if not draft.rows:
            self.new_token_ratio = INITIAL_RATIO
        moves.explain_pending(draft, self.queues)
        self._batch_size = len(self.queues.running)
        draft.close(self.queues, self.kv.pool.usage)

    def put_back(self, state: RequestState) -> None:
        """Take a running request's blocks and let it wait again."""
        moves.put_back(self.queues, self.kv, state)

    def settle(self, plan: StepPlan) -> None:
        """The prompts that were computed, in full or in part, enter the tree."""
        for row in plan.rows:
            state = self.queues.states.get(row.request.id)
            if row.kind == "prefill" and state is not None:
                self.kv.register(state, row.end)

    def keep(self, state: RequestState) -> None:
        """What a request has written enters the tree as it ends."""
        self.kv.register(state, state.num_computed_tokens)

    def carry(self, previous: Planner) -> None:
        """Take over the guess; a batch that was full under other settings may not be so any more."""
        if isinstance(previous, LpmPlanner):
            self.new_token_ratio = previous.new_token_ratio
            self._batch_size = previous._batch_size
            self.batch_is_full = previous.batch_is_full and previous.config == self.config

    # -- prompts -------------------------------------------------------------------------------------------------------

    def _prefill(self, draft: StepDraft) -> None:
        """Add what can be added of the prompt that was begun, then of those that wait, until one stops the rest."""
        begun = next((state for state in self.queues.running if not _decodes(state)), None)
        if begun is None and (self.batch_is_full or not self.queues.waiting):
            return self._explain_full(draft)
        siblings = order_waiting(self.queues.waiting, self.kv)
        decoding = [state for state in self.queues.running if state is not begun]
        adder = PrefillAdder(draft, self.kv, self.config, decoding, self.new_token_ratio)
        if begun is not None and not adder.go_on(begun):  # the pool became smaller meanwhile
            self._retract(draft, begun, self.kv.shortfall(begun, len(begun.token_ids)))
            return draft.defer_all(self.queues.waiting, Reason.PREEMPTION_IN_STEP, 1, 0, blocker=begun.id)
        while self.queues.waiting:
            head = self.queues.waiting.head
            if not self.kv.fits_ever(len(head.token_ids)):  # the pool became smaller since it was added
                draft.reject(self.queues.waiting.pop(), self.kv.blocks_for(len(head.token_ids)), self.kv.pool.num_blocks)
            elif len(self.queues.running) >= self.config.max_num_seqs:
                self.batch_is_full = True
                return draft.defer_all(self.queues.waiting, Reason.MAX_NUM_SEQS, 0, self.config.max_num_seqs)
            else:
                stop = adder.add(self.queues, head)
                if stop is not None:
                    self.batch_is_full = self.batch_is_full or stop.full
                    return self._explain_stop(draft, stop, siblings)
        return None

    def _explain_full(self, draft: StepDraft) -> None:
        if len(self.queues.running) >= self.config.max_num_seqs:
            draft.defer_all(self.queues.waiting, Reason.MAX_NUM_SEQS, 0, self.config.max_num_seqs)
        else:
            draft.defer_all(self.queues.waiting, Reason.UNTIL_ONE_FINISHES, 0, len(self.queues.running))

    def _explain_stop(self, draft: StepDraft, stop: Stop, siblings: Mapping[str, str]) -> None:
        """The head did not get in, or was the last that did; those behind it wait behind it, or behind their sibling."""
        for state in self.queues.waiting:
            if state is self.queues.waiting.head and stop.refused:
                draft.defer(state, stop.reason, stop.needed, stop.available, stop.limit)
            elif state.id in siblings:
                draft.defer(state, Reason.SIBLING_PREFIX, len(state.token_ids), 0, None, blocker=siblings[state.id])
            elif stop.refused:
                draft.defer(state, Reason.HEAD_OF_LINE, 0, 0, 0, blocker=self.queues.waiting.head.id)
            else:
                draft.defer(state, stop.reason, len(state.token_ids), stop.available, stop.limit)

    # -- decoding ------------------------------------------------------------------------------------------------------

    def _decode(self, draft: StepDraft) -> None:
        """One token for everybody; if they do not fit, some are retracted first."""
        if not self.queues.running:
            return
        if self._next_blocks(self.queues.running) > self.kv.pool.num_free:
            self._retract_some(draft)
        else:
            self.new_token_ratio = max(self.new_token_ratio - RATIO_DECAY, LEAST_RATIO)
        for state in self.queues.running:
            self.kv.allocate(state, state.num_computed_tokens + 1)
            moves.run(draft, state, 1, Reason.FULL, 1)

    def _retract_some(self, draft: StepDraft) -> None:
        """At least one goes, until the next token of the rest fits: fewest outputs first, then the longest prompt, then the last that came.

        One that is alone and does not fit can never go on: the pool became smaller.
        """
        left = sorted(self.queues.running, key=lambda state: (state.num_output_tokens, -state.num_prompt_tokens), reverse=True)
        needed = self._next_blocks(left)
        first = True
        while len(left) > 1 and (first or self._next_blocks(left) > self.kv.pool.num_free):
            self._retract(draft, left.pop(), needed)
            first = False
        if self._next_blocks(left) > self.kv.pool.num_free:
            alone = left.pop()
            self.queues.running.remove(alone)
            draft.reject(alone, len(alone.block_ids) + 1, self.kv.pool.num_blocks)
        outputs = sum(state.num_output_tokens for state in left)
        longest = sum(state.limit - state.num_prompt_tokens for state in left)
        self.new_token_ratio = min(1.0, (outputs + RETRACT_STEPS * len(left)) / (longest + 1))
        self.batch_is_full = False

    def _retract(self, draft: StepDraft, state: RequestState, needed: int) -> None:
        """Take a request's blocks; what it has written is computed again later.  It waits behind everybody, until they are sorted."""
        draft.preempt(state, None, needed, self.kv.pool.num_free, Reason.RETRACTED)
        self.put_back(state)
        state.num_preemptions += 1
        self.queues.waiting.remove(state)
        self.queues.waiting.arrive(state)

    def _next_blocks(self, states: Sequence[RequestState]) -> int:
        return sum(self.kv.shortfall(state, state.num_computed_tokens + 1) for state in states)


def order_waiting(waiting: WaitingQueue, kv: KvCache) -> dict[str, str]:
    """Put who waits in SGLang's order; returns who was put last because of which sibling."""
    if not kv.enable_prefix_caching:
        waiting.sort(lambda state: state.key[0])
        return {}
    if len(waiting) > LONG_QUEUE:
        return {}
    known = {state.id: len(kv.find_prefix(state)) * kv.block_size for state in waiting}
    siblings = _siblings(waiting, known)
    waiting.sort(lambda state: (state.id in siblings, 0 if state.id in siblings else -known[state.id]))
    return siblings


def _siblings(waiting: WaitingQueue, known: Mapping[str, int]) -> dict[str, str]:
    """Requests of which little is known, but which begin like one ahead of them, and who that is (in-batch prefix caching)."""
    tree, names = RadixTree(), list[str]()
    siblings: dict[str, str] = {}
    for state in waiting:
        if known[state.id] > SIBLING_TOKENS:
            continue
        beginning = state.token_ids[:SIBLING_TOKENS]  # what comes after it changes nothing
        owners, _ = tree.match(beginning)
        if len(owners) >= SIBLING_TOKENS:
            siblings[state.id] = names[owners[-1]]
        else:
            tree.insert(beginning, [len(names)] * len(beginning))
            names.append(state.id)
    return siblings


def _decodes(state: RequestState) -> bool:
    """Whether a running request's prompt is behind it."""
    computed = state.num_computed_tokens
    return state.status is Status.RUNNING and computed >= state.num_prompt_tokens and len(state.token_ids) - computed == 1
