"""``EagleDrafter``: drafts of a trained head, one layer on the target's features.

The head's cache has an entry for every position that the target has computed, made from the target's features, and for the drafts of the
round under way, made from the head's own outputs; those are written over as soon as the target has verified their positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Self

import torch
from torch import Tensor

from workbench.models.batch import FlatBatch
from workbench.models.eagle import EagleHead, compiled_drafting
from workbench.models.loading import LoadedModel
from workbench.models.native_draft import Link, NativeDraft
from workbench.runners.drafters.base import Chain, DraftRow, Stepped, batch_of, most_passes
from workbench.runners.drafting import Grown
from workbench.runners.kv_tensors import empty_blocks


class EagleDrafter:
    """Runs ``head`` after every step of ``target``."""

    reads_every_step = True

    def __init__(self, head: EagleHead, target: LoadedModel, kv: list[Tensor] | None = None) -> None:
        self.head, self.target = head, target
        self.taps = head.taps
        self.compiled = compiled_drafting(head)
        self.kv = kv or []
        config = target.config
        self.kv_bytes_per_token = 2 * config.num_kv_heads * config.head_dim * target.path.dtype.itemsize

    def on(self, num_blocks: int, block_size: int) -> Self:
        """The same head with an empty cache."""
        config, path = self.target.config, self.target.path
        layer = empty_blocks(num_blocks, block_size, config.num_kv_heads, config.head_dim, path.dtype, self.target.device)
        return type(self)(self.head, self.target, [layer])

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """Read what the target has computed, then draft for those who want it."""
        read = [DraftRow(row.row.start, row.row.start + row.num_read, _following(row), row.row.block_ids) for row in rows]
        batch = batch_of(read, after.block_size, [row.limit > 0 for row in rows])
        living, ends = [index for index, row in enumerate(rows) if row.limit], [row.end - 1 for row in read]
        if self.compiled is not None:
            return self._at_once(self.compiled, rows, ends, living, batch, after)
        hidden, token_ids = self._run(batch, self.head.features(_of_read(rows, after)))
        drafts = Chain(rows, ends, after.block_size)

        def go_on(batch: FlatBatch, going: list[int]) -> list[int]:
            nonlocal hidden
            hidden, token_ids = self._run(batch, hidden if len(going) == len(hidden) else hidden[going])
            return token_ids

        return drafts.run(living, token_ids, go_on)

    def _run(self, batch: FlatBatch, features: Tensor) -> tuple[Tensor, list[int]]:
        hidden, normed = self.head.run(batch, features, self.kv[0])
        return hidden, self.head.vocabulary.likeliest(normed)

    def _at_once(
        self, compiled: NativeDraft, rows: Sequence[Grown], ends: Sequence[int], living: Sequence[int], batch: FlatBatch, after: Stepped
    ) -> list[list[int]]:
        """The same in one call."""
        links = []
        for index in living:
            link = Link(ends[index] + 1, most_passes(rows[index], ends[index], after.block_size), rows[index].row.block_ids)
            links.append(link)
        order = sorted(range(len(links)), key=lambda place: -links[place].passes)
        batch = batch._replace(logits_rows=batch.logits_rows[order])
        drafts: list[list[int]] = [[] for _ in rows]
        found = compiled.run(batch, after.taps, _read_at(rows, after), [links[place] for place in order], self.kv[0])
        for place, tokens in zip(order, found, strict=True):
            drafts[living[place]] = tokens
        return drafts


def _following(row: Grown) -> list[int]:
    """The token after each position that was read."""
    first = row.row.start + 1
    return row.token_ids[first : first + row.num_read]


def _read_at(rows: Sequence[Grown], after: Stepped) -> list[int]:
    """Where the features of the tokens that stay stand."""
    return list(chain.from_iterable(range(begin, begin + row.num_read) for begin, row in zip(after.begins, rows, strict=True)))


def _of_read(rows: Sequence[Grown], after: Stepped) -> list[Tensor]:
    """Those features."""
    wanted = torch.tensor(_read_at(rows, after), device=after.taps[0].device)
    return [tap if len(wanted) == len(tap) else tap.index_select(0, wanted) for tap in after.taps]
