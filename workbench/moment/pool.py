"""A block pool followed from the outside: who holds which block, and which content is findable."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.events import BlockEvent

UNSEEN = "?"  # an owner from before the trace; there may be several


def forgets(event: BlockEvent) -> bool:
    """Whether content was lost without a request that took its block."""
    return event.kind == "evicted" and not event.request_id


class Pool:
    """The pool's state after the events so far; ids run from 1, those that a smaller pool gave up are ``retired``."""

    def __init__(self, num_blocks: int, *, from_the_start: bool) -> None:
        self._from_the_start = from_the_start
        self.owners: dict[int, list[str]] = {}
        self.hashes: dict[int, str] = {}
        self.tables: dict[str, list[int]] = {}  # of every request that ever had blocks
        self.highest = num_blocks
        self.doubtful: set[int] = set()  # whether anybody from before the trace still holds these is not known
        self.retired: list[int] = []  # ids that a smaller pool gave up, the last given up last

    @property
    def size(self) -> int:
        """Blocks that exist."""
        return self.highest - len(self.retired)

    def apply(self, event: BlockEvent) -> None:
        """Take one event in."""
        block_id, kind = event.block_id, event.kind
        if kind == "evicted":
            self.hashes.pop(block_id, None)
            return
        if block_id > self.highest or block_id in self.retired:
            self._exists_after_all(block_id)
        if kind == "freed":
            self._freed(block_id, event.request_id)
            return
        if event.hash:
            self.hashes[block_id] = event.hash
        if kind == "cached":
            if not self._from_the_start and block_id not in self.owners:  # who fills a block holds it
                self.owners[block_id] = [event.request_id]
        else:
            unseen = [UNSEEN] if kind == "shared" else []
            if kind != "shared":
                self.doubtful.discard(block_id)
            self.owners.setdefault(block_id, unseen).append(event.request_id)
            self.tables.setdefault(event.request_id, []).append(block_id)

    def _freed(self, block_id: int, request_id: str) -> None:
        owners, table = self.owners.get(block_id, []), self.tables.setdefault(request_id, [])
        if request_id in owners:
            owners.remove(request_id)
        else:
            self.doubtful.add(block_id)  # one from before the trace lets go; there may be more of them
        if not owners or (owners == [UNSEEN] and block_id in self.doubtful):
            self.owners.pop(block_id, None)
        if table and table[-1] == block_id:
            table.pop()  # tables are freed from their end
        elif block_id in table:
            table[table.index(block_id)] = table.pop()  # given up for the equal one taken just now

    def forget_order(self) -> None:
        """Something happened at a time that the record does not tell; for pools that follow the order of their free blocks."""

    def resize(self, num_blocks: int, events: Sequence[BlockEvent]) -> int:
        """Grow or shrink by the rule of ``BlockPool.resize``; ``events`` name the content that is given up after all blank blocks.

        Returns how many of the events tell of that.
        """
        while self.size < num_blocks:
            if self.retired:
                self.retired.pop()
            else:
                self.highest += 1
        if self.size <= num_blocks:
            return 0
        self.retired += self._blank()[: self.size - num_blocks]
        lost = [event.block_id for event in events if forgets(event) and event.block_id in self.hashes][: self.size - num_blocks]
        for block_id in lost:
            del self.hashes[block_id]
            self.retired.append(block_id)
        return len(lost)

    def _blank(self) -> list[int]:
        taken = {*self.owners, *self.hashes, *self.retired}
        return [block_id for block_id in range(self.highest, 0, -1) if block_id not in taken]

    def _exists_after_all(self, block_id: int) -> None:
        """An id is used that was thought given up: records do not say where between a step's commands its events lie."""
        size = self.size
        self.highest = max(self.highest, block_id)
        if block_id in self.retired:
            self.retired.remove(block_id)
        self.retired += [blank for blank in self._blank() if blank != block_id][: self.size - size]

    def idle(self) -> set[int]:
        """Blocks of which nothing is known but that they exist."""
        return set(range(1, self.highest + 1)).difference(self.owners, self.hashes, self.retired)
