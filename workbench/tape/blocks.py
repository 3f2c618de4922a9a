"""``Cells``: every KV block as it stands after planning, and which of them differ from the step before.

Only blocks that an event touched are looked at again, so a step costs what happened in it and not what the pool holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from workbench.events import BlockEvent, StepRecord
from workbench.moment.pool import UNSEEN
from workbench.moment.reuse import OrderedPool, ReuseOrder
from workbench.tape.columns import NONE, Row, Rows
from workbench.tape.names import UNSEEN as UNSEEN_OWNER
from workbench.tape.names import Names

FREE, CACHED, IN_USE, UNKNOWN, GONE = range(5)

_FROM = ("allocated", "hit", "shared")
_NOWHERE = ("", -1)
_GONE: Row = (GONE, -1, -1, -1, -1, NONE)


class WatchedPool(OrderedPool):
    """A pool that knows which blocks changed since it was last asked, and whose tokens stand in each."""

    def __init__(self, num_blocks: int, *, from_the_start: bool) -> None:
        super().__init__(num_blocks, from_the_start=from_the_start)
        self.changed: set[int] | None = None  # None: look at all
        self.content: dict[int, tuple[str, int]] = {}  # a request, and which of its blocks it is

    def apply(self, event: BlockEvent) -> None:
        """Take one event in."""
        name, block_id = event.request_id, event.block_id
        before = self.tables.get(name, ()) if event.kind == "freed" else ()
        place = before.index(block_id) if before and before[-1] != block_id and block_id in before else None
        super().apply(event)
        if self.changed is not None:
            self.changed.add(block_id)
        if event.kind == "allocated" or (event.kind in _FROM and self.content.get(block_id, _NOWHERE) == _NOWHERE):
            self.content[block_id] = (name, len(self.tables[name]) - 1)
        elif place is not None:
            self._moved(name, place)

    def _moved(self, name: str, place: int) -> None:
        """A request gave a block up for an equal one, which now stands in its place."""
        table = self.tables[name]
        if place < len(table) and self.content.get(table[place]) == (name, len(table)):
            self.content[table[place]] = (name, place)
            if self.changed is not None:
                self.changed.add(table[place])

    def restarted(self, name: str) -> None:
        """A request got another prompt: what it computed before is no longer among its tokens."""
        lost = [block_id for block_id, (whose, _) in self.content.items() if whose == name]
        for block_id in lost:
            others = [other for other in self.owners.get(block_id, ()) if other not in (name, UNSEEN)]
            self.content[block_id] = (others[0], self.tables[others[0]].index(block_id)) if others else _NOWHERE
        if self.changed is not None:
            self.changed.update(lost)

    def resize(self, num_blocks: int, events: Sequence[BlockEvent]) -> int:
        """Grow or shrink; every block may have changed."""
        self.changed = None
        return super().resize(num_blocks, events)

    def forget_order(self) -> None:
        """The order is not known from here on."""
        super().forget_order()
        self.changed = None

    def _exists_after_all(self, block_id: int) -> None:
        super()._exists_after_all(block_id)
        self.changed = None


class Cells:
    """What was last said of each block."""

    def __init__(self, pool: WatchedPool, names: Names, numbers: Mapping[str, int]) -> None:
        self._pool = pool
        self._names = names
        self._numbers = numbers
        self._shown: dict[int, Row] = {}
        self._idle_cached: set[int] = set()
        self.veiled = False  # whether more blocks are in use, or cached, than the trace tells of

    def rows(self, record: StepRecord) -> Rows:
        """A row for every block that differs since the last call; ``record`` has just been planned."""
        rows: Rows = []
        retired, order = set(self._pool.retired), self._pool.order
        for block_id in sorted(self._changed(record)):
            cell = _GONE if block_id in retired else self._cell(block_id, order)
            if self._shown.get(block_id) != cell:
                self._shown[block_id] = cell
                rows.append(block_id)
                rows += cell
        return rows

    def _changed(self, record: StepRecord) -> Iterable[int]:
        pool, changed = self._pool, self._pool.changed
        pool.changed = set()
        hashes, owners = pool.hashes, pool.owners
        if changed is None:
            self._idle_cached = {block_id for block_id in hashes if block_id not in owners}
        else:
            self._idle_cached.difference_update(changed)
            self._idle_cached.update([block_id for block_id in changed if block_id in hashes and block_id not in owners])
        veiled = record.kv.in_use != len(owners) or record.kv.cached != len(self._idle_cached)
        if veiled != self.veiled:
            self.veiled, changed = veiled, None
        return range(1, pool.highest + 1) if changed is None else changed

    def _cell(self, block_id: int, order: ReuseOrder | None) -> Row:
        pool = self._pool
        owners, digest = pool.owners.get(block_id), pool.hashes.get(block_id, "")
        key = order.key(block_id) if order is not None else None
        place = NONE if key is None else key
        if owners:
            status = IN_USE
        elif digest and not (self.veiled and block_id in pool.doubtful):
            status = CACHED
        else:
            return (UNKNOWN if self.veiled else FREE, -1, -1, -1, self._names.string(digest), place)
        name, index = pool.content.get(block_id, _NOWHERE)
        return (status, self._owner_set(owners), self._numbers[name] if name else -1, index, self._names.string(digest), place)

    def _owner_set(self, owners: Sequence[str] | None) -> int:
        if not owners:
            return -1
        return self._names.owner_set(tuple([UNSEEN_OWNER if name == UNSEEN else self._numbers[name] for name in owners]))
