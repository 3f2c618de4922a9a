"""``RadixKvCache``: block tables over one pool whose reusable content stands in a radix tree (SGLang's cache).

It answers the same questions as :class:`~workbench.kv.KvCache`, by other rules:

- a page of the tree is a block, and no content is there twice: a request that computed what the tree has already gives its own copy
  back and takes the tree's;
- content enters the tree after it was computed: prompts as their chunks end, outputs when their request ends (a request that loses its
  blocks leaves its output nowhere);
- the tree, not the free queue, says which content is evicted: whole leaves, the one looked up longest ago first.

Source of the rules: SGLang, ``mem_cache/radix_cache.py`` (``cache_unfinished_req``, ``cache_finished_req``, ``evict``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workbench.errors import IntegrityError
from workbench.kv import KvCache
from workbench.prefix import extend_hashes
from workbench.radix import Node, RadixTree
from workbench.state import RequestState


class RadixKvCache(KvCache):
    """Gives requests their blocks, finds prefixes in a radix tree, and puts computed blocks into it."""

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool) -> None:
        super().__init__(num_blocks, block_size, enable_prefix_caching=enable_prefix_caching)
        self.tree = RadixTree(block_size)
        self._held: dict[str, Node] = {}  # by request: the node that its table follows the tree to, locked

    def find_prefix(self, state: RequestState) -> list[int]:
        """Blocks that already hold the beginning of this request, all but its last token at most; they count as just used."""
        if not self.enable_prefix_caching or state.request.sampling.prompt_logprobs is not None:
            return []
        return self.tree.match(state.token_ids[: state.num_tokens - 1])[0]

    def allocate(self, state: RequestState, num_tokens: int, found: Sequence[int] = ()) -> bool:
        """Make the table cover ``num_tokens``; ``False``, and nothing changed, when too few blocks are free.

        What blank blocks are too few for is evicted from the tree.
        """
        if num_tokens <= len(state.block_ids) * self.block_size:
            return True
        if self.shortfall(state, num_tokens, found) > self.pool.num_free:
            return False
        if found:
            _, node = self.tree.match(state.token_ids[: len(found) * self.block_size])
            self._hold(state, node)
            self.pool.touch(found, state.id)
            state.block_ids.extend(found)
            state.num_hashed_blocks = len(found)
        missing = self.blocks_for(num_tokens) - len(state.block_ids)
        if missing > 0:
            self._evict(missing - self.pool.usage.free, state.id)
            state.block_ids.extend(self.pool.allocate(missing, state.id))
        return True

    def register(self, state: RequestState, num_computed: int) -> None:
        """Put the blocks that ``num_computed`` known, computed tokens fill into the tree, and follow the tree's where it has them."""
        full = num_computed // self.block_size
        if not self.enable_prefix_caching or full <= state.num_hashed_blocks:
            return
        extend_hashes(state.block_hashes, state.token_ids, self.block_size)
        tokens = state.token_ids[: full * self.block_size]
        known = self.tree.insert(tokens, state.block_ids[:full]) // self.block_size
        values, node = self.tree.match(tokens)
        self._hold(state, node)
        for position in range(state.num_hashed_blocks, full):
            mine, kept = state.block_ids[position], values[position]
            if position >= known:
                self.pool.cache(mine, state.block_hashes[position], state.id)
            elif mine != kept:
                self.pool.touch((kept,), state.id)
                self.pool.free((mine,), state.id)
                state.block_ids[position] = kept
        state.num_hashed_blocks = full

    def free(self, state: RequestState) -> None:
        """Take a request's whole table away; what of it is in the tree stays there until it is evicted."""
        node = self._held.pop(state.id, None)
        if node is not None:
            self.tree.unlock(node)
        super().free(state)

    def resize(self, num_blocks: int) -> None:
        """Make the pool larger or smaller; content has to go where blank blocks are too few."""
        usage = self.pool.usage
        surplus = self.pool.num_blocks - num_blocks
        if usage.free < surplus <= usage.free + usage.cached:
            self._evict(surplus - usage.free, "")
        self.pool.resize(num_blocks)

    def forget(self) -> bool:
        """Drop all content; refused (``False``) while any block is in use."""
        done = super().forget()
        if done:
            self.tree.reset()
        return done

    def switch_prefix_caching(self, enabled: bool, states: Iterable[RequestState]) -> None:
        """Find prefixes from now on, or no longer; the blocks of ``states`` come back into the tree as they are used."""
        if self.enable_prefix_caching and not enabled:
            self.tree.reset()
            self._held.clear()
        super().switch_prefix_caching(enabled, states)

    def copy(self) -> RadixKvCache:
        """An independent cache in the same state; block tables belong to the requests."""
        twin = RadixKvCache(0, self.block_size, enable_prefix_caching=self.enable_prefix_caching)
        twin.pool = self.pool.copy()
        twin.tree, twin_of = self.tree.copy()
        twin._held = {name: twin_of[node] for name, node in self._held.items()}
        return twin

    def check_integrity(self, states: Iterable[RequestState]) -> None:
        """Raise :class:`IntegrityError` unless pool, tables and tree agree."""
        holders = list(states)
        super().check_integrity(holders)
        self.tree.check_integrity()
        inside = [block_id for node in self.tree.nodes() for block_id in node.values]
        if sorted(inside) != sorted(self.pool.index.blocks()):
            raise IntegrityError(f"the tree holds blocks {sorted(inside)}, the pool knows content of {sorted(self.pool.index.blocks())}")
        if self.tree.evictable_tokens != self.pool.usage.cached * self.block_size:
            raise IntegrityError(f"{self.tree.evictable_tokens} tokens may be evicted, but {self.pool.usage.cached} blocks are cached")
        for state in holders:
            table = state.block_ids[: state.num_hashed_blocks]
            if table != self._followed(state):
                raise IntegrityError(f"{state!r} follows the tree for {state.num_hashed_blocks} blocks, but it has {self._followed(state)}")

    def _followed(self, state: RequestState) -> list[int]:
        """The blocks on the tree's path that the request holds."""
        node, values = self._held.get(state.id), list[int]()
        while node is not None and node is not self.tree.root:
            values = node.values + values
            node = node.parent
        return values

    def _hold(self, state: RequestState, node: Node) -> None:
        """Lock ``node`` for the request instead of what it held before."""
        before = self._held.get(state.id)
        self.tree.lock(node)
        if before is not None:
            self.tree.unlock(before)
        self._held[state.id] = node

    def _evict(self, count: int, request_id: str) -> None:
        """Have at least ``count`` cached blocks become blank."""
        if count > 0:
            self.pool.evict(self.tree.evict(count * self.block_size), request_id)
