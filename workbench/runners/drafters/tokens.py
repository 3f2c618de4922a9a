"""``TokenDrafter``: a proposer that sees tokens alone, in the place of one that runs a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from workbench.runners.drafters.base import Stepped
from workbench.runners.drafting import Grown, from_tokens
from workbench.speculative.proposer import Proposer, Remembers


class TokenDrafter:
    """Asks ``proposer``; keeps nothing in the blocks."""

    taps: tuple[int, ...] = ()
    kv_bytes_per_token = 0
    reads_every_step = False

    def __init__(self, proposer: Proposer) -> None:
        self.proposer = proposer
        self.kv: list[Tensor] = []

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """What the proposer says."""
        return from_tokens(self.proposer, rows)

    def on(self, num_blocks: int, block_size: int) -> Self:
        """A drafter whose memory of finished answers, if it has one, is its own from here on."""
        return type(self)(self.proposer.copy() if isinstance(self.proposer, Remembers) else self.proposer)
