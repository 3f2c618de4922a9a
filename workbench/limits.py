"""How much memory and how many CPUs this process may use: the smallest of the machine, its containers and its hub.

A container's limits are invisible to most programs, which then size themselves for the whole machine and are killed.
Read here: cgroup v2 and v1 (every level above this process), ``MEM_LIMIT`` and ``CPU_LIMIT`` (set by JupyterHub and
Binder), and CPU affinity.  ``root`` and ``environ`` exist for tests.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path("/")


def memory_limit_bytes(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """The most memory that this process may ever hold, in bytes."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    limits = [float(psutil.virtual_memory().total), *_memory_limits(root)]
    hub = _positive(environ.get("MEM_LIMIT"))
    return int(min([*limits, hub] if hub else limits))


def memory_available_bytes(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Memory that can still be taken now without pushing anything out, in bytes; never negative.

    Page cache counts as available: the kernel gives it back (``memory.current`` less ``inactive_file``).
    """
    import psutil  # type: ignore[import-untyped, unused-ignore]

    free = [int(psutil.virtual_memory().available)]
    for folder, limit in _memory_folders(root):
        used = _working_set(folder)
        if used is not None:
            free.append(int(limit - used))
    hub = _positive(environ.get("MEM_LIMIT"))
    if hub:
        free.append(int(hub) - int(psutil.Process().memory_info().rss))
    return max(0, min(free))


def cpu_limit(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """CPUs that this process may keep busy at once: at least 1, a fraction counts as a whole one."""
    limits = [float(_affinity()), *_cpu_quotas(root)]
    hub = _positive(environ.get("CPU_LIMIT"))
    return max(1, math.ceil(min([*limits, hub] if hub else limits)))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_limits(root: Path) -> list[float]:
    return [limit for _, limit in _memory_folders(root)]


def _memory_folders(root: Path) -> Iterator[tuple[Path, float]]:
    """Every cgroup above this process that limits memory, with its limit."""
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _positive(_text(folder / name))
            if limit:
                yield folder, limit


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if _positive(quota) and _positive(period):
            yield float(quota) / float(period)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup and all above it, for v2 and for v1's ``controller``.

    A container often sees its own cgroup as the root while ``/proc`` names the host's path; folders that do not exist
    are harmless, and the root is always among them.
    """
    base = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines() or ["0::/"]:
        hierarchy, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if hierarchy == "0":
            top = base
        elif controller in names.split(","):
            top = base / controller
        else:
            continue
        inside = Path(path.lstrip("/"))
        if ".." not in inside.parts:
            yield from (top / part for part in (inside, *inside.parents) if part != Path())
        yield top


def _working_set(folder: Path) -> float | None:
    used = _positive(_text(folder / "memory.current") or _text(folder / "memory.usage_in_bytes"))
    if used is None:
        return None
    statistics = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    reclaimable = _positive(statistics.get("inactive_file") or statistics.get("total_inactive_file"))
    return max(0.0, used - (reclaimable or 0.0))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _positive(text: str | None) -> float | None:
    """A number above zero, ``None`` for anything else ("max", "-1", nothing)."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
