"""``UndoLog``: what KV blocks held before a step used them anew, so that a rewind can put it back.

A slot that a request computed is never written again while the request has its block; only a block that changes hands is.  So it is
enough to keep, for each step, the old content of the blocks that the step allocated.  Rewinding writes them back, the
latest first.

    step        0      1      2      3      4
    block 7     r0 …   r0 …   free   r4 …   r4 …
                                     ▲ what r0 left in it is saved here, and put back by a rewind to 3 or before
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from workbench.runners.base import HoldsBlocks, SavedBlocks


class UndoEntry(msgspec.Struct, frozen=True):
    """What ``block_ids`` held before ``step`` was executed."""

    step: int
    block_ids: tuple[int, ...]
    saved: SavedBlocks


class UndoLog:
    """Old contents of blocks, newest last, bounded by ``budget_bytes``; the oldest are dropped first.

    ``reach``: the earliest step whose blocks can still be put back; what lies before it must be computed again.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.reach = 0
        self.num_bytes = 0
        self._entries: deque[UndoEntry] = deque()
        self._written: set[int] = set()  # blocks that may hold something

    def save(self, step: int, fresh: Iterable[int], runner: HoldsBlocks) -> None:
        """Before ``step`` is executed: keep what the blocks it allocated hold, if they were ever used before."""
        taken = dict.fromkeys(fresh)
        used = tuple(block_id for block_id in taken if block_id in self._written)
        self._written.update(taken)
        if used and not self.budget_bytes:
            self.reach = step + 1
        elif used:
            self._keep(UndoEntry(step, used, runner.read_blocks(used)))

    def _keep(self, entry: UndoEntry) -> None:
        self._entries.append(entry)
        self.num_bytes += entry.saved.nbytes
        while self.num_bytes > self.budget_bytes:
            oldest = self._entries.popleft()
            self.num_bytes -= oldest.saved.nbytes
            self.reach = oldest.step + 1

    def assume_written(self, block_ids: Iterable[int]) -> None:
        """These blocks may hold something that this log did not see being written."""
        self._written.update(block_ids)

    @property
    def written(self) -> set[int]:
        """Blocks that may hold something."""
        return set(self._written)

    def since(self, step: int) -> list[UndoEntry]:
        """What ``step`` and later ones overwrote, newest first: written in this order, blocks hold what they held before ``step``."""
        return [entry for entry in reversed(self._entries) if entry.step >= step]

    def before(self, step: int, reach: int = 0, highest_id: int | None = None) -> UndoLog:
        """An independent log of what happened before ``step``; contents are shared, they never change.

        For another runner: ``reach`` is the earliest step to which its blocks can be put back, ``highest_id`` its last block.
        """
        log = UndoLog(self.budget_bytes)
        log.reach = min(max(self.reach, reach), step)
        log._written = {block_id for block_id in self._written if highest_id is None or block_id <= highest_id}
        for entry in self._entries:
            if log.reach <= entry.step < step:
                log._entries.append(entry)
                log.num_bytes += entry.saved.nbytes
        return log


def write_back(runner: HoldsBlocks, entries: Sequence[UndoEntry], only: set[int] | None = None) -> int:
    """Write saved contents into ``runner``'s blocks, in order; returns how many blocks were written.

    Of a block that occurs several times only the last content counts.  ``only`` leaves out all other blocks.
    """
    latest: dict[int, UndoEntry] = {block_id: entry for entry in entries for block_id in entry.block_ids}
    written = 0
    for entry in entries:
        wanted = [block_id for block_id in entry.block_ids if latest[block_id] is entry and (only is None or block_id in only)]
        if wanted:
            rows = None if len(wanted) == len(entry.block_ids) else [entry.block_ids.index(block_id) for block_id in wanted]
            runner.write_blocks(wanted, entry.saved, rows)
            written += len(wanted)
    return written
