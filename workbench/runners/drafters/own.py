"""``OwnDrafter``: the target drafts for itself, by a cheaper copy that shares its KV cache.

A copy that leaves layers out, or rounds weights, reads the keys and values that the target has computed, so it needs no cache and no
prompt of its own.  What it writes stands in slots that the target has yet to compute, and is written over when the drafts are verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from workbench.models.batch import FlatBatch
from workbench.models.llama import Llama
from workbench.runners.drafters.base import Chain, Choose, DraftRow, Stepped, batch_of, likeliest
from workbench.runners.drafting import Grown
from workbench.sampler import Chosen


class OwnDrafter:
    """Runs ``copy``, whose layers are the first of the target's, or stand for all of them."""

    taps: tuple[int, ...] = ()
    kv_bytes_per_token = 0
    reads_every_step = False

    def __init__(self, copy: Llama, choose: Choose = likeliest, least: float = 0.0) -> None:
        self.copy, self.choose, self.least = copy, choose, least
        self.kv: list[Tensor] = []

    def on(self, num_blocks: int, block_size: int) -> Self:
        """The same: it keeps nothing."""
        return type(self)(self.copy, self.choose, self.least)

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """Read the newest token, which the target has not, and go on from there."""
        kv = after.kv[: len(self.copy.layers)]
        living = [index for index, row in enumerate(rows) if row.limit and has_slot(row, after.block_size)]
        if not living:
            return [[] for _ in rows]
        drafts = Chain(rows, [len(row.token_ids) - 1 for row in rows], after.block_size, living, self.least)

        def following(batch: FlatBatch) -> Chosen:
            return drafts.chosen(self.copy(batch, kv), self.choose)

        newest = [_newest(rows[index]) for index in living]
        first = following(batch_of(newest, after.block_size, [True] * len(newest)))
        return drafts.run(first, lambda batch, _: following(batch))


def _newest(row: Grown) -> DraftRow:
    position = len(row.token_ids) - 1
    return DraftRow(position, position + 1, row.token_ids[-1:], row.row.block_ids)


def has_slot(row: Grown, block_size: int) -> bool:
    """Whether the row's blocks hold its newest token; without, nothing can be drafted after it."""
    return len(row.token_ids) <= len(row.row.block_ids) * block_size
