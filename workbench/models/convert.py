"""One GGUF file in, one folder in Hugging Face layout out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.models.gguf import GGUFFile
from workbench.models.gguf_config import model_config
from workbench.models.gguf_tokenizer import write_tokenizer
from workbench.models.gguf_weights import write_weights


def convert_gguf(source: Path, folder: Path, on_tensor: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write config, tokenizer, chat template and bf16 weights of ``source`` into the existing ``folder``.

    ``on_tensor(done, total)`` is called after each tensor.  Raises :class:`ModelIntegrityError` or
    :class:`UnsupportedModelError`, and then leaves ``folder`` half written: callers convert into a temporary one.
    """
    with GGUFFile(source) as file:
        config = model_config(file)
        ids = write_tokenizer(file, folder)
        _write_json(folder / "config.json", {**config, **ids})
        _write_json(folder / "generation_config.json", {key: value for key, value in ids.items() if value is not None})
        write_weights(file, config, folder / "model.safetensors", on_tensor)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
