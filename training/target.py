"""The target in plain batched torch: teacher forcing with taps, and one decode step of many slots.

It knows the Llama architecture and nothing of prompts, sampling or heads.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from training.decode_attention import Attend, masked_attention

MOST_POSITIONS = 2048  # of any sequence here
Read = Callable[..., Tensor]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama; ``from_folder`` reads those of a Hugging Face folder."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def from_folder(cls, folder: Path) -> Shape:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rope = raw.get("rope_parameters") or {}
        if raw["model_type"] != "llama" or raw.get("rope_scaling") or rope.get("rope_type", "default") != "default":
            raise SystemExit(f"{folder} is no Llama with plain RoPE: give the folder that `workbench models fetch` made")
        return cls(
            num_layers=raw["num_hidden_layers"],
            hidden_size=raw["hidden_size"],
            num_heads=raw["num_attention_heads"],
            num_kv_heads=raw["num_key_value_heads"],
            head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
            ffn_size=raw["intermediate_size"],
            vocab_size=raw["vocab_size"],
            rms_norm_eps=raw["rms_norm_eps"],
            rope_theta=float(rope.get("rope_theta") or raw["rope_theta"]),
        )


class Layer(NamedTuple):
    input_norm: Tensor
    qkv: Tensor
    output: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Cache(NamedTuple):
    """Keys and values of every layer, ``[slots, kv_heads, positions, head_dim]`` each."""

    keys: list[Tensor]
    values: list[Tensor]


class Target:
    """The weights, frozen."""

    def __init__(self, shape: Shape, embedding: Tensor, layers: list[Layer], norm: Tensor, head: Tensor) -> None:
        self.shape, self.embedding, self.layers, self.norm, self.head = shape, embedding, layers, norm, head
        self.device, self.dtype = embedding.device, embedding.dtype
        self.rotation = rotary(torch.arange(MOST_POSITIONS, device=self.device), shape.head_dim, shape.rope_theta)
        self.read: Read = self.read_layer

    def read_layer(self, input_norm: Tensor, qkv: Tensor, output: Tensor, ffn_norm: Tensor, gate_up: Tensor, down: Tensor,
                   hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # fmt: skip
        """One layer of whole sequences, ``hidden [batch, length, hidden]`` -> the same."""
        layer = Layer(input_norm, qkv, output, ffn_norm, gate_up, down)
        query, key, value = (t.transpose(1, 2) for t in self._qkv(layer, hidden, (cos, sin)))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
        return self._finish(layer, hidden, attended)

    @torch.no_grad()
    def compile(self) -> None:
        """Read layers by compiled code where the compiler works and agrees: what stands between the products costs as much as they do."""
        try:
            started, compiled, noise = time.monotonic(), torch.compile(self.read_layer), torch.Generator(self.device).manual_seed(0)
            for batch, length in ((3, 96), (5, 160), (2, 128)):  # the second shape has it compiled for all
                hidden = torch.randn(batch, length, self.shape.hidden_size, device=self.device, generator=noise).to(self.dtype)
                inputs = (*self.layers[1], hidden, self.rotation[0][:length], self.rotation[1][:length])
                ours, theirs = self.read_layer(*inputs).float(), compiled(*inputs).float()
                difference = ((ours - theirs).norm() / (ours - hidden.float()).norm()).item()
                if difference > 0.02:
                    print(f"layers run eagerly, as compiled ones differ by {difference:.1e}", flush=True)
                    return
            self.read = compiled
            print(f"layers compiled in {time.monotonic() - started:.1f} s (relative difference {difference:.1e})", flush=True)
        except Exception as error:
            print(f"layers run eagerly, as compiling failed ({type(error).__name__})", flush=True)

    def forward(self, tokens: Tensor, taps: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """``tokens [batch, length]`` -> the residual after each of the layers ``taps``, ``[batch, length, len(taps), hidden]``, and
        the final norm's output, ``[batch, length, hidden]``.  Rows are padded on the right, where causality hides them."""
        cos, sin = self.rotation[0][: tokens.shape[1]], self.rotation[1][: tokens.shape[1]]
        hidden, kept = functional.embedding(tokens, self.embedding), {}
        for index, layer in enumerate(self.layers):
            hidden = self.read(*layer, hidden, cos, sin)
            if index in taps:
                kept[index] = hidden
        return torch.stack([kept[index] for index in taps], dim=2), self._norm(hidden, self.norm)

    def new_cache(self, slots: int, positions: int) -> Cache:
        size = (slots, self.shape.num_kv_heads, positions, self.shape.head_dim)

        def empty() -> list[Tensor]:
            return [torch.zeros(size, dtype=self.dtype, device=self.device) for _ in self.layers]

        return Cache(empty(), empty())

    def decode(self, tokens: Tensor, positions: Tensor, cache: Cache, attend: Attend = masked_attention) -> Tensor:
        """One token of each slot, written to the cache at the slot's position; returns float32 logits ``[slots, vocab]``."""
        rotation = self.rotation[0][positions, None], self.rotation[1][positions, None]
        slots = torch.arange(len(tokens), device=self.device)
        hidden = functional.embedding(tokens, self.embedding)[:, None]
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            query, key, value = self._qkv(layer, hidden, rotation)
            keys[slots, :, positions] = key[:, 0]
            values[slots, :, positions] = value[:, 0]
            hidden = self._finish(layer, hidden, attend(query[:, 0].contiguous(), keys, values, positions + 1)[:, None])
        return wide_logits(self._norm(hidden[:, 0], self.norm), self.head)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, weight.shape, weight, self.shape.rms_norm_eps)

    def _qkv(self, layer: Layer, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        shape = self.shape
        mixed = functional.linear(self._norm(hidden, layer.input_norm), layer.qkv).unflatten(-1, (-1, shape.head_dim))
        query, key, value = mixed.split([shape.num_heads, shape.num_kv_heads, shape.num_kv_heads], dim=2)
        return rotate(query, rotation), rotate(key, rotation), value

    def _finish(self, layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
        hidden = hidden + functional.linear(attended.flatten(2), layer.output)
        gate, up = functional.linear(self._norm(hidden, layer.ffn_norm), layer.gate_up).chunk(2, dim=-1)
        return hidden + functional.linear(functional.silu(gate) * up, layer.down)


def wide_logits(x: Tensor, rows: Tensor) -> Tensor:
    """``x @ rows.T`` in float32 also of bf16 factors: rounded to bf16, logits would tie."""
    if x.is_cuda and x.dtype != torch.float32 and _can_widen():
        return torch.mm(x, rows.T, out_dtype=torch.float32)
    return (x @ rows.T).float()


@functools.cache
def _can_widen() -> bool:
    try:
        ones = torch.ones(16, 16, device="cuda", dtype=torch.bfloat16)
        return torch.mm(ones, ones, out_dtype=torch.float32).sum().item() == 16**3
    except Exception as error:
        print(f"logits are rounded to bf16, as torch.mm cannot widen ({type(error).__name__})", flush=True)
        return False


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[..., 1, head_dim]`` in float32 of the positions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[..., None].float() * (1.0 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)[..., None, :]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn ``x [..., heads, head_dim]``, halves paired as in Hugging Face's Llama."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def load_target(folder: Path, device: torch.device, dtype: torch.dtype) -> Target:
    """The target of a folder in Hugging Face layout."""
    shape, weights = Shape.from_folder(folder), {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(file))
    if not weights:
        raise SystemExit(f"{folder} holds no safetensors: give the folder that `workbench models fetch` made")
    return from_weights(shape, weights, device, dtype)


def from_weights(shape: Shape, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> Target:
    """A target from tensors under Hugging Face's names."""

    def get(*names: str) -> Tensor:
        return torch.cat([weights[f"{name}.weight"] for name in names]).to(device, dtype)

    def layer(index: int) -> Layer:
        at, mlp = f"model.layers.{index}.self_attn", f"model.layers.{index}.mlp"
        return Layer(
            get(f"model.layers.{index}.input_layernorm"),
            get(f"{at}.q_proj", f"{at}.k_proj", f"{at}.v_proj"),
            get(f"{at}.o_proj"),
            get(f"model.layers.{index}.post_attention_layernorm"),
            get(f"{mlp}.gate_proj", f"{mlp}.up_proj"),
            get(f"{mlp}.down_proj"),
        )

    embedding = get("model.embed_tokens")
    head = get("lm_head") if "lm_head.weight" in weights else embedding
    return Target(shape, embedding, [layer(index) for index in range(shape.num_layers)], get("model.norm"), head)
