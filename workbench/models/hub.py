"""Models from the Hugging Face hub, through ``huggingface_hub`` and its own cache."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.errors import ModelError, UnknownModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
_UNWANTED = ["original/*", "onnx/*", "*/*.safetensors"]
_TIMEOUT_S = 10


def is_hub_id(model: str) -> bool:
    """Whether ``model`` has the form ``owner/name``."""
    return _HUB_ID.fullmatch(model) is not None


def download_snapshot(model: str, *, trust_remote_code: bool = False) -> Path:
    """The local snapshot folder of a hub id: configs, tokenizer and safetensors, never pickled weights.

    Python files come along only with ``trust_remote_code``.  Raises :class:`UnknownModelError` saying what to do when the
    hub has no such model, refuses it, or cannot be reached and the hub's cache does not hold it.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    from workbench.models.config import read_config

    wanted = [*_WANTED, "*.py"] if trust_remote_code else _WANTED
    try:
        config = hf_hub_download(model, "config.json", etag_timeout=_TIMEOUT_S)
        read_config(Path(config).parent, trust_remote_code=trust_remote_code)  # refuses what we do not run before gigabytes are fetched
        return Path(snapshot_download(model, allow_patterns=wanted, ignore_patterns=_UNWANTED, etag_timeout=_TIMEOUT_S))
    except ModelError:
        raise
    except Exception as error:
        raise UnknownModelError(_explain(model, error)) from error


def _explain(model: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{model} is gated on the hub: accept its terms on its page and log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no model {model!r} that you may read: check the spelling, or log in with `hf auth login` if it is private"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{model} has no config.json on the hub, so it is no model in Hugging Face layout: download its GGUF file and give the path"
    if isinstance(error, errors.HFValidationError):
        return f"{model!r} is not a valid hub id: it should look like owner/name"
    return (
        f"{model!r} could not be read from the hub and is not in its local cache ({type(error).__name__}): "
        "connect to the network, give a local folder or GGUF file, or use the embedded model 'smollm2'"
    )
