"""Attention of one new query per slot over that slot's cached keys, each slot with a length of its own.

``masked_attention`` is plain torch and reads the whole cache; the Triton kernel reads only what is there.  ``best_attention``
tries the kernel against plain torch on the device at hand and takes it if it agrees.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
BLOCK = 64


def masked_attention(query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
    """``query [slots, heads, d]``, ``keys`` and ``values [slots, kv_heads, positions, d]``, ``lengths [slots]`` -> ``[slots, heads, d]``.

    The query heads that share a kv head are treated as queries of one head, so that no key is read twice.
    """
    slots, heads, head_dim = query.shape
    kv_heads, positions = keys.shape[1:3]
    mask = (torch.arange(positions, device=query.device) < lengths[:, None])[:, None, None]
    grouped = query.view(slots, kv_heads, heads // kv_heads, head_dim)
    mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(~mask, float("-inf"))
    mask = mask.expand(slots, kv_heads, heads // kv_heads, positions)
    return functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).reshape(slots, heads, head_dim)


if triton is not None:

    @triton.jit
    def _attend(
        query, keys, values, out, lengths, scale, positions,
        kv_heads: tl.constexpr, group: tl.constexpr, rows: tl.constexpr, head_dim: tl.constexpr, block: tl.constexpr,
    ):  # fmt: skip
        """One kv head of one slot: softmax over blocks of keys with a running maximum."""
        slot, kv_head = tl.program_id(0), tl.program_id(1)
        length = tl.load(lengths + slot).to(tl.int32)
        row, column, step = tl.arange(0, rows), tl.arange(0, head_dim), tl.arange(0, block)
        at = ((slot * kv_heads + kv_head) * group + row)[:, None] * head_dim + column[None, :]
        q = tl.load(query + at, mask=row[:, None] < group, other=0.0)
        start = (slot * kv_heads + kv_head).to(tl.int64) * positions * head_dim
        top = tl.full([rows], -1.0e30, tl.float32)
        total = tl.zeros([rows], tl.float32)
        mixed = tl.zeros([rows, head_dim], tl.float32)
        for first in range(0, length, block):
            here = first + step
            at_keys = start + here[:, None] * head_dim + column[None, :]
            k = tl.load(keys + at_keys, mask=here[:, None] < length, other=0.0)
            v = tl.load(values + at_keys, mask=here[:, None] < length, other=0.0)
            scores = tl.dot(q, tl.trans(k)).to(tl.float32) * scale
            scores = tl.where(here[None, :] < length, scores, -1.0e30)
            new_top = tl.maximum(top, tl.max(scores, 1))
            weights = tl.exp(scores - new_top[:, None])
            fade = tl.exp(top - new_top)
            total = total * fade + tl.sum(weights, 1)
            mixed = mixed * fade[:, None] + tl.dot(weights.to(v.dtype), v).to(tl.float32)
            top = new_top
        mixed = mixed / total[:, None]
        tl.store(out + at, mixed.to(out.dtype.element_ty), mask=row[:, None] < group)


def triton_attention(query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
    """The same as :func:`masked_attention`; all tensors contiguous."""
    slots, heads, head_dim = query.shape
    kv_heads, positions = keys.shape[1:3]
    out = torch.empty_like(query)
    _attend[(slots, kv_heads)](
        query, keys, values, out, lengths, head_dim**-0.5, positions,
        kv_heads=kv_heads, group=heads // kv_heads, rows=16, head_dim=head_dim, block=BLOCK,
    )  # fmt: skip
    return out


def best_attention(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int) -> Attend:
    """The Triton kernel where it works and agrees with plain torch, else plain torch; says which."""
    if device.type != "cuda" or triton is None:
        return masked_attention
    try:
        noise = torch.Generator(device).manual_seed(0)
        query = torch.randn(6, heads, head_dim, device=device, dtype=dtype, generator=noise)
        keys, values = (torch.randn(6, kv_heads, 200, head_dim, device=device, dtype=dtype, generator=noise) for _ in range(2))
        lengths = torch.tensor([1, 63, 64, 65, 128, 200], device=device)
        difference = (triton_attention(query, keys, values, lengths) - masked_attention(query, keys, values, lengths)).abs().max().item()
        if difference < 0.03:
            print(f"decode attention: Triton (largest difference {difference:.4f})", flush=True)
            return triton_attention
        print(f"decode attention: plain torch, as Triton's differs by {difference:.4f}", flush=True)
    except Exception as error:
        print(f"decode attention: plain torch, as Triton failed ({type(error).__name__}: {error})", flush=True)
    return masked_attention
