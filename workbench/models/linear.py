"""One way to make a projection, and the portable ones: ``make(weight, bias) -> callable``.

Each faster kind is a function (or a small class) beside these, chosen in ``paths`` by what the CPU can do; deleting one costs speed, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from workbench.models.llama import Linear

MakeLinear = Callable[[Tensor, Tensor | None], Linear]


def plain(weight: Tensor, bias: Tensor | None) -> Linear:
    """``torch.nn.functional.linear`` as it is: any device, any dtype."""
    return lambda inputs: F.linear(inputs, weight, bias)


def onednn_prepacked(weight: Tensor, bias: Tensor | None) -> Linear:
    """oneDNN with the weight laid out once as its kernels want it: about a third faster than ``plain`` for few rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    run = torch.ops.mkldnn._linear_pointwise
    return lambda inputs: run(inputs, packed, bias, "none", [], "")


def widened(weight: Tensor, bias: Tensor | None) -> Linear:
    """Weights kept as float32, for CPUs whose bf16 products are slower than reading twice the bytes; values stay bf16's."""
    return plain(weight.float(), bias)
