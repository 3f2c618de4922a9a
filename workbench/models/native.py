"""The compiled CPU path: ``native.c``, built once by the machine's own C compiler, called through ctypes.

Activations and sums are float32 (more precise than bf16 arithmetic), weights and KV cache stay bf16.  Where no compiler
is found :func:`library` returns ``None`` and the torch path runs instead; deleting this file and ``native.c`` costs speed, nothing else.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workbench.models.batch import FlatBatch
from workbench.models.config import ModelConfig

SOURCE = Path(__file__).with_name("native.c")
HEADERS = tuple(SOURCE.with_name(name) for name in ("native_pool.h", "native_draft.h"))
LANES = 8  # attention and silu work on this many numbers at once, so sizes must be its multiples
_COMPILE_SECONDS = 60


class Step(ctypes.Structure):
    """``Step`` of ``native.c``: the rows of one pass, and where their keys and values stand."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "dim", "block_size", "tokens", "side")),
        *((name, ctypes.c_void_p) for name in ("slots", "positions", "table_begins", "tables", "cosines", "sines")),
        ("eps", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )


class NativeStep(NamedTuple):
    """A batch as the C code reads it; ``keep`` holds the arrays behind the pointers of ``struct``."""

    input_ids: Tensor
    logits_rows: Tensor
    struct: Step
    keep: tuple[Tensor, ...]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built at first use into the cache folder; ``None`` where that cannot be done."""
    compiler = _compiler()
    if compiler is None:
        return None
    from workbench.models.store import cache_dir

    flags = ["-O3", "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native", "-fno-math-errno"]
    command = [*compiler, "-std=gnu11", *flags, "-shared", "-fPIC", "-pthread"]
    target = cache_dir() / "native" / f"{_fingerprint(command)}.so"
    try:
        if not target.exists():
            _build(command, target)
        return _declared(ctypes.CDLL(str(target)))
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None


def _compiler() -> list[str] | None:
    named = shlex.split(os.environ.get("CC", ""))
    if named and shutil.which(named[0]):
        return named
    return next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def _fingerprint(command: list[str]) -> str:
    """Changes with the source, the compiler and the CPU: a home folder may be shared by unlike machines."""
    cpu = Path("/proc/cpuinfo")
    features = [line for line in cpu.read_text().splitlines() if line.startswith(("flags", "Features"))][:1] if cpu.exists() else []
    version = subprocess.run([command[0], "--version"], capture_output=True, timeout=_COMPILE_SECONDS, check=False).stdout
    sources = [file.read_bytes() for file in (SOURCE, *HEADERS)]
    parts = (*sources, version, *(text.encode() for text in (*command, platform.machine(), *features)))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(command: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        subprocess.run([*command, str(SOURCE), "-lm", "-o", str(built)], check=True, capture_output=True, timeout=_COMPILE_SECONDS)
        os.replace(built, target)


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, long, integer, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
    signatures = {
        "wb_panel": (),
        "wb_pack": (pointer, pointer, long, long, long, integer),
        "wb_linear": (pointer, pointer, pointer, pointer, pointer, long, long, long, integer),
        "wb_add_rms_norm": (pointer, pointer, pointer, pointer, long, long, real, integer),
        "wb_silu_mul": (pointer, pointer, long, long, integer),
        "wb_choose_room": (pointer, long),
        "wb_choose": (*(pointer,) * 6, long, pointer, integer),
        "wb_draft_room": (pointer, long, long, long, long),
        "wb_draft": (pointer, pointer, long, pointer, long, *(pointer,) * 5, ctypes.c_float, *(pointer,) * 4, ctypes.POINTER(Step)),
        "wb_attend": (pointer, pointer, pointer, integer, pointer, pointer, ctypes.POINTER(Step)),
    }
    for name, arguments in signatures.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, None
    lib.wb_panel.restype = ctypes.c_int32
    lib.wb_choose_room.restype = lib.wb_draft_room.restype = long
    return lib


def supports(config: ModelConfig) -> bool:
    """Whether the model's sizes fit the vector loops."""
    return config.head_dim % (2 * LANES) == 0 and config.ffn_size % LANES == 0


