"""``BlockPool``: which KV blocks are free, who shares which, and in what order they are reused.

Ids run from 1 to ``num_blocks``; 0 is never handed out (vLLM's null block).  The free queue is ordered: the front is
reused next.  A freed block with known content stays findable until it is reused, which is all there is to eviction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Literal

from workbench.errors import ConfigError, IntegrityError
from workbench.events import BlockEvent, KvUsage
from workbench.prefix import PrefixIndex

_EventKind = Literal["allocated", "hit", "shared", "cached", "evicted", "freed"]


class BlockPool:
    """Reference counts, free queue and prefix index of one engine's KV blocks."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.index = PrefixIndex()
        self.events: list[BlockEvent] = []
        self._refs = [0] * (num_blocks + 1)
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks + 1))
        self._num_idle_cached = 0
        self._retired: list[int] = []  # ids that a smaller pool gave up, the last given up last

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def num_free(self) -> int:
        """Blocks that nobody references, with or without reusable content (vLLM's count of free blocks)."""
        return len(self._free)

    @property
    def usage(self) -> KvUsage:
        """The pool in three numbers that add up to its size."""
        free = len(self._free)
        return KvUsage(self.num_blocks - free, self._num_idle_cached, free - self._num_idle_cached)

    def is_free(self, block_id: int) -> bool:
        """Whether nobody references this block."""
        return block_id in self._free

    def refs(self, block_id: int) -> int:
        """How many requests hold this block."""
        return self._refs[block_id]

    def free_order(self) -> tuple[int, ...]:
        """Free block ids in the order in which they will be reused."""
        return tuple(self._free)

    @property
    def highest_id(self) -> int:
        """The highest block id that was ever given out; more than ``num_blocks`` in a pool that became smaller."""
        return len(self._refs) - 1

    # -- verbs -----------------------------------------------------------------------------------------------------

    def allocate(self, count: int, request_id: str) -> list[int]:
        """Take ``count`` blocks from the front of the free queue; content that one still had is evicted now.

        The caller has checked :attr:`num_free`.
        """
        taken = []
        for _ in range(count):
            block_id, _none = self._free.popitem(last=False)
            digest = self.index.drop(block_id)
            if digest is not None:
                self._num_idle_cached -= 1
                self._note("evicted", block_id, request_id, digest)
            self._refs[block_id] = 1
            self._note("allocated", block_id, request_id)
            taken.append(block_id)
        return taken

    def touch(self, block_ids: Iterable[int], request_id: str) -> None:
        """Add an owner to blocks found by prefix; idle ones leave the free queue."""
        for block_id in block_ids:
            digest = self.index.hash_of(block_id)
            if self._refs[block_id] == 0:
                del self._free[block_id]
                self._num_idle_cached -= 1
                self._note("hit", block_id, request_id, digest)
            else:
                self._note("shared", block_id, request_id, digest)
            self._refs[block_id] += 1

    def cache(self, block_id: int, digest: bytes, request_id: str) -> None:
        """Make a block that became full findable by its content."""
        self.index.add(block_id, digest)
        self._note("cached", block_id, request_id, digest)

    def retract(self, block_id: int, request_id: str) -> None:
        """Take back what :meth:`cache` promised of a block, because it was never computed."""
        digest = self.index.drop(block_id)
        if digest is not None:
            self._num_idle_cached -= self._refs[block_id] == 0
            self._note("evicted", block_id, request_id, digest)

    def evict(self, block_ids: Sequence[int], request_id: str) -> None:
        """Drop the content of idle blocks now, and have them reused first: for a cache that chooses its victims itself."""
        for block_id in block_ids:
            self.retract(block_id, request_id)
        for block_id in reversed(block_ids):
            self._free.move_to_end(block_id, last=False)

    def free(self, block_ids: Sequence[int], request_id: str) -> None:
        """Let go of a request's table, last block first.

        Blocks without content go to the front of the queue, those with content to the back, so the tail of a sequence is
        evicted before its beginning (vLLM 0.32.0 ``BlockPool.free_blocks``).
        """
        blank: list[int] = []
        for block_id in reversed(block_ids):
            self._refs[block_id] -= 1
            self._note("freed", block_id, request_id)
            if self._refs[block_id]:
                continue
            if block_id in self.index:
                self._free[block_id] = None
                self._num_idle_cached += 1
            else:
                blank.append(block_id)
        for block_id in reversed(blank):
            self._free[block_id] = None
            self._free.move_to_end(block_id, last=False)

    def forget_content(self) -> bool:
        """Drop every hash, so that nothing can be hit any more; refused (``False``) while any block is in use."""
        if self.num_free < self.num_blocks:
            return False
        self.forget_all()
        return True

    def resize(self, num_blocks: int) -> None:
        """Make the pool larger or smaller while it is in use.

        New blocks join behind the blank ones at the front of the queue, so content is not evicted before they are used; a
        fresh pool therefore becomes the fresh pool of the new size.  A smaller pool gives up blank blocks, highest id first,
        then content in eviction order.  Raises :class:`ConfigError` when too few blocks are free.
        """
        if num_blocks < self.num_blocks - self.num_free:
            used = self.num_blocks - self.num_free
            raise ConfigError(f"num_blocks cannot become {num_blocks}: {used} blocks are in use at this step; keep at least {used}")
        blank = list(takewhile(lambda block_id: block_id not in self.index, self._free))
        if num_blocks < self.num_blocks:
            rest = list(self._free)[len(blank) :]
            self._retire((sorted(blank, reverse=True) + rest)[: self.num_blocks - num_blocks])
        else:
            fresh = [self._revive() for _ in range(num_blocks - self.num_blocks)]
            content = list(self._free)[len(blank) :]
            self._free = OrderedDict.fromkeys([*blank, *fresh, *content])
        self.num_blocks = num_blocks

    def _retire(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            self.retract(block_id, "")
            del self._free[block_id]
            self._retired.append(block_id)

    def _revive(self) -> int:
        if self._retired:
            return self._retired.pop()
        self._refs.append(0)
        return self.highest_id

    def forget_all(self) -> None:
        """Drop every hash, also of blocks in use: nothing that was computed so far can be found any more."""
        for block_id in self.index.blocks():
            self._note("evicted", block_id, "", self.index.drop(block_id))
        self._num_idle_cached = 0

    def copy(self) -> BlockPool:
        """An independent pool in the same state."""
        twin = BlockPool(0)
        twin.num_blocks, twin.index = self.num_blocks, self.index.copy()
        twin._refs, twin._free = self._refs.copy(), self._free.copy()
        twin._num_idle_cached, twin._retired = self._num_idle_cached, self._retired.copy()
        twin.events = self.events.copy()
        return twin

    def take_events(self) -> tuple[BlockEvent, ...]:
        """What happened since the last call."""
        events, self.events = tuple(self.events), []
        return events

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Raise :class:`IntegrityError` unless references, free queue and ``tables`` agree."""
        counted = [0] * len(self._refs)
        for table in tables:
            for block_id in table:
                counted[block_id] += 1
            if len(set(table)) != len(table):
                raise IntegrityError(f"a block occurs twice in one table: {list(table)}")
        if counted != self._refs:
            wrong = [b for b, refs in enumerate(self._refs) if counted[b] != refs]
            found = [(block_id, self._refs[block_id], counted[block_id]) for block_id in wrong[:8]]
            raise IntegrityError(f"(block, references, tables that hold it) disagree: {found}")
        idle = {b for b in range(1, len(self._refs)) if not self._refs[b]}.difference(self._retired)
        if idle != set(self._free):
            raise IntegrityError(f"free queue and unreferenced blocks differ: {sorted(idle ^ set(self._free))[:8]}")
        if len(self._refs) - 1 - len(self._retired) != self.num_blocks:
            raise IntegrityError(f"{self.num_blocks} blocks, but {len(self._refs) - 1} ids of which {len(self._retired)} are retired")
        if self._num_idle_cached != sum(b in self.index for b in idle):
            raise IntegrityError(f"{self._num_idle_cached} cached blocks counted, {sum(b in self.index for b in idle)} found")

    def _note(self, kind: _EventKind, block_id: int, request_id: str, digest: bytes | None = None) -> None:
        self.events.append(BlockEvent(kind, block_id, request_id, digest[:8].hex() if digest else ""))
