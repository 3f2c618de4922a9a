"""``ReuseOrder``: in which order the free blocks of a pool will be reused, followed from the outside.

Records do not hold the free queue, but everything that moves it: the front is taken, what is freed with content goes to the back, what is
freed without to the front (:class:`~workbench.blocks.BlockPool`).  A pool that begins empty is therefore known at every step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from itertools import takewhile

from workbench.events import BlockEvent
from workbench.moment.pool import Pool
from workbench.trace import Trace


def has_order(trace: Trace) -> bool:
    """Whether the order can be followed.

    A radix cache chooses its victims itself, and a trace without its beginning does not hold the order that was there.
    """
    return trace.config.policy != "lpm" and not trace.first_step and trace.fidelity == "exact"


class ReuseOrder:
    """The free queue, with a key for each block: the smallest is reused next.  A key stays while its block stays in the queue.

    >>> order = ReuseOrder([1, 2, 3])
    >>> order.take(1, front=True), order.append(1), order.blocks()
    (True, None, (2, 3, 1))
    """

    def __init__(self, block_ids: Iterable[int]) -> None:
        self._keys: OrderedDict[int, int] = OrderedDict()
        self._number(block_ids)

    def blocks(self) -> tuple[int, ...]:
        """Free blocks, the one that is reused next first."""
        return tuple(self._keys)

    def key(self, block_id: int) -> int | None:
        """Where a block stands, ``None`` if it is not free."""
        return self._keys.get(block_id)

    def take(self, block_id: int, *, front: bool) -> bool:
        """A block leaves the queue, at its ``front`` or anywhere; ``False`` if it was not there."""
        if front and block_id != next(iter(self._keys), None):
            return False
        return self._keys.pop(block_id, None) is not None

    def append(self, block_id: int) -> None:
        """A block with content was freed."""
        self._keys[block_id] = self._back
        self._back += 1

    def prepend(self, block_ids: Sequence[int]) -> None:
        """Blocks without content were freed together, in this order."""
        for block_id in reversed(block_ids):
            self._front -= 1
            self._keys[block_id] = self._front
            self._keys.move_to_end(block_id, last=False)

    def insert(self, block_ids: Sequence[int], content: Container[int]) -> None:
        """New blocks came behind the blank ones at the front; all keys may change."""
        queue = self.blocks()
        blank = self._blank(content)
        self._number([*blank, *block_ids, *queue[len(blank) :]])

    def surplus(self, count: int, content: Container[int]) -> list[int]:
        """The blocks that a pool smaller by ``count`` gives up, in this order; they leave the queue."""
        blank = self._blank(content)
        lost = [*sorted(blank, reverse=True), *self.blocks()[len(blank) :]][:count]
        for block_id in lost:
            del self._keys[block_id]
        return lost

    def _blank(self, content: Container[int]) -> list[int]:
        return list(takewhile(lambda block_id: block_id not in content, self._keys))

    def _number(self, block_ids: Iterable[int]) -> None:
        self._keys = OrderedDict((block_id, key) for key, block_id in enumerate(block_ids))
        self._front, self._back = 0, len(self._keys)


class OrderedPool(Pool):
    """A pool that knows the order of reuse as well; ``order`` is ``None`` where that cannot be told."""

    def __init__(self, num_blocks: int, *, from_the_start: bool) -> None:
        super().__init__(num_blocks, from_the_start=from_the_start)
        self._order = ReuseOrder(range(1, num_blocks + 1)) if from_the_start else None
        self._freed_together: list[int] = []  # blank blocks that a request lets go of, to be put in front when it is done
        self._freed_by = ""

    @property
    def order(self) -> ReuseOrder | None:
        """The order after the events so far."""
        self._settle()
        return self._order

    def forget_order(self) -> None:
        """The order is not known from here on."""
        self._order = None

    def apply(self, event: BlockEvent) -> None:
        """Take one event in."""
        super().apply(event)
        order, kind = self._order, event.kind
        if order is None:
            return
        if kind == "freed" and event.request_id == self._freed_by:
            self._let_go(event.block_id)
            return
        if self._freed_together:
            self._settle()
        self._freed_by = event.request_id if kind == "freed" else ""
        if kind == "freed":
            self._let_go(event.block_id)
        elif (kind == "allocated" or kind == "hit") and not order.take(event.block_id, front=kind == "allocated"):
            self.forget_order()  # the records contradict each other, or the rules by which they are read here

    def _let_go(self, block_id: int) -> None:
        if block_id in self.owners or self._order is None:
            return
        if block_id in self.hashes:
            self._order.append(block_id)
        else:
            self._freed_together.append(block_id)

    def _settle(self) -> None:
        if self._order is not None:
            self._order.prepend(self._freed_together)
        self._freed_together = []
        self._freed_by = ""

    def resize(self, num_blocks: int, events: Sequence[BlockEvent]) -> int:
        """Grow or shrink by the rule of ``BlockPool.resize``, the order known or not."""
        order = self.order
        if order is None:
            return super().resize(num_blocks, events)
        if num_blocks < self.size:
            lost = order.surplus(self.size - num_blocks, self.hashes)
            self.retired += lost
            return sum(self.hashes.pop(block_id, None) is not None for block_id in lost)
        before = self.highest, self.retired.copy()
        super().resize(num_blocks, events)
        revived = before[1][len(self.retired) :][::-1]
        order.insert([*revived, *range(before[0] + 1, self.highest + 1)], self.hashes)
        return 0
