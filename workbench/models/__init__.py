"""Models: where they come from (``store``), how they are read (``loading``), and our forward pass (``llama``).

Importing this package imports no torch; :func:`load_model` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.models.loading import LoadedModel

__all__ = ["LoadedModel", "load_model"]


def load_model(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    num_threads: int | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Find, convert where needed, and load a model: a known name, a folder, a GGUF file or a hub id.

    ``num_threads`` bounds the threads that laying out the weights uses.  Raises the errors of ``store.resolve`` and of
    ``loading.load_folder``.
    """
    from workbench.models.loading import load_folder
    from workbench.models.store import resolve
    from workbench.models.threads import torch_threads

    folder = resolve(str(model), trust_remote_code=trust_remote_code)
    with torch_threads(num_threads):
        return load_folder(folder, name=_name_of(model), dtype=dtype, device=device, trust_remote_code=trust_remote_code)


def _name_of(model: str | Path) -> str:
    """A name without the path that leads to it, so that a saved trace does not tell where its author keeps files."""
    return Path(model).name if Path(model).exists() else str(model)


def __getattr__(name: str) -> Any:
    if name == "LoadedModel":
        from workbench.models.loading import LoadedModel

        return LoadedModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