class _Arena:
    """Memory for packed weights in large pages, which spare the processor address translations while it streams the weights."""

    CHUNK_BYTES = 64 << 20

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.int16)

    def take(self, count: int) -> Tensor:
        """``count`` zeroed 16-bit values, aligned to 64 bytes."""
        rounded = -(-count // 32) * 32
        if rounded > len(self._free):
            region = mmap.mmap(-1, max(self.CHUNK_BYTES, 2 * rounded))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                region.madvise(mmap.MADV_HUGEPAGE)
            self._free = torch.frombuffer(region, dtype=torch.int16)
        taken, self._free = self._free[:count], self._free[rounded:]
        return taken


def rotations(positions: npt.NDArray[np.int64], config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE, ``[*positions.shape, head_dim / 2]`` each."""
    angles = torch.from_numpy(np.multiply.outer(positions.astype(np.float32), np.array(config.rope_inv_freq, np.float32)))
    return angles.cos().mul_(config.rope_scaling), angles.sin().mul_(config.rope_scaling)


class NativeLinear:
    """A projection with weights packed in panels for ``wb_linear`` (see there for the layout): int8 if there are scales, else bf16."""

    def __init__(self, lib: ctypes.CDLL, packed: Tensor, scale: Tensor | None, bias: Tensor | None, outputs: int, inputs: int) -> None:
        padding = -outputs % lib.wb_panel()
        self.outputs, self.inputs = outputs, inputs
        self._packed = packed
        self._scale, self._bias = (None if each is None else torch.nn.functional.pad(each.float(), (0, padding)) for each in (scale, bias))
        self.addresses = (packed.data_ptr(), *(None if each is None else each.data_ptr() for each in (self._scale, self._bias)))
        self._run = lib.wb_linear

    def __call__(self, inputs: Tensor) -> Tensor:
        rows = inputs.shape[0]
        outputs = torch.empty(rows, self.outputs)
        self._run(inputs.data_ptr(), *self.addresses, outputs.data_ptr(), rows, self.inputs, self.outputs, torch.get_num_threads())
        return outputs


class NativeKernels:
    """The operations of :class:`~workbench.models.kernels.Kernels` in C: float32 activations, bf16 KV cache, no key copied."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.library, self._arena = lib, _Arena()

    def make_linear(self, weights: Sequence[Tensor], bias: Tensor | None) -> NativeLinear:
        """A projection for bf16 ``weights``, stacked along their outputs."""
        panel, inputs = self.library.wb_panel(), weights[0].shape[1]
        outputs = sum(len(weight) for weight in weights)
        packed = self._arena.take((outputs + -outputs % panel) * inputs)
        first = 0
        for weight in weights:
            source = weight.contiguous()
            self.library.wb_pack(source.data_ptr(), packed.data_ptr(), first, *source.shape, torch.get_num_threads())
            first += len(source)
        return NativeLinear(self.library, packed, None, bias, outputs, inputs)

    def make_int8_linear(self, q: Tensor, scale: Tensor, bias: Tensor | None) -> NativeLinear:
        """A projection for weights ``q * scale``: int8 ``[outputs, inputs]``, and a factor for each output."""
        panel, (outputs, inputs) = self.library.wb_panel(), q.shape
        rows = torch.nn.functional.pad(q, (0, 0, 0, -outputs % panel)).view(-1, panel, inputs)
        packed = self._arena.take(rows.numel() // 2).view(torch.int8)
        packed.view(-1, inputs, panel).copy_(rows.transpose(1, 2))
        return NativeLinear(self.library, packed, scale, bias, outputs, inputs)

    def prepare(self, batch: FlatBatch, config: ModelConfig) -> NativeStep:
        arrays = (
            torch.from_numpy(batch.slots),
            torch.from_numpy(batch.position_ids),
            torch.from_numpy(np.repeat(batch.block_indices_begins[:-1], np.diff(batch.subsequence_begins))),
            torch.from_numpy(batch.block_indices),
            *rotations(batch.position_ids, config),
        )
        sizes = (config.num_heads, config.num_kv_heads, config.head_dim, batch.block_size, len(batch.input_ids), 0)
        struct = Step(*sizes, *(array.data_ptr() for array in arrays), config.rms_norm_eps, torch.get_num_threads())
        return NativeStep(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.logits_rows), struct, arrays)

    def add_rms_norm(self, hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        out = torch.empty_like(hidden)
        added = None if delta is None else delta.data_ptr()
        addresses = (hidden.data_ptr(), added, weight.data_ptr(), out.data_ptr())
        self.library.wb_add_rms_norm(*addresses, *hidden.shape, eps, torch.get_num_threads())
        return out

    def attend(self, qkv: Tensor, norms: tuple[Tensor, Tensor] | None, rotate: bool, kv: Tensor, step: NativeStep) -> Tensor:
        struct = step.struct
        struct.side = kv.stride(0)
        out = torch.empty(struct.tokens, struct.heads * struct.dim)
        query_norm, key_norm = (None, None) if norms is None else (norm.data_ptr() for norm in norms)
        self.library.wb_attend(qkv.data_ptr(), query_norm, key_norm, rotate, kv.data_ptr(), out.data_ptr(), struct)
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        rows, both = gate_up.shape
        out = torch.empty(rows, both // 2)
        self.library.wb_silu_mul(gate_up.data_ptr(), out.data_ptr(), rows, both // 2, torch.get_num_threads())
        return out
