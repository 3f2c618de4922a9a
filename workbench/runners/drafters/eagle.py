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
from workbench.models.native_draft import Asked, NativeDraft
from workbench.randomness import uniform
from workbench.runners.drafters.base import Chain, DraftRow, Stepped, batch_of, most_passes
from workbench.runners.drafting import Grown
from workbench.runners.kv_tensors import empty_blocks
from workbench.sampler import Chosen, Draw, is_greedy


class EagleDrafter:
    """Runs ``head`` after every step of ``target``; with ``draws``, drafts are drawn as the target's own tokens will be."""

    reads_every_step = True

    def __init__(
        self, head: EagleHead, target: LoadedModel, *, draws: bool = False, least: float = 0.0, kv: list[Tensor] | None = None
    ) -> None:
        self.head, self.target, self.draws, self.least = head, target, draws, least
        self.taps = head.taps
        self.compiled = compiled_drafting(head)
        self.kv = kv or []
        config = target.config
        self.kv_bytes_per_token = 2 * config.num_kv_heads * config.head_dim * target.path.dtype.itemsize

    def on(self, num_blocks: int, block_size: int) -> Self:
        """The same head with an empty cache."""
        config, path = self.target.config, self.target.path
        layer = empty_blocks(num_blocks, block_size, config.num_kv_heads, config.head_dim, path.dtype, self.target.device)
        return type(self)(self.head, self.target, draws=self.draws, least=self.least, kv=[layer])

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """Read what the target has computed, then draft for those who want it."""
        if self.compiled is not None:
            return self._at_once(self.compiled, rows, after)
        read = [DraftRow(row.row.start, row.row.start + row.num_read, _following(row), row.row.block_ids) for row in rows]
        batch = batch_of(read, after.block_size, [row.limit > 0 for row in rows])
        living, ends = [index for index, row in enumerate(rows) if row.limit], [row.end - 1 for row in read]
        drafts = Chain(rows, ends, after.block_size, living, self.least)
        hidden, chosen = self._run(batch, self.head.features(_of_read(rows, after)), self._draws(drafts))

        def go_on(batch: FlatBatch, going: list[int]) -> Chosen:
            nonlocal hidden
            hidden, chosen = self._run(batch, hidden if len(going) == len(hidden) else hidden[going], self._draws(drafts))
            return chosen

        return drafts.run(chosen, go_on)

    def _run(self, batch: FlatBatch, features: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Chosen]:
        hidden, normed = self.head.run(batch, features, self.kv[0])
        return hidden, self.head.vocabulary.choose(normed, draws)

    def _draws(self, drafts: Chain) -> list[Draw]:
        """How the next draft of each living row is drawn; nothing where the likeliest are asked for."""
        return [_draw(drafts.rows[index], len(drafts.drafts[index])) for index in drafts.living] if self.draws else []

    def _at_once(self, compiled: NativeDraft, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """The same in one call."""
        asked = []
        for begin, row in zip(after.begins, rows, strict=True):
            last = row.row.start + row.num_read - 1
            num_drafts = 1 + most_passes(row, last, after.block_size) if row.limit else 0
            draws = [_draw(row, ahead) for ahead in range(num_drafts)] if self.draws and not is_greedy(row.row.request.sampling) else []
            asked.append(Asked(row.row.start, _following(row), begin, row.row.block_ids, num_drafts, draws))
        return compiled.run(asked, after.taps, self.kv[0], self.least)


def _draw(row: Grown, ahead: int) -> Draw:
    """With the random number that the target will use there (:func:`workbench.sampler.sample`)."""
    sampling = row.row.request.sampling
    return Draw(sampling, uniform(sampling.seed or 0, row.num_output + ahead))


def _following(row: Grown) -> list[int]:
    """The token after each position that was read."""
    first = row.row.start + 1
    return row.token_ids[first : first + row.num_read]


def _of_read(rows: Sequence[Grown], after: Stepped) -> list[Tensor]:
    """The features of the tokens that stay."""
    spans = [range(begin, begin + row.num_read) for begin, row in zip(after.begins, rows, strict=True)]
    wanted = torch.tensor(list(chain.from_iterable(spans)), device=after.taps[0].device)
    return [tap if len(wanted) == len(tap) else tap.index_select(0, wanted) for tap in after.taps]
