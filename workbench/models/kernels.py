"""The few operations a forward pass is made of, in plain torch: the portable path, and the reference for every faster one.

``TorchKernels`` runs on any device and dtype.  ``NativeKernels`` (in ``native``) offers the same methods compiled for the CPU at hand.
The residual stream is updated in place by both.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from workbench.models.batch import FlatBatch
from workbench.models.config import ModelConfig


class Step(Protocol):
    """What the forward pass itself reads of a prepared step; the rest is the kernels' own."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def logits_rows(self) -> Tensor: ...


S = TypeVar("S", bound=Step)


class Kernels(Protocol[S]):
    """What a forward pass asks of an execution path; ``prepare`` is called once a step, the rest once or twice a layer."""

    def prepare(self, batch: FlatBatch, config: ModelConfig) -> S:
        """Bring the batch to the device, with all that the layers share."""
        ...

    def add_rms_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add ``delta`` to ``hidden`` in place, then return its RMS norm; both ``[tokens, hidden]``."""
        ...

    def attend(self, qkv: Tensor, norms: tuple[Tensor, Tensor] | None, rotate: bool, kv: Tensor, step: S) -> Tensor:
        """Normalise and rotate queries and keys, store keys and values in ``kv``, return attention ``[tokens, heads * head_dim]``."""
        ...

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """``silu(gate) * up`` of ``[tokens, 2 * ffn]``."""
        ...


class Group(NamedTuple):
    """Rows with the same number of new tokens and a similar number of blocks, attended in one call.

    ``tokens``: their token indices ``[rows * new]``; ``blocks``: padded block table ``[rows * width]`` (block 0 pads); ``mask``: additive,
    ``[rows, 1, new, width * block_size]``.
    """

    rows: int
    new: int
    tokens: Tensor
    blocks: Tensor
    mask: Tensor


class StepTensors(NamedTuple):
    """A batch on the device, with what all layers share.  ``cos``, ``sin``: ``[tokens, 1, head_dim / 2]``."""

    config: ModelConfig
    input_ids: Tensor
    slots: Tensor
    cos: Tensor
    sin: Tensor
    logits_rows: Tensor
    groups: tuple[Group, ...]


class TorchKernels:
    """Plain torch operations; attention is batched over rows of equal length and similar context."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._inv_freq: dict[tuple[float, ...], Tensor] = {}

    def prepare(self, batch: FlatBatch, config: ModelConfig) -> StepTensors:
        if config.rope_inv_freq not in self._inv_freq:
            self._inv_freq[config.rope_inv_freq] = torch.tensor(config.rope_inv_freq, device=self.device)
        angles = self._put(batch.position_ids).float()[:, None, None] * self._inv_freq[config.rope_inv_freq]
        return StepTensors(
            config=config,
            input_ids=self._put(batch.input_ids),
            slots=self._put(batch.slots),
            cos=(angles.cos() * config.rope_scaling).to(self.dtype),
            sin=(angles.sin() * config.rope_scaling).to(self.dtype),
            logits_rows=self._put(batch.logits_rows),
            groups=tuple(self._group(batch, rows) for rows in similar_rows(batch)),
        )

    def _put(self, array: np.ndarray) -> Tensor:  # type: ignore[type-arg]
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def _group(self, batch: FlatBatch, rows: list[int]) -> Group:
        begins, blocks = batch.subsequence_begins, batch.block_indices_begins
        new = int(begins[rows[0] + 1] - begins[rows[0]])
        width = int(max(blocks[row + 1] - blocks[row] for row in rows))
        table = np.zeros((len(rows), width), np.int64)
        for at, row in enumerate(rows):
            table[at, : blocks[row + 1] - blocks[row]] = batch.block_indices[blocks[row] : blocks[row + 1]]
        tokens = begins[rows][:, None] + np.arange(new)
        visible = np.arange(width * batch.block_size) <= batch.position_ids[tokens][:, :, None]
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=self.device).masked_fill_(~self._put(visible), float("-inf"))
        return Group(len(rows), new, self._put(tokens.reshape(-1)), self._put(table.reshape(-1)), mask[:, None])

    def add_rms_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        if delta is not None:
            hidden.add_(delta)
        return F.rms_norm(hidden, weight.shape, weight, eps)

    def attend(self, qkv: Tensor, norms: tuple[Tensor, Tensor] | None, rotate: bool, kv: Tensor, step: StepTensors) -> Tensor:
        heads, kv_heads, dim = step.config.num_heads, step.config.num_kv_heads, step.config.head_dim
        tokens = len(qkv)
        query, key, value = qkv.view(tokens, -1, dim).split((heads, kv_heads, kv_heads), 1)
        if norms is not None:
            eps = step.config.rms_norm_eps
            query, key = F.rms_norm(query, (dim,), norms[0], eps), F.rms_norm(key, (dim,), norms[1], eps)
        if rotate:
            query, key = _rotated(query, step), _rotated(key, step)
        flat = kv.view(2, -1, kv_heads, dim)
        flat[0].index_copy_(0, step.slots, key.to(kv.dtype))
        flat[1].index_copy_(0, step.slots, value.to(kv.dtype))
        if len(step.groups) == 1:
            return self._attend_group(query, kv, step.groups[0]).reshape(tokens, -1)
        out = query.new_empty(tokens, heads, dim)
        for group in step.groups:
            out.index_copy_(0, group.tokens, self._attend_group(query.index_select(0, group.tokens), kv, group))
        return out.view(tokens, -1)

    def _attend_group(self, query: Tensor, kv: Tensor, group: Group) -> Tensor:
        """Attention of one group: ``query`` is ``[rows * new, heads, dim]``; keys are gathered whole blocks at a time."""
        kv_heads, dim = kv.shape[3:]
        shared = query.shape[1] // kv_heads
        key, value = (side.index_select(0, group.blocks).view(group.rows, -1, kv_heads, dim).transpose(1, 2).to(self.dtype) for side in kv)
        # Query heads that share a KV head are folded into the token axis, so no key is repeated.
        folded = query.view(group.rows, group.new, kv_heads, shared, dim).permute(0, 2, 3, 1, 4).reshape(group.rows, kv_heads, -1, dim)
        mask = group.mask if shared == 1 else group.mask.repeat(1, 1, shared, 1)
        out = F.scaled_dot_product_attention(folded, key, value, mask)
        return out.view(group.rows, kv_heads, shared, group.new, dim).permute(0, 3, 1, 2, 4).reshape(query.shape)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)


def _rotated(heads: Tensor, step: StepTensors) -> Tensor:
    """RoPE in Hugging Face's order: dimension ``i`` turns together with ``i + head_dim / 2``."""
    first, second = heads.chunk(2, -1)
    return torch.cat((first * step.cos - second * step.sin, second * step.cos + first * step.sin), -1)


def similar_rows(batch: FlatBatch) -> list[list[int]]:
    """Rows grouped by number of new tokens and, within a factor of two, by context: padding at most doubles the work."""
    new = np.diff(batch.subsequence_begins)
    width_class = np.ceil(np.log2(np.diff(batch.block_indices_begins))).astype(np.int64)
    groups: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(new.tolist(), width_class.tolist(), strict=True)):
        groups.setdefault(key, []).append(row)
    return list(groups.values())
