"""What a drafter of a torch runner is, and how one token after the other is drafted in the blocks of the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

from torch import Tensor

from workbench.models.batch import FlatBatch, flatten
from workbench.runners.drafting import Grown


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
    """

    def __init__(self, rows: Sequence[Grown], first: Sequence[int], block_size: int) -> None:
        self.rows, self.first, self.block_size = rows, first, block_size
        self.drafts: list[list[int]] = [[] for _ in rows]

    def grow(self, living: Sequence[int], token_ids: Sequence[int]) -> list[int]:
        """Take one more draft for each row in ``living``; returns those that go on, as places in ``living``."""
        going = []
        for place, (index, token) in enumerate(zip(living, token_ids, strict=True)):
            self.drafts[index].append(token)
            if len(self.drafts[index]) <= most_passes(self.rows[index], self.first[index], self.block_size):
                going.append(place)
        return going

    def next_rows(self, living: Sequence[int]) -> FlatBatch:
        """The newest draft of each row in ``living``, to be read next."""
        rows = []
        for index in living:
            drafts, position = self.drafts[index], self.first[index] + len(self.drafts[index])
            rows.append(DraftRow(position, position + 1, drafts[-1:], self.rows[index].row.block_ids))
        return batch_of(rows, self.block_size, [True] * len(rows))

    def run(self, living: list[int], token_ids: Sequence[int], read: Callable[[FlatBatch, list[int]], Sequence[int]]) -> list[list[int]]:
        """Grow all chains to their ends; ``read(batch, going)`` reads the newest drafts and returns the tokens that follow them.

        ``going`` are the places, in the batch before, of the rows that go on.
        """
        while going := self.grow(living, token_ids):
            living = [living[place] for place in going]
            token_ids = read(self.next_rows(living), going)
        return self.drafts
