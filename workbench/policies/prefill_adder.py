"""``PrefillAdder``: the budgets of one prefill step of SGLang, and who they let in.

It lives for one step.  Three budgets count down: the tokens that the pool may still have to hold (:attr:`PrefillAdder.memory`), and the
step's own, in whole blocks: of chunks, or of whole prompts when they are not cut.
Source: SGLang, ``managers/schedule_policy.py``, class of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from workbench.config import EngineConfig
from workbench.draft import StepDraft
from workbench.events import Reason
from workbench.kv import KvCache
from workbench.policies import moves
from workbench.queues import Queues
from workbench.state import RequestState

LONGEST_ESTIMATE = 4096
"""Nobody is expected to write more tokens than this (``CLIP_MAX_NEW_TOKENS``)."""


class Stop(msgspec.Struct, frozen=True):
    """Nobody else is added in this step; the numbers for the decisions.

    ``refused``: the request that was asked is not in.  ``full``: the pool was the limit, so nobody is asked again until one has left.
    """

    reason: Reason
    needed: int
    available: int
    limit: int
    refused: bool
    full: bool


class PrefillAdder:
    """Adds prompts to a step until a budget is used up."""

    def __init__(self, draft: StepDraft, kv: KvCache, config: EngineConfig, decoding: Sequence[RequestState], ratio: float) -> None:
        self.draft = draft
        self.kv = kv
        self.page_size = config.block_size
        self.chunked = config.enable_chunked_prefill
        self.step_tokens = config.max_num_batched_tokens  # left in this step, counted in whole blocks
        self.alone = not decoding  # whether nobody else is in the engine
        self._promised = sum(min(_may_write(state), LONGEST_ESTIMATE) * ratio for state in decoding)

    @property
    def memory(self) -> float:
        """Tokens that the pool has left when everybody has written what they are expected to."""
        return self.kv.pool.num_free * self.page_size - self._promised

    def go_on(self, state: RequestState) -> bool:
        """The next chunk of the prompt that was begun; ``False`` if not one block is left for it, after a change of the pool."""
        wanted = len(state.token_ids) - state.num_computed_tokens
        room = len(state.block_ids) * self.page_size + self.kv.pool.num_free * self.page_size - state.num_computed_tokens
        tokens = min(wanted, self.step_tokens, room)
        if tokens < wanted:
            tokens -= tokens % self.page_size
        if tokens <= 0 or not self.kv.allocate(state, state.num_computed_tokens + tokens):
            return False
        self.alone = False
        self._use(state, tokens, tokens == wanted)
        moves.run(self.draft, state, tokens, Reason.TOKEN_BUDGET, wanted)
        return True

    def add(self, queues: Queues, state: RequestState) -> Stop | None:
        """Let a waiting request in; says why not, or why nobody else can follow it."""
        found = self.kv.find_prefix(state)
        cached = len(found) * self.page_size
        wanted = len(state.token_ids) - cached
        tokens = self._cut(wanted)
        memory = self.memory - sum(self.kv.pool.refs(block_id) == 0 for block_id in found) * self.page_size
        expected = wanted + min(state.limit - len(state.token_ids), LONGEST_ESTIMATE) + self.page_size
        if expected >= memory and not self.alone:
            return self._no_memory(expected, memory, refused=True)
        if tokens <= 0:
            return self._no_room(queues, state, wanted)
        if not self.kv.allocate(state, cached + tokens, found):
            return self._no_memory(expected, memory, refused=True)
        self.alone = False
        moves.admit(self.draft, queues, state, cached)
        self._use(state, tokens, tokens == wanted)
        moves.run(self.draft, state, tokens, Reason.TOKEN_BUDGET, wanted, cached)
        if self.memory <= 0:
            return self._no_memory(0, self.memory, refused=False)
        if self.step_tokens <= 0:
            return Stop(Reason.TOKEN_BUDGET, 0, 0, self.draft.token_limit, refused=False, full=False)
        return None

    def _cut(self, wanted: int) -> int:
        """How much of a prompt this step takes: all, whole blocks of it, or nothing."""
        whole = self._pages(wanted)
        if not self.chunked:
            first = not self.draft.rows
            return wanted if wanted <= self.draft.tokens_left and (first or whole < self.step_tokens) else 0
        return wanted if whole <= self.step_tokens else self.step_tokens - self.step_tokens % self.page_size

    def _use(self, state: RequestState, tokens: int, complete: bool) -> None:
        self.step_tokens -= self._pages(tokens)
        longest = state.limit - state.num_prompt_tokens
        self._promised += self.page_size + (min(longest, LONGEST_ESTIMATE) if complete else 0)

    def _no_memory(self, needed: int, memory: float, *, refused: bool) -> Stop:
        total = self.kv.pool.num_blocks * self.page_size
        return Stop(Reason.MEMORY_ESTIMATE, needed, max(int(memory), 0), total, refused=refused, full=True)

    def _no_room(self, queues: Queues, state: RequestState, wanted: int) -> Stop | None:
        """The step's budget is used up, or a whole prompt exceeds it; for ever, when nobody could fill the prefix cache for it."""
        if self.alone and not self.chunked:
            queues.waiting.remove(state)
            self.draft.reject(state, wanted, self.draft.token_limit, "tokens in one step")
            return None
        reason = Reason.TOKEN_BUDGET if self.chunked else Reason.CHUNKED_PREFILL_OFF
        return Stop(reason, wanted, max(self.step_tokens, 0), self.draft.token_limit, refused=True, full=False)

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.page_size) * self.page_size


def _may_write(state: RequestState) -> int:
    """Tokens that a request may still write."""
    return state.limit - len(state.token_ids)
