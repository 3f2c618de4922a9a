"""One way to make a projection, and the portable ones: ``make(weights, bias) -> callable``.

``weights`` are one or more matrices ``[outputs, inputs]`` that read the same inputs; they are fused, stacked along their outputs.  Each
faster kind is a function or a class like these, chosen in ``paths`` by what the machine can do; deleting one costs speed, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from workbench.models.llama import Linear

MakeLinear = Callable[[Sequence[Tensor], Tensor | None], Linear]


def plain(weights: Sequence[Tensor], bias: Tensor | None) -> Linear:
    """``torch.nn.functional.linear`` as it is: any device, any dtype."""
    weight = fused(weights)
    return lambda inputs: F.linear(inputs, weight, bias)


def onednn_prepacked(weights: Sequence[Tensor], bias: Tensor | None) -> Linear:
    """oneDNN with the weight laid out once as its kernels want it: about a third faster than ``plain`` for few rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(fused(weights).contiguous())
    run = torch.ops.mkldnn._linear_pointwise
    return lambda inputs: run(inputs, packed, bias, "none", [], "")


def widened(weights: Sequence[Tensor], bias: Tensor | None) -> Linear:
    """Weights kept as float32, for CPUs whose bf16 products are slower than reading twice the bytes; values stay bf16's."""
    return plain([fused(weights).float()], bias)


def by_rows(few: MakeLinear, many: MakeLinear, *, border: int) -> MakeLinear:
    """Float32 in and out: ``few`` for up to ``border`` rows, above it ``many`` in bf16, whose units need rows to work on.

    The weights are kept twice.
    """

    def make(weights: Sequence[Tensor], bias: Tensor | None) -> Linear:
        narrow = few(weights, bias)
        wide = many(weights, None if bias is None else bias.to(torch.bfloat16))
        return lambda inputs: narrow(inputs) if len(inputs) <= border else wide(inputs.to(torch.bfloat16)).float()

    return make


def fused(weights: Sequence[Tensor]) -> Tensor:
    """The matrices stacked along their outputs; a single one is not copied."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))
