"""``python -m workbench``: the pitch, in ten lines of a terminal, without a model.

Three requests share a pool that is too small for them, so one has to wait and one is preempted; the engine says why.
"""

from __future__ import annotations

import sys

from workbench.cli import main, overview

__all__ = ["demo"]


def demo() -> str:
    """Run three scripted requests on a small pool and say what the scheduler did, and why."""
    return overview()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main())
    print(demo())
