"""Which execution path this machine takes: chosen by feature detection, described in words for ``workbench doctor``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from workbench.models import native
from workbench.models.config import ModelConfig
from workbench.models.kernels import Kernels, TorchKernels
from workbench.models.linear import MakeLinear, by_rows, onednn_prepacked, plain, widened

# Without bf16 units and without a compiler, bf16 weights are widened to float32 up to this size; beyond it memory counts more than speed.
WIDEN_LIMIT_BYTES = 4 << 30
# With bf16 units and a compiler the weights are kept twice, up to this size: our kernels win with few rows, the units with many.
TWICE_LIMIT_BYTES = 2 << 30
BF16_UNITS_FROM_ROWS = 9  # where the two cross on a Xeon with AMX (benchmarks/linears.py)


class Path(NamedTuple):
    """How a model runs here.

    ``dtype`` is that of weights and KV cache, ``compute_dtype`` that of activations; ``make_linear`` takes weights in ``dtype``.
    """

    kernels: Kernels[Any]
    make_linear: MakeLinear
    dtype: torch.dtype
    compute_dtype: torch.dtype
    description: str


def choose_path(device: torch.device, dtype: torch.dtype, config: ModelConfig) -> Path:
    """The fastest path that works for this model in ``dtype`` on ``device``."""
    if device.type != "cpu":
        return Path(TorchKernels(dtype, device), plain, dtype, dtype, f"torch {_name(dtype)} on {torch.cuda.get_device_name(device)}")
    if dtype == torch.bfloat16:
        return _native(config) or _bf16_without_compiler(config)
    if dtype == torch.float32 and _onednn_usable(dtype):
        return Path(TorchKernels(dtype, device), onednn_prepacked, dtype, dtype, "oneDNN float32 with prepacked weights")
    return Path(TorchKernels(dtype, device), plain, dtype, dtype, f"torch {_name(dtype)} on the CPU")


def _native(config: ModelConfig) -> Path | None:
    library = native.library() if native.supports(config) else None
    if library is None:
        return None
    kernels = native.NativeKernels(library)
    words = f"compiled C kernels ({torch.backends.cpu.get_cpu_capability()}): bf16 weights and KV, float32 arithmetic, keys read in place"
    make_linear: MakeLinear = kernels.make_linear
    weight_bytes = config.num_parameters * torch.bfloat16.itemsize
    if _has_bf16_units() and _onednn_usable(torch.bfloat16) and weight_bytes <= TWICE_LIMIT_BYTES:
        make_linear = by_rows(kernels.make_linear, onednn_prepacked, border=BF16_UNITS_FROM_ROWS - 1)
        words += f"; from {BF16_UNITS_FROM_ROWS} rows oneDNN bf16 (AMX or AVX-512 BF16)"
    return Path(kernels, make_linear, torch.bfloat16, torch.float32, words)


def _bf16_without_compiler(config: ModelConfig) -> Path:
    cpu, half, single = torch.device("cpu"), torch.bfloat16, torch.float32
    if _has_bf16_units() and _onednn_usable(half):
        return Path(TorchKernels(half, cpu), onednn_prepacked, half, half, "oneDNN bf16 with prepacked weights (AMX or AVX-512 BF16)")
    if not _has_bf16_units() and config.num_parameters * single.itemsize <= WIDEN_LIMIT_BYTES:
        return Path(TorchKernels(single, cpu), widened, half, single, "torch float32 arithmetic on bf16 weights and KV (no bf16 units)")
    return Path(TorchKernels(half, cpu), plain, half, half, "torch bfloat16 on the CPU")


def _has_bf16_units() -> bool:
    """Whether the CPU multiplies bf16 in hardware (x86 only: elsewhere torch's own choice is good)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _onednn_usable(dtype: torch.dtype) -> bool:
    """Try it: builds of torch and CPUs differ in what oneDNN offers."""
    try:
        with torch.inference_mode():
            onednn_prepacked([torch.zeros(16, 16, dtype=dtype)], None)(torch.zeros(1, 16, dtype=dtype))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
