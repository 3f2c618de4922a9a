"""KV blocks as tensors: how a layer's pool is made, and how the contents of blocks are taken out and put back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

NULL_BLOCKS = 1  # block 0 is never given out: it pads block tables


def empty_blocks(num_blocks: int, block_size: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One layer's pool, ``[2, num_blocks + 1, block_size, kv_heads, head_dim]``, keys then values, all zero.

    Pages of a CPU's pool cost time and memory only when they are first used (torch would write them all now).
    """
    shape = (2, num_blocks + NULL_BLOCKS, block_size, kv_heads, head_dim)
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


class SavedKv:
    """What some blocks held: for each pool of ``[layers, 2, …]`` alike in shape, one tensor on the CPU."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return sum(part.nbytes for part in self.parts)


def read_blocks(layers: Sequence[Tensor], block_ids: Sequence[int]) -> Tensor:
    """A copy of these blocks of ``layers``, which are alike: ``[layers, 2, len(block_ids), block_size, kv_heads, head_dim]``."""
    first = layers[0]
    rows = torch.tensor(block_ids, dtype=torch.long, device=first.device)
    saved = torch.empty((len(layers), 2, len(block_ids), *first.shape[2:]), dtype=first.dtype)
    for layer, content in zip(layers, saved, strict=True):
        content.copy_(layer.index_select(1, rows))
    return saved


def write_blocks(layers: Sequence[Tensor], block_ids: Sequence[int], saved: Tensor, rows: Sequence[int] | None = None) -> None:
    """Make ``block_ids`` of ``layers`` hold what :func:`read_blocks` returned, or those ``rows`` of its third axis."""
    device = layers[0].device
    places = torch.tensor(block_ids, dtype=torch.long, device=device)
    chosen = saved if rows is None else saved[:, :, torch.tensor(rows, dtype=torch.long)]
    for layer, content in zip(layers, chosen.to(device), strict=True):
        layer.index_copy_(1, places, content)
