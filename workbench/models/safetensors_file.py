"""Write a safetensors file tensor by tensor, in bf16, without holding the model in memory.

The format: eight bytes with the length of a JSON header, the header (name to dtype, shape, byte range), then the raw
little-endian data.  Reading is left to the ``safetensors`` package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_ALIGNMENT = 64
_BYTES_PER_VALUE = 2


def write_bf16(path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write float32 ``tensors``, which must come in the order of ``shapes``, rounded to bf16 (ties to even)."""
    with path.open("wb") as file:
        file.write(_header(shapes))
        expected = iter(shapes.items())
        for name, values in tensors:
            if (name, values.shape) != next(expected):
                raise ValueError(f"tensor {name} of shape {values.shape} is out of order")
            file.write(to_bf16(values).tobytes())


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Float32 values as the upper 16 bits of their rounded pattern (``uint16``); NaN stays NaN."""
    import numpy as np

    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    not_a_number = np.isnan(values)
    if not_a_number.any():
        rounded[not_a_number] = 0x7FC0
    return rounded


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        count = _BYTES_PER_VALUE
        for extent in shape:
            count *= extent
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
