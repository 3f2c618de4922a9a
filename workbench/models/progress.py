"""How fetching and converting show themselves when nobody asked for anything else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]  # stage, done, total


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """``progress`` itself, or a default: a moving bar in a terminal, a line per stage elsewhere; both on stderr.

    The default writes nothing before its first report, so a model that is already there stays quiet.
    """
    if progress is not None:
        yield progress
    elif sys.stderr is not None and sys.stderr.isatty():
        bar = _Bar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield _Lines()


class _Bar:
    """A rich progress bar with one row per stage."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress as Bars

            self._progress = Bars(console=Console(stderr=True))
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


class _Lines:
    """One line when a stage begins: a notebook keeps what is printed."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._seen:
            self._seen.add(stage)
            print(f"{stage} …", file=sys.stderr, flush=True)
