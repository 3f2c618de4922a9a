"""Our forward pass of the Llama family: one flat batch of all rows of all requests, keys and values in paged blocks.

    input_ids ─► embed ─►( norm ─► qkv ─► attend ─► out ─► + ─► norm ─► gate_up ─► silu·mul ─► down ─► + )× layers ─► norm ─► head

Everything but ``attend`` treats tokens alike, whoever they belong to; only ``attend`` reads the block tables.  The operations come
from a ``Kernels`` object and the projections are callables, so a faster path replaces them without touching this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.models.batch import FlatBatch
from workbench.models.config import ModelConfig
from workbench.models.kernels import Kernels

Linear = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """The weights of one decoder layer; ``qkv`` and ``gate_up`` are fused projections."""

    input_norm: Tensor
    qkv: Linear
    qk_norms: tuple[Tensor, Tensor] | None
    rotate: bool
    output: Linear
    ffn_norm: Tensor
    gate_up: Linear
    down: Linear


class Llama:
    """A Llama-family model: its weights, and nothing of any request."""

    def __init__(
        self, config: ModelConfig, kernels: Kernels[Any], embedding: Tensor, layers: Sequence[Layer], norm: Tensor, head: Linear
    ) -> None:
        self.config, self.kernels = config, kernels
        self.embedding, self.layers, self.norm, self.head = embedding, layers, norm, head

    def __call__(self, batch: FlatBatch, kv: Sequence[Tensor], taps: Mapping[int, Tensor] | None = None) -> Tensor:
        """Run one step; returns float32 logits ``[len(batch.logits_rows), vocab]``.

        ``kv[i]``: layer ``i``'s pool ``[2, num_blocks + 1, block_size, kv_heads, head_dim]``, keys then values; this step's are written.
        ``taps``: for some layers, where to put the residual stream ``[tokens, hidden]`` that leaves them.
        """
        kernels, eps = self.kernels, self.config.rms_norm_eps
        step = kernels.prepare(batch, self.config)
        hidden = self.embedding.index_select(0, step.input_ids).to(self.norm.dtype)
        delta: Tensor | None = None
        for index, (layer, cache) in enumerate(zip(self.layers, kv, strict=True)):
            normed = kernels.add_rms_norm(hidden, delta, layer.input_norm, eps)
            delta = layer.output(kernels.attend(layer.qkv(normed), layer.qk_norms, layer.rotate, cache, step))
            normed = kernels.add_rms_norm(hidden, delta, layer.ffn_norm, eps)
            delta = layer.down(kernels.silu_mul(layer.gate_up(normed)))
            if taps is not None and index in taps:
                torch.add(hidden, delta, out=taps[index])
        if not len(batch.logits_rows):
            return hidden.new_empty((0, self.config.vocab_size), dtype=torch.float32)
        assert delta is not None
        chosen = hidden.index_select(0, step.logits_rows)
        return self.head(kernels.add_rms_norm(chosen, delta.index_select(0, step.logits_rows), self.norm, eps)).float()
