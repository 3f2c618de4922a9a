"""``Session``: what the faces of one kernel share — loaded models, and the runs so far.

Weights are loaded once and shared; every cell gets a fresh engine on them, so the same cell shows the same run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from workbench.config import EngineConfig
    from workbench.engine import Engine
    from workbench.models import LoadedModel
    from workbench.run import Run

MAX_LOADED_MODELS = 2
MAX_REMEMBERED_RUNS = 32


class Session:
    """Loaded models (the most recently used few) and the latest runs."""

    def __init__(self) -> None:
        self.models: dict[tuple[object, ...], LoadedModel] = {}
        self._runs: deque[tuple[str, Run]] = deque(maxlen=MAX_REMEMBERED_RUNS)
        self._count = 0
        self._engines: list[Engine] = []

    def engine(self, config: EngineConfig) -> Engine:
        """A fresh engine with these settings, on weights that stay loaded for the next one.

        Earlier engines but the last give their KV cache back, since a notebook keeps its results; a fork of one computes it again.
        """
        for engine in self._engines[:-1]:
            if engine.active_run is None:
                engine.park()
        self._engines = [engine for engine in self._engines[:-1] if engine.active_run is not None] + self._engines[-1:]
        self._engines.append(self._make(config))
        return self._engines[-1]

    def remember(self, run: Run, name: str | None = None) -> str:
        """Add a run to the list under ``name``, or as ``run 1``, ``run 2``, …; returns the name."""
        self._count += 1
        name = name or f"run {self._count}"
        self._runs.append((name, run))
        return name

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """The latest runs and their names, oldest first."""
        return list(self._runs)

    @property
    def last(self) -> Run | None:
        """The latest run."""
        return self._runs[-1][1] if self._runs else None

    def active(self) -> list[tuple[str, Run]]:
        """Runs that are not over."""
        return [(name, run) for name, run in self._runs if run.status in ("running", "paused")]

    def stop(self) -> list[tuple[str, Run]]:
        """Stop every run that is not over and return them."""
        stopped = self.active()
        for _, run in stopped:
            run.stop()
        return stopped

    def _make(self, config: EngineConfig) -> Engine:
        from workbench.engine import Engine

        return Engine(self._model(config), config=config)

    def _model(self, config: EngineConfig) -> LoadedModel:
        from workbench.models import load_model

        key = (config.model, *config.loading.values())
        loaded = self.models.pop(key, None) or load_model(config.model, **config.loading)
        self.models[key] = loaded
        for oldest in list(self.models)[:-MAX_LOADED_MODELS]:
            del self.models[oldest]
        return loaded


def model_names() -> Iterable[str]:
    """Names that ``--model`` accepts without a path."""
    from workbench.models.store import list_models

    return [entry.name for entry in list_models()]


class Live(Protocol):
    """What is shown while a cell waits."""

    def pump(self) -> object:
        """Draw what is new, if it is time to."""
        ...

    def close(self) -> None:
        """Make room for the result."""
        ...


def wait_for(run: Run, live: Live | None) -> bool:
    """Wait for a run and draw its progress; an interrupt ends it between two steps and keeps what there is.

    Returns whether it was interrupted.
    """
    try:
        run.wait_or_stop(live.pump if live else None)
    except KeyboardInterrupt:
        return True
    finally:
        if live:
            live.close()
    return False
