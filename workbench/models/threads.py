"""How many CPU threads the forward pass uses.

``torch.set_num_threads`` acts on the whole process, so it is set around a piece of work and put back: two engines in one
kernel may use different numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def default_num_threads() -> int:
    """What torch would take, but no more than this process may run at once (affinity, container quota)."""
    return max(1, min(torch.get_num_threads(), _affinity(), _quota()))


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run the block with ``count`` torch threads; ``None`` takes :func:`default_num_threads`."""
    before = torch.get_num_threads()
    wanted = count or default_num_threads()
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        if wanted != before:
            torch.set_num_threads(before)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole CPUs of a container's quota (cgroup v2, then v1), rounded up; a large number where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return 1 << 30
    return -(-int(quota) // int(period)) if quota.isdigit() else 1 << 30
