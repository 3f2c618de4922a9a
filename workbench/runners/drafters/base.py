"""What a drafter of a torch runner is, and how one token after the other is drafted in the blocks of the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from workbench.models.batch import FlatBatch, flatten
from workbench.runners.drafting import Grown
from workbench.sampler import Chosen, SampleRow, chances_of, sample

Choose = Callable[[Tensor, Sequence[Grown], Sequence[Sequence[int]]], list[int]]
"""Tokens from scores ``[rows, vocab]``: of each row, and the drafts that it has so far."""


def likeliest(scores: Tensor, rows: Sequence[Grown], drafts: Sequence[Sequence[int]]) -> list[int]:
    """The token with the highest score of each row."""
    tokens: list[int] = scores.argmax(dim=-1).tolist()
    return tokens


def as_asked(scores: Tensor, rows: Sequence[Grown], drafts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that the target will choose itself, as far as these scores equal those of its next step.

    Each is chosen with the parameters of its request, and with the random number that the target will use there: where two distributions
    are nearly equal, the same number nearly always falls on the same token.  Drafting with the target's own randomness is the idea of
    "Coupling without Communication and Drafter-Invariant Speculative Decoding" (arXiv 2408.07978).
    """
    draws = []
    for row, before in zip(rows, drafts, strict=True):
        seen = [*row.token_ids, *before]
        draws.append(SampleRow(row.row.request, seen, row.num_output + len(before)))
    return sample(scores, draws)[0]


class Stepped(NamedTuple):
    """What the target leaves to a drafter after a step.

    ``kv``: its cache.  ``taps``: the residual stream that left the layers that the drafter named, ``[tokens, hidden]`` each.
    ``begins``: where each row's tokens begin on that axis.
    """

    kv: Sequence[Tensor]
    taps: Sequence[Tensor]
    begins: Sequence[int]
    block_size: int


class TorchDrafter(Protocol):
    """Proposes drafts; may keep a KV cache of its own, in blocks of the same numbers as the target's.

    ``taps``: layers of the target whose outputs it reads.  ``kv``: its own cache, one tensor a layer, each with the blocks on axis 1;
    ``kv_bytes_per_token`` is what it takes.  ``reads_every_step``: whether it must be asked after steps in which nobody wants drafts, too,
    because it puts what the target reads into its own cache.
    """

    taps: tuple[int, ...]
    kv: list[Tensor]
    kv_bytes_per_token: int
    reads_every_step: bool

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """Drafts for each row, at most its limit."""
        ...

    def on(self, num_blocks: int, block_size: int) -> Self:
        """The same drafter with an empty cache of so many blocks of its own; weights are shared."""
        ...


class DraftRow(NamedTuple):
    """Positions ``[start, end)`` that a drafter reads, in the block table of a request."""

    start: int
    end: int
    input_ids: Sequence[int]
    block_ids: Sequence[int]


def batch_of(rows: Sequence[DraftRow], block_size: int, scored: Sequence[bool]) -> FlatBatch:
    """The rows flattened; of those that are ``scored`` the last token gets scores."""
    return flatten(rows, block_size, [int(each) for each in scored])


def most_passes(row: Grown, first: int, block_size: int) -> int:
    """How many drafts of a row may follow its first one, which comes out of position ``first``: each reads the one before, in a slot."""
    return min(row.limit - 1, len(row.row.block_ids) * block_size - 1 - first)


class Chain:
    """Drafts that grow one after the other, each read at the position after the one before, while there is a slot for it.

    ``first``: the position of the last entry that was read; the drafts of each row begin with the token that came out of it.
    ``living``: the rows that get one more draft.  ``least``: a row ends before the draft with which the chance that all of its drafts are
    right falls below it; that a draft's own probability tells how often it is accepted is a finding of EAGLE-2 (arXiv 2406.16858).
    """

    def __init__(self, rows: Sequence[Grown], first: Sequence[int], block_size: int, living: Sequence[int], least: float = 0.0) -> None:
        self.rows, self.first, self.block_size, self.living, self.least = rows, first, block_size, list(living), least
        self.drafts: list[list[int]] = [[] for _ in rows]
        self._hopes = [1.0] * len(rows)  # that all drafts so far are right

    def chosen(self, scores: Tensor, choose: Choose) -> Chosen:
        """What ``choose`` takes for each living row."""
        ids = choose(scores, [self.rows[index] for index in self.living], [self.drafts[index] for index in self.living])
        return Chosen(ids, chances_of(scores.float(), torch.tensor(ids, device=scores.device)) if self.least else ())

    def grow(self, chosen: Chosen) -> list[int]:
        """Take one more draft for each living row; returns those that go on, as places among those that lived."""
        going = []
        for place, (index, token) in enumerate(zip(self.living, chosen.ids, strict=True)):
            if self.least:
                self._hopes[index] *= chosen.chances[place]
                if self._hopes[index] < self.least:
                    continue
            self.drafts[index].append(token)
            if len(self.drafts[index]) <= most_passes(self.rows[index], self.first[index], self.block_size):
                going.append(place)
        self.living = [self.living[place] for place in going]
        return going

    def next_rows(self) -> FlatBatch:
        """The newest draft of each living row, to be read next."""
        rows = []
        for index in self.living:
            drafts, position = self.drafts[index], self.first[index] + len(self.drafts[index])
            rows.append(DraftRow(position, position + 1, drafts[-1:], self.rows[index].row.block_ids))
        return batch_of(rows, self.block_size, [True] * len(rows))

    def run(self, chosen: Chosen, read: Callable[[FlatBatch, list[int]], Chosen]) -> list[list[int]]:
        """Grow all chains to their ends; ``read(batch, going)`` reads the newest drafts and returns the tokens that follow them.

        ``going`` are the places, in the batch before, of the rows that go on.
        """
        while going := self.grow(chosen):
            chosen = read(self.next_rows(), going)
        return self.drafts
