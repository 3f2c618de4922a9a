"""``FlatBatch``: one step's rows of all requests, flattened to the arrays that paged attention wants.

    requests        r1 (decode)   r2 (prefill chunk)         r3 (decode)
    tokens          [0]           [1   2   3   4   5]        [6]            one axis of num_tokens, no padding
    subsequence_begins   0         1                    6      7
    past_lens            41        32                   9                   tokens already in the KV cache, per row

The names are those of compiled paged-attention graphs (see ``StepPlan``), so another backend can take the same arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class BatchRow(Protocol):
    """What is read of a row: the positions ``[start, end)``, their tokens, and the blocks that have slots for them."""

    @property
    def start(self) -> int:
        """First position."""
        ...

    @property
    def end(self) -> int:
        """One past the last position."""
        ...

    @property
    def input_ids(self) -> Sequence[int]:
        """Tokens to read."""
        ...

    @property
    def block_ids(self) -> Sequence[int]:
        """The block table."""
        ...



class FlatBatch(NamedTuple):
    """The rows of one step.  All arrays are int64.

    ``input_ids``, ``position_ids``, ``slots``: ``[num_tokens]``; ``slots`` is where a token's key and value go, counted in tokens
    over the whole pool (``block_id * block_size + offset``).  ``past_lens``: ``[rows]``.  ``subsequence_begins``, ``block_indices_begins``:
    ``[rows + 1]``, half-open ranges into the token axis and into ``block_indices``.  ``logits_rows``: token indices that need logits.
    """

    input_ids: Ints
    position_ids: Ints
    slots: Ints
    past_lens: Ints
    subsequence_begins: Ints
    block_indices: Ints
    block_indices_begins: Ints
    logits_rows: Ints
    block_size: int

    @property
    def num_rows(self) -> int:
        """Requests in the batch."""
        return len(self.past_lens)


def flatten(rows: Sequence[BatchRow], block_size: int, scored: Sequence[int]) -> FlatBatch:
    """Flatten plan rows; ``scored[i]`` is how many of row ``i``'s last tokens need logits.

    A row's drafts may hold ``-1`` (padding, never accepted): the model reads token 0 there.
    """
    lengths = np.fromiter((row.end - row.start for row in rows), np.int64, len(rows))
    past_lens = np.fromiter((row.start for row in rows), np.int64, len(rows))
    begins = _begins(lengths)
    input_ids = np.maximum(np.fromiter((token for row in rows for token in row.input_ids), np.int64, begins[-1]), 0)
    position_ids = np.arange(begins[-1]) + np.repeat(past_lens - begins[:-1], lengths)

    num_blocks = -(-(past_lens + lengths) // block_size)
    block_begins = _begins(num_blocks)
    block_indices = np.fromiter(
        (block for row, used in zip(rows, num_blocks.tolist(), strict=True) for block in row.block_ids[:used]), np.int64, block_begins[-1]
    )
    own_block = np.repeat(block_begins[:-1], lengths) + position_ids // block_size
    slots = block_indices[own_block] * block_size + position_ids % block_size
    spans = [np.arange(end - count, end) for end, count in zip(begins[1:].tolist(), scored, strict=True)]
    logits_rows = np.concatenate(spans) if spans else np.empty(0, np.int64)
    return FlatBatch(input_ids, position_ids, slots, past_lens, begins, block_indices, block_begins, logits_rows, block_size)


def _begins(lengths: Ints) -> Ints:
    begins = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=begins[1:])
    return begins
