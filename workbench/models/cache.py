"""The cache folder: where converted models lie, and how one gets there whole or not at all.

A model is a folder ``models/<key>`` with a ``manifest.json`` that lists size and SHA-256 of every file.  It is made in a
temporary folder beside it and renamed into place, under a lock, so a killed conversion leaves nothing that looks like a
model, and two processes never do the same work twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from workbench.errors import ModelError

MANIFEST = "manifest.json"

# Raise it when a conversion's result changes: older folders are then made again.
CONVERTER_VERSION = 1


class FileFacts(msgspec.Struct, frozen=True):
    """What one file must be: bytes and SHA-256."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a cached model was made from and consists of; ``source_*`` describe the GGUF file it came from."""

    name: str
    source_size: int
    files: dict[str, FileFacts]
    source_mtime_ns: int = 0
    converter: int = CONVERTER_VERSION


def cache_dir() -> Path:
    """The cache folder: ``WORKBENCH_CACHE`` if set, else the platform's place for caches; it need not exist yet."""
    chosen = os.environ.get("WORKBENCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("inference-workbench"))


def model_folder(key: str) -> Path:
    """Where the model of that key lies, or would."""
    return cache_dir() / "models" / key


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a cached model; ``None`` when there is none, or one that this version cannot read."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def is_complete(folder: Path) -> bool:
    """Whether every file of the manifest is there with its size (contents are for :func:`damaged_files`)."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.converter != CONVERTER_VERSION:
        return False
    return all(_size(folder / name) == facts.size for name, facts in manifest.files.items())


def damaged_files(folder: Path) -> list[str]:
    """Names of the files whose bytes are not what the manifest says; reads everything."""
    manifest = read_manifest(folder)
    if manifest is None:
        return [MANIFEST]
    return [
        name
        for name, facts in manifest.files.items()
        if _size(folder / name) != facts.size or sha256(folder / name) != facts.sha256
    ]


def write_manifest(folder: Path, name: str, source: os.stat_result) -> None:
    """Hash every file in ``folder`` and write its manifest."""
    files = {path.name: FileFacts(path.stat().st_size, sha256(path)) for path in sorted(folder.iterdir()) if path.is_file()}
    manifest = Manifest(name=name, source_size=source.st_size, source_mtime_ns=source.st_mtime_ns, files=files)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(key: str, is_ready: Callable[[Path], bool], make: Callable[[Path], None], on_wait: Callable[[], None]) -> Path:
    """The folder of ``key``, made by ``make(temporary folder)`` unless it ``is_ready`` already.

    ``on_wait`` is called once when another process holds the lock.  If ``make`` raises, nothing is left behind.
    """
    folder = model_folder(key)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder, on_wait):
            if not is_ready(folder):
                _make(folder, make)
    except OSError as error:
        what = error.strerror or error
        remedy = "free some space, or set WORKBENCH_CACHE to another folder"
        raise ModelError(f"the model cache {cache_dir()} cannot be used ({what}): {remedy}") from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    prefix = f".{folder.name}.tmp-"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of a killed process: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        fresh = scratch / "model"
        fresh.mkdir()
        make(fresh)
        if folder.exists():
            os.replace(folder, scratch / "old")
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def folder_size(folder: Path, ending: str = "") -> int:
    """Bytes of the files in a folder whose names end so, 0 when it does not exist.

    Another process (pip, a second fetch) may make and remove files and folders meanwhile: what is gone counts nothing.
    ``os.walk`` passes over a folder that vanished, where ``Path.rglob`` raises.
    """
    names = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if name.endswith(ending))
    return sum(max(_size(Path(name)), 0) for name in names)
