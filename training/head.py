"""The draft head: one decoder layer over the target's tapped features, trained on its own chains.

The idea is that of EAGLE (arXiv 2401.15077) and EAGLE-3 (arXiv 2503.01840: features of several layers, training-time test).  At
position ``t`` the head sees the target's features of ``t`` and the token at ``t + 1``, and predicts the token at ``t + 2``.  Pass 0 of
training does so from real features everywhere; pass ``j`` goes on from what pass ``j - 1`` put out at the same origin, one token
later.  What such a chain attends to is what the head's KV cache will hold at inference:

    origin t, pass j:   real keys of positions 0 .. t   |   the chain's own keys of passes 1 .. j, at positions t + 1 .. t + j
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.target import MOST_POSITIONS, Shape, Target, rotary, rotate
from workbench.models.quantised import Int8

MATRICES = ("fc", "qkv", "output", "gate_up", "down")
OWN_COLUMNS = 8  # 16 bytes of bf16


class Head(nn.Module):
    """Float32 master weights under the names of the exported file; ``weights`` casts them for one step."""

    def __init__(self, shape: Shape, num_taps: int, ffn_size: int, final_norm: Tensor, seed: int) -> None:
        super().__init__()
        self.shape, self.num_taps = shape, num_taps
        hidden, heads, device = shape.hidden_size, shape.num_heads, final_norm.device
        generator = torch.Generator().manual_seed(seed)

        def matrix(rows: int, columns: int, scale: float = 1.0) -> nn.Parameter:
            return nn.Parameter((torch.randn(rows, columns, generator=generator) * scale * columns**-0.5).to(device))

        def ones(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.ones(size, device=device))

        self.tap_norm = ones(num_taps, hidden)
        self.fc = matrix(hidden, num_taps * hidden)
        self.embed_norm, self.feature_norm = ones(hidden), ones(hidden)
        self.qkv = matrix((heads + 2 * shape.num_kv_heads) * shape.head_dim, 2 * hidden)
        self.output = matrix(hidden, heads * shape.head_dim, 0.5)
        self.ffn_norm = ones(hidden)
        self.gate_up = matrix(2 * ffn_size, hidden)
        self.down = matrix(hidden, ffn_size, 0.5)
        self.norm = nn.Parameter(final_norm.float().clone())
        self.rotation = rotary(torch.arange(MOST_POSITIONS, device=device), shape.head_dim, shape.rope_theta)

    def weights(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {name: parameter.to(dtype) for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def round_(self) -> None:
        """Give every matrix the values that it has in the exported file, which keeps it in int8."""
        for name in MATRICES:
            weight = self.get_parameter(name)
            weight.copy_(Int8.of(weight).values())

    @torch.no_grad()
    def go_on_from_(self, weights: dict[str, Tensor], taps: tuple[int, ...], own_taps: tuple[int, ...]) -> None:
        """Take the weights of a head with the features ``taps`` and a feed-forward layer that is no wider than this one's.

        What is new here puts out nothing at first, so this head begins by saying what that one said.
        """
        hidden, width = self.shape.hidden_size, weights["down"].shape[1]
        if not set(taps) <= set(own_taps) or width > self.down.shape[1]:
            mine = f"{own_taps} and {self.down.shape[1]}"
            raise SystemExit(f"a head with features {taps} and {width} inner values does not fit into one with {mine}")
        for name in ("embed_norm", "feature_norm", "qkv", "output", "ffn_norm", "norm"):
            self.get_parameter(name).copy_(weights[name])
        self.fc.zero_()
        for index, tap in enumerate(taps):
            at = own_taps.index(tap)
            self.tap_norm[at] = weights["tap_norm"][index]
            self.fc[:, at * hidden : (at + 1) * hidden] = weights["fc"][:, index * hidden : (index + 1) * hidden]
        self.gate_up.unflatten(0, (2, -1))[:, :width] = weights["gate_up"].unflatten(0, (2, -1)).to(self.gate_up.device)
        self.down.zero_()
        self.down[:, :width] = weights["down"]

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass
class Chain:
    """What the passes of one batch share: the real keys and values, and those of the chain's own passes so far."""

    keys: Tensor | None = None
    values: Tensor | None = None
    own_keys: list[Tensor] = field(default_factory=list)
    own_values: list[Tensor] = field(default_factory=list)


