"""Checks that a folder is a model in Hugging Face layout, whole, and made of files that are safe to read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from workbench.errors import ModelIntegrityError, UnknownModelError, UnsupportedModelError

INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_MAX_HEADER_BYTES = 100_000_000
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tekken.json",))


def check_folder(folder: Path) -> Path:
    """``folder`` itself if it can be loaded without unpickling anything.

    Raises :class:`UnknownModelError` naming what is missing, :class:`UnsupportedModelError` for pickled weights and
    adapters, :class:`ModelIntegrityError` for truncated files.
    """
    _check_has_parts(folder)
    _read_json(folder / "config.json")
    for shard in _shards(folder):
        check_safetensors(shard)
    return folder


def check_safetensors(path: Path) -> None:
    """Raise :class:`ModelIntegrityError` unless the file's header is sound and the file ends where it says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ModelIntegrityError(f"{path} is truncated or not a safetensors file: its header does not fit into its {size:,} bytes")
        try:
            entries = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ModelIntegrityError(f"{path} has a damaged safetensors header ({type(error).__name__}): get the file again") from error
    needed = 8 + length + max(ends, default=0)
    if needed != size:
        raise ModelIntegrityError(f"{path} has {size:,} bytes and its header says {needed:,}: it is damaged; get the file again")


def _check_has_parts(folder: Path) -> None:
    has_weights = any(folder.glob("*.safetensors"))
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UnsupportedModelError(f"{folder} holds an adapter, not a model: merge it into its base model first")
    if not has_weights and any(path for pattern in _PICKLED for path in folder.glob(pattern)):
        raise UnsupportedModelError(f"{folder} has only pickled weights (.bin, .pt), which can run code: convert them to safetensors")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [] if has_weights else ["*.safetensors"]
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        missing.append("tokenizer.json")
    if missing:
        hint = _hint(folder)
        raise UnknownModelError(f"{folder} is not a model in Hugging Face layout: {', '.join(missing)} missing{hint}")


def _hint(folder: Path) -> str:
    files = sorted(folder.glob("*.gguf"))
    return f"; for the GGUF file in it, give {files[0]}" if files else ""


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ModelIntegrityError(f"{index} names a file outside its folder: {outside[0]!r}")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UnknownModelError(f"{folder} lacks {len(absent)} of {len(names)} weight files, the first is {absent[0]}: get them again")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelIntegrityError(f"{path} is not readable JSON ({error}): get the file again") from error
    if not isinstance(content, dict):
        raise ModelIntegrityError(f"{path} holds no JSON object: get the file again")
    return content
