"""How many CPU threads the forward pass uses.

``torch.set_num_threads`` acts on the whole process, so it is set around a piece of work and put back: two engines in one
kernel may use different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workbench.limits import cpu_limit


def default_num_threads() -> int:
    """What torch would take, but no more than this process may run at once (affinity, container and hub limits)."""
    return min(torch.get_num_threads(), cpu_limit())


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
