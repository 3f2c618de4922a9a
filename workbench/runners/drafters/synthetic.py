"""``SyntheticDrafter``: drafts that turn out right at a chosen rate; see :mod:`workbench.speculative.synthetic`.

The oracle is the target itself, run ahead with each request's own way of choosing tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from workbench.models.llama import Llama
from workbench.runners.drafters.base import Stepped, as_asked
from workbench.runners.drafters.own import OwnDrafter
from workbench.runners.drafting import Grown
from workbench.speculative.synthetic import corrupt


class SyntheticDrafter:
    """The target's own next tokens, each made wrong unless its coin says otherwise (``rate``: 0 … 1)."""

    taps: tuple[int, ...] = ()
    kv_bytes_per_token = 0
    reads_every_step = False

    def __init__(self, rate: float, target: Llama) -> None:
        self.rate, self.target = rate, target
        self.kv: list[Tensor] = []
        self._oracle = OwnDrafter(target, as_asked)

    def on(self, num_blocks: int, block_size: int) -> Self:
        """The same: it keeps nothing."""
        return type(self)(self.rate, self.target)

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """The oracle's tokens, some of them made wrong."""
        right, size = self._oracle.draft(rows, after), self.target.config.vocab_size
        return [corrupt(drafts, row.wanted.seed, row.num_output, self.rate, size) for row, drafts in zip(rows, right, strict=True)]
