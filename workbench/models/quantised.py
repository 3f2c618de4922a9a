"""A target with rounded projections, to draft for itself: ``draft:int8`` and ``draft:int4``.

Only the layers' projections are rounded.  Norms, embedding and LM head are the target's own tensors and take no memory twice.
Rounding starts from the checkpoint, whose file is read again.

========  ===================================================================================  ==================
name      rounding                                                                             bytes as rounded
========  ===================================================================================  ==================
``int8``  symmetric, one scale for each output: ``q * scale``, q from -127 to 127              1
``int4``  groups of 32 inputs, scale and middle: ``(q - 8) * scale + middle``, q from 0 to 15  0.625
========  ===================================================================================  ==================

How they run depends on the target's path:

* On compiled kernels int8 weights are read as they are: for SmolLM2-135M, whose projections have 106 million weights, that takes 106 MB
  beside the target.
* Where the target runs on torch's float32 arithmetic, on x86 with AVX2 or AVX-512, ``_weight_int8pack_mm`` and
  ``_weight_int4pack_mm_for_cpu`` read the rounded weights as they are (106 MB or 66 MB).  They get bf16 activations, as torch has only
  scalar code for others.
* Everywhere else (int4 on compiled kernels, bf16 units without them, CUDA), and for sizes that torch's two do not take, the rounded values
  are widened again and run as the target does, in as many bytes as it takes: 212 MB for SmolLM2 on compiled kernels.  The drafts are those
  of the rounded weights, but cost what the target's own steps cost: they show what rounding does, and save no time.

Time of a draft as a multiple of a target step's, SmolLM2 on two AVX2 cores, each kind in turn after a target step in one process:

===============================  ===  ==========  ==========  ==========
rows                             1    2           4           8
===============================  ===  ==========  ==========  ==========
compiled kernels, int8           0.7  0.8         0.9         0.9
compiled kernels, int4 widened   1.0  1.0         1.0         1.0
torch float32, widened           1.0  0.9 to 1.0  1.0         0.9 to 1.0
torch float32, torch's int8      0.8  0.5         0.6         0.7
torch float32, torch's int4      0.7  0.5         0.6         0.6
===============================  ===  ==========  ==========  ==========

With bf16 units it was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from workbench.models.linear import MakeLinear, fused
from workbench.models.llama import Linear, Llama
from workbench.models.loading import LoadedModel, layers_with
from workbench.models.native import NativeKernels
from workbench.models.paths import Path

GROUP = 32  # inputs that share a scale and a middle
SMALLEST = 1e-8  # a scale of 0 would divide by 0

# What torch's kernels ask of a matrix [outputs, inputs].
OUTPUTS_MULTIPLE, INPUTS_MULTIPLE = 16, GROUP


class Int8(NamedTuple):
    """``q``: int8 ``[outputs, inputs]``; ``scale``: bf16 ``[outputs]``."""

    q: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8:
        """``weight`` rounded."""
        exact = weight.to(torch.float32, copy=True)
        scale = (exact.abs().amax(1) / 127).clamp(min=SMALLEST).bfloat16()
        return cls(exact.div_(scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale)

    def values(self) -> Tensor:
        """What the rounded weights stand for, float32."""
        return self.q.float() * self.scale.float()[:, None]

    def linear(self) -> Linear:
        """A projection that reads ``q`` as it is; bf16 in and out."""
        run = torch.ops.aten._weight_int8pack_mm
        return lambda inputs: run(inputs, self.q, self.scale)


class Int4(NamedTuple):
    """``q``: int32 ``[outputs, inputs]``, 0 to 15; ``scale``, ``middle``: bf16 ``[outputs, groups]``."""

    q: Tensor
    scale: Tensor
    middle: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int4:
        """``weight`` rounded; a last group that is not full is filled with zeros meanwhile."""
        inputs = weight.shape[1]
        exact = F.pad(weight.to(torch.float32, copy=True), (0, -inputs % GROUP)).unflatten(1, (-1, GROUP))
        low, high = exact.amin(2), exact.amax(2)  # in one call, aminmax, they take three times as long
        scale = ((high - low) / 15).clamp(min=SMALLEST).bfloat16()
        middle = (low + 8 * scale.float()).bfloat16()
        q = exact.sub_(middle.float()[..., None]).div_(scale.float()[..., None]).add_(8).round_().clamp_(0, 15)
        return cls(q.flatten(1)[:, :inputs].to(torch.int32), scale, middle)

    def values(self) -> Tensor:
        """What the rounded weights stand for, float32."""
        inputs = self.q.shape[1]
        scale, middle = (part.float().repeat_interleave(GROUP, 1)[:, :inputs] for part in (self.scale, self.middle))
        return (self.q - 8) * scale + middle

    def linear(self) -> Linear:
        """A projection that reads two weights from each byte; bf16 in and out."""
        run = torch.ops.aten._weight_int4pack_mm_for_cpu
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(self.q, 1)
        scales = torch.stack([self.scale, self.middle], dim=-1).transpose(0, 1).contiguous()
        return lambda inputs: run(inputs, packed, GROUP, scales)


Rounded = Int8 | Int4
KINDS: dict[int, type[Int8] | type[Int4]] = {8: Int8, 4: Int4}
Pack = Callable[[Rounded, Tensor | None], Linear | None]


def quantised(target: LoadedModel, bits: Literal[4, 8]) -> Llama:
    """``target`` with projections of so many bits, on the same device; about a second for 100 million weights.

    Raises :class:`ModelIntegrityError` when the checkpoint can no longer be read.
    """
    whole, make = target.architecture, rounded(bits, target.path)
    return Llama(whole.config, whole.kernels, whole.embedding, layers_with(target, make), whole.norm, whole.head)


def rounded(bits: Literal[4, 8], path: Path) -> MakeLinear:
    """Makes projections from rounded weights: read as they are where ``path`` has a faster way to do that, widened again elsewhere."""
    pack = packing(path)

    def make(weights: Sequence[Tensor], bias: Tensor | None) -> Linear:
        weight = fused(weights)
        kept = KINDS[bits].of(weight)
        return pack(kept, bias) or path.make_linear([kept.values().to(weight.dtype)], bias)

    return make


def packing(path: Path) -> Pack:
    """The way in which rounded weights are known to be faster than the path's own projections; it gives ``None`` where there is none."""
    kernels = path.kernels
    if isinstance(kernels, NativeKernels):
        return lambda kept, bias: kernels.make_int8_linear(kept.q, kept.scale, bias) if isinstance(kept, Int8) else None
    if path.compute_dtype == torch.float32:
        return lambda kept, bias: _in_bf16(kept.linear(), bias) if has_kernels(kept.q) else None
    return lambda kept, bias: None


def has_kernels(weight: Tensor) -> bool:
    """Whether torch multiplies this matrix fast when it is rounded."""
    outputs, inputs = weight.shape
    fits = outputs % OUTPUTS_MULTIPLE == 0 and inputs % INPUTS_MULTIPLE == 0
    return fits and weight.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _in_bf16(run: Linear, bias: Tensor | None) -> Linear:
    def linear(inputs: Tensor) -> Tensor:
        outputs = run(inputs.to(torch.bfloat16)).to(inputs.dtype)
        return outputs if bias is None else outputs.add_(bias)

    return linear