class Drafter:
    """The head with its weights cast for one step; ``features`` once, then ``advance`` for each pass."""

    def __init__(self, head: Head, target: Target, dtype: torch.dtype) -> None:
        self.head, self.target, self.shape, self.w = head, target, head.shape, head.weights(dtype)
        self.chain = Chain()

    def features(self, taps: Tensor) -> Tensor:
        """``taps [batch, length, num_taps, hidden]`` -> ``[batch, length, hidden]``."""
        normed = functional.rms_norm(taps, taps.shape[-1:], None, self.shape.rms_norm_eps) * self.w["tap_norm"]
        return functional.linear(normed.flatten(2), self.w["fc"])

    def advance(self, tokens: Tensor, feature: Tensor) -> Tensor:
        """One pass: ``tokens [batch, length]`` stand one after the positions of ``feature``; returns the output before the final norm."""
        shape, w = self.shape, self.w
        embedded = functional.embedding(tokens, self.target.embedding).to(feature.dtype)
        both = torch.cat([self._norm(embedded, "embed_norm"), self._norm(feature, "feature_norm")], dim=-1)
        mixed = functional.linear(both, w["qkv"]).unflatten(-1, (-1, shape.head_dim))
        query, key, value = mixed.split([shape.num_heads, shape.num_kv_heads, shape.num_kv_heads], dim=2)
        first = 0 if self.chain.keys is None else 1 + len(self.chain.own_keys)
        cos, sin = (table[first : first + tokens.shape[1]] for table in self.head.rotation)
        query, key = rotate(query, (cos, sin)), rotate(key, (cos, sin))
        hidden = feature + functional.linear(attend_chain(query, key, value, self.chain).flatten(2), w["output"])
        gate, up = functional.linear(self._norm(hidden, "ffn_norm"), w["gate_up"]).chunk(2, dim=-1)
        return hidden + functional.linear(functional.silu(gate) * up, w["down"])

    def normed(self, hidden: Tensor) -> Tensor:
        """What the draft logits are read from."""
        return self._norm(hidden, "norm")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], self.w[name], self.shape.rms_norm_eps)


def attend_chain(query: Tensor, key: Tensor, value: Tensor, chain: Chain) -> Tensor:
    """Attention of one pass, ``[batch, length, heads, d]``; adds the pass's keys and values to ``chain``.

    Scores against the real keys are a causal matrix; those against the chain's own keys are one number each, as an origin sees only its
    own chain.  One softmax goes over both.  Its rows are what training moves most of, so they are written as seldom as can be, and are
    ``OWN_COLUMNS`` longer than there are real keys: a row whose length is odd multiplies slowly.
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    if chain.keys is None:
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        chain.keys, chain.values = key, value
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
    query, key, value = (t.transpose(1, 2) for t in (query * head_dim**-0.5, key, value))
    chain.own_keys.append(key)
    chain.own_values.append(value)
    query = query.reshape(batch, kv_heads, heads // kv_heads, length, head_dim)
    hidden = torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device).triu_(1)
    real = (query.flatten(2, 3) @ chain.keys.transpose(2, 3)).view(*query.shape[:4], length).add_(hidden)
    own = [(query * own_key[:, :, None]).sum(-1, keepdim=True, dtype=torch.float32).to(query.dtype) for own_key in chain.own_keys]
    unused = query.new_full((*query.shape[:4], -len(own) % OWN_COLUMNS), float("-inf"))
    weights = torch.cat([real, *own, unused], dim=-1).softmax(dim=-1)
    mixed = (weights[..., :length].flatten(2, 3) @ chain.values).view_as(query)
    for index, own_value in enumerate(chain.own_values):
        mixed = mixed + weights[..., length + index, None] * own_value[:, :, None]
    return mixed.reshape(batch, heads, length, head_dim).transpose(1, 2)


def shifted(tokens: Tensor, by: int) -> Tensor:
    """``out[:, t] = tokens[:, t + by]``; what would lie beyond the end repeats the last column, where nothing is counted."""
    column = torch.arange(by, by + tokens.shape[1], device=tokens.device).clamp_(max=tokens.shape[1] - 1)
    return tokens[:, column]
