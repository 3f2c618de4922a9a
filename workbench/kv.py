"""``KvCache``: block tables of requests over one pool.

The layout of a request's slots when it is given room (half-open ranges, in tokens):

    | computed before | found by prefix | new in this step | lookahead |
    0                 c                 c+h                c+h+n       c+h+n+l

``allocate`` either covers ``[0, c+h+n+l)`` with blocks or changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from workbench.blocks import BlockPool
from workbench.prefix import extend_hashes
from workbench.state import RequestState


class KvCache:
    """Gives requests their blocks, finds prefixes, and registers full blocks for reuse."""

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool, gives_up_last_hit: bool = False) -> None:
        self.pool = BlockPool(num_blocks)
        self.gives_up_last_hit = gives_up_last_hit
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that ``num_tokens`` occupy."""
        return -(-num_tokens // self.block_size)

    def find_prefix(self, state: RequestState) -> list[int]:
        """Blocks that already hold the beginning of this request.

        At most ``(num_tokens - 1) // block_size`` of them, so at least one token is computed and gives logits.  A request
        that wants ``prompt_logprobs`` needs every position computed and finds none.  With an EAGLE head the last one found is given up.
        """
        if not self.enable_prefix_caching or state.request.sampling.prompt_logprobs is not None:
            return []
        extend_hashes(state.block_hashes, state.token_ids, self.block_size)
        found: list[int] = []
        for digest in state.block_hashes[: (state.num_tokens - 1) // self.block_size]:
            block_id = self.pool.index.find(digest)
            if block_id is None:
                break
            found.append(block_id)
        if found and self.gives_up_last_hit:
            found.pop()
        return found

    def shortfall(self, state: RequestState, num_tokens: int, found: Sequence[int] = ()) -> int:
        """Free blocks that covering ``num_tokens`` would take (not how many are missing).

        A found block that lies idle in the free queue is taken from it as well.
        """
        fresh = self.blocks_for(num_tokens) - len(state.block_ids) - len(found)
        if not found:
            return max(fresh, 0)
        return max(fresh, 0) + sum(self.pool.refs(block_id) == 0 for block_id in found)

    def allocate(self, state: RequestState, num_tokens: int, found: Sequence[int] = ()) -> bool:
        """Make the table cover ``num_tokens``; ``False``, and nothing changed, when too few blocks are free."""
        if num_tokens <= len(state.block_ids) * self.block_size:  # most decodes: the last block has room
            return True
        if self.shortfall(state, num_tokens, found) > self.pool.num_free:
            return False
        if found:
            self.pool.touch(found, state.id)
            state.block_ids.extend(found)
            state.num_hashed_blocks = len(found)
        missing = self.blocks_for(num_tokens) - len(state.block_ids)
        if missing > 0:
            state.block_ids.extend(self.pool.allocate(missing, state.id))
        return True

    def register(self, state: RequestState, num_computed: int) -> None:
        """Make the blocks that ``num_computed`` known tokens fill findable."""
        if not self.enable_prefix_caching:
            return
        full = num_computed // self.block_size
        if full == state.num_hashed_blocks:
            return
        extend_hashes(state.block_hashes, state.token_ids, self.block_size)
        for position in range(state.num_hashed_blocks, full):
            self.pool.cache(state.block_ids[position], state.block_hashes[position], state.id)
        state.num_hashed_blocks = full

    def fits_ever(self, num_tokens: int) -> bool:
        """Whether ``num_tokens`` of one request fit the pool at all."""
        return self.blocks_for(num_tokens) <= self.pool.num_blocks

    def switch_prefix_caching(self, enabled: bool, states: Iterable[RequestState]) -> None:
        """Find prefixes from now on, or no longer; the blocks of ``states`` become findable again as they are used."""
        if self.enable_prefix_caching and not enabled:
            self.pool.forget_all()
            for state in states:
                state.num_hashed_blocks = 0
        self.enable_prefix_caching = enabled

    def resize(self, num_blocks: int) -> None:
        """Make the pool larger or smaller while it is in use (:meth:`BlockPool.resize`)."""
        self.pool.resize(num_blocks)

    def forget(self) -> bool:
        """Drop all content, so that nothing can be hit any more; refused (``False``) while any block is in use."""
        return self.pool.forget_content()

    def check_integrity(self, states: Iterable[RequestState]) -> None:
        """Raise :class:`IntegrityError` unless the pool agrees with the tables of ``states``."""
        self.pool.check_integrity(state.block_ids for state in states)

    def copy(self) -> KvCache:
        """An independent cache in the same state; block tables belong to the requests."""
        twin = copy.copy(self)
        twin.pool = self.pool.copy()
        return twin

    def free(self, state: RequestState) -> None:
        """Take a request's whole table away."""
        self.pool.free(state.block_ids, state.id)
        state.block_ids.clear()
        state.num_hashed_blocks = 0
