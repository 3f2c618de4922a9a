"""Which execution path this machine takes: chosen by feature detection, described in words for ``workbench doctor``."""

from __future__ import annotations

from typing import NamedTuple

import torch

from workbench.models.kernels import Kernels, TorchKernels
from workbench.models.linear import MakeLinear, onednn_prepacked, plain


class Path(NamedTuple):
    """How a model runs here.

    ``dtype`` is that of weights and KV cache; ``compute_dtype`` that of activations, and of the weights as ``make_linear`` wants them.
    """

    kernels: Kernels
    make_linear: MakeLinear
    dtype: torch.dtype
    compute_dtype: torch.dtype
    description: str


def choose_path(device: torch.device, dtype: torch.dtype) -> Path:
    """The fastest path that works for ``dtype`` on ``device``."""
    name = str(dtype).removeprefix("torch.")
    if device.type != "cpu":
        return Path(TorchKernels(dtype, device), plain, dtype, dtype, f"torch {name} on {torch.cuda.get_device_name(device)}")
    return Path(TorchKernels(dtype, device), plain, dtype, dtype, f"torch {name} on the CPU")
