"""GGUF files: the header, checked against the file before a single weight is believed.

Knows the file format and nothing of models: metadata, tensor directory, and one tensor as float32.
:mod:`workbench.models.convert` gives them meaning.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from workbench.errors import ModelIntegrityError, UnsupportedModelError

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

Kind = tuple[str, type]  # ("one", int) or ("list", str)


class TensorInfo(msgspec.Struct, frozen=True):
    """One entry of the tensor directory.

    ``shape`` has the slowest axis first (rows, columns), as numpy and torch write it; the file has it the other way
    round.  ``offset`` is absolute, ``num_bytes`` what the type and shape need.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    num_bytes: int


class GGUFFile:
    """An open GGUF file whose header was read and found consistent with the file's size.

    Raises :class:`ModelIntegrityError` for a file that is not GGUF, is cut short, or contradicts itself, and
    :class:`UnsupportedModelError` for versions and tensor types that we cannot read.  Use it as a context manager.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        size = self.path.stat().st_size
        if size < 24:
            raise ModelIntegrityError(f"{self.path.name} has {size} bytes, too few for a GGUF header: download it again")
        with self.path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file; calling it twice is harmless."""
        with suppress(BufferError):  # an array in a traceback still looks at it; the last reference unmaps it
            self._bytes.close()

    @property
    def architecture(self) -> str:
        """The value of ``general.architecture``, e.g. ``llama``."""
        return str(self.metadata.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value below the architecture's own prefix: ``get("block_count")`` reads ``llama.block_count``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def check_kinds(self, kinds: Mapping[str, Kind]) -> None:
        """Raise :class:`ModelIntegrityError` for the first of these metadata values that is there but of another kind.

        Numbers must be finite and not negative; a list is described by the kind of its entries.
        """
        for key, kind in kinds.items():
            value = self.metadata.get(key)
            is_list = isinstance(value, list)
            entries = value if isinstance(value, list) else [value]
            if value is not None and (is_list != (kind[0] == "list") or not all(_is_a(entry, kind[1]) for entry in entries)):
                shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:39]}…"
                raise ModelIntegrityError(f"{self.path.name} gives {key} the value {shown}: the header is damaged")

    def tensor(self, name: str) -> np.ndarray:
        """The named tensor, dequantised: float32 ``[rows, columns]`` (or ``[n]``)."""
        import numpy as np
        from gguf import GGMLQuantizationType, dequantize

        info = self.tensors[name]
        raw = np.frombuffer(self._bytes, dtype=np.uint8, count=info.num_bytes, offset=info.offset)
        kind = GGMLQuantizationType(info.type_id)
        plain = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(kind)
        if plain is not None:
            return raw.view(plain).astype(np.float32).reshape(info.shape)
        rows = raw.reshape(*info.shape[:-1], -1)
        return np.asarray(dequantize(rows, kind), dtype=np.float32).reshape(info.shape)

    def _read_header(self) -> None:
        if self._bytes[:4] != MAGIC:
            raise ModelIntegrityError(f"{self.path.name} is not a GGUF file: it begins with {self._bytes[:4]!r}, not {MAGIC!r}")
        version = struct.unpack_from("<I", self._bytes, 4)[0]
        if version not in VERSIONS:
            other = struct.unpack_from(">I", self._bytes, 4)[0]
            what = "is big-endian" if other in VERSIONS else f"has GGUF version {version}"
            raise UnsupportedModelError(f"{self.path.name} {what}; supported are little-endian versions 2 and 3: convert the model again")
        num_tensors, num_values = struct.unpack_from("<QQ", self._bytes, 8)
        cursor = _Cursor(self._bytes, 24, self.path.name)
        self.version = version
        self.metadata: dict[str, Any] = {}
        for _ in range(cursor.checked_count(num_values, "metadata values")):
            key = cursor.string()
            self.metadata[key] = cursor.value(cursor.scalar("<I"))
        entries = [cursor.tensor_entry() for _ in range(cursor.checked_count(num_tensors, "tensors"))]
        self.tensors = self._place(entries, cursor.offset)

    def _place(self, entries: list[tuple[str, tuple[int, ...], int, int]], header_end: int) -> dict[str, TensorInfo]:
        """Turn relative offsets into absolute ones and check every extent against the file's size."""
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ModelIntegrityError(f"{self.path.name} declares an alignment of {alignment!r}: the header is damaged")
        base = -(-header_end // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, type_id, offset in entries:
            if name in tensors:
                raise ModelIntegrityError(f"{self.path.name} lists tensor {name!r} twice: the header is damaged")
            tensors[name] = TensorInfo(name, shape, type_id, base + offset, _num_bytes(self.path.name, name, shape, type_id))
        needed = max((info.offset + info.num_bytes for info in tensors.values()), default=base)
        if needed > len(self._bytes):
            raise ModelIntegrityError(
                f"{self.path.name} is truncated: its tensors need {needed:,} bytes and the file has {len(self._bytes):,}: download it again"
            )
        return tensors


class _Cursor:
    """Reads the header from front to back; running off the end is a truncated file."""

    def __init__(self, data: mmap.mmap, offset: int, name: str) -> None:
        self.data, self.offset, self.name = data, offset, name

    def scalar(self, layout: str) -> Any:
        start = self._advance(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, start)[0]

    def string(self) -> str:
        length = self.scalar("<Q")
        start = self._advance(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelIntegrityError(f"{self.name} has a string at byte {start:,} that is not UTF-8: the header is damaged") from error

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(self.scalar("<I"), self.scalar("<Q"))
        return self.scalar(self._layout(kind))

    def tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, num_dimensions = self.string(), self.scalar("<I")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise ModelIntegrityError(f"{self.name} gives tensor {name!r} {num_dimensions} dimensions: the header is damaged")
        shape = tuple(self.scalar("<Q") for _ in range(num_dimensions))
        return name, shape[::-1], self.scalar("<I"), self.scalar("<Q")

    def checked_count(self, count: int, what: str) -> int:
        """``count`` if that many could possibly stand in the rest of the file (each takes at least one byte)."""
        if count > len(self.data) - self.offset:
            problem = f"{self.name} declares {count:,} {what}, more than its {len(self.data):,} bytes can hold"
            raise ModelIntegrityError(f"{problem}: it is truncated or damaged")
        return int(count)

    def _array(self, kind: int, count: int) -> list[Any]:
        self.checked_count(count, "array entries")
        if kind in (_STRING, _ARRAY):
            read: Callable[[], Any] = self.string if kind == _STRING else lambda: self.value(_ARRAY)
            return [read() for _ in range(count)]
        layout = self._layout(kind)
        start = self._advance(struct.calcsize(layout) * count)
        return list(struct.unpack_from(f"<{count}{layout[1]}", self.data, start))

    def _layout(self, kind: int) -> str:
        layout = _SCALARS.get(kind)
        if layout is None:
            where = f"near byte {self.offset:,}"
            raise ModelIntegrityError(f"{self.name} has a metadata value of unknown type {kind} {where}: the header is damaged")
        return layout

    def _advance(self, num_bytes: int) -> int:
        start = self.offset
        if start + num_bytes > len(self.data):
            raise ModelIntegrityError(
                f"{self.name} is truncated: its header goes on after the last of its {len(self.data):,} bytes: download it again"
            )
        self.offset = start + num_bytes
        return start


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value) is kind
    return (type(value) is kind or kind is float) and math.isfinite(value) and value >= 0


def _num_bytes(file_name: str, name: str, shape: tuple[int, ...], type_id: int) -> int:
    """Bytes of a tensor, from its type's block size (a row must be whole blocks)."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(type_id)]
    except (ValueError, KeyError):
        problem = f"{file_name} stores {name!r} in a tensor type ({type_id}) that cannot be read"
        raise UnsupportedModelError(f"{problem}: use another quantisation") from None
    if shape[-1] % block:
        problem = f"{file_name} gives {name!r} rows of {shape[-1]}, not a multiple of its block of {block}"
        raise ModelIntegrityError(f"{problem}: the header is damaged")
    count = 1
    for extent in shape:
        count *= extent
    return count // block * block_bytes
