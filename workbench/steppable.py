"""``Steppable``: what a run needs of the engine under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from workbench.config import EngineConfig
from workbench.events import ModelFacts, StepRecord
from workbench.history import Restored
from workbench.request import Request
from workbench.runners.base import Runner
from workbench.scheduler import Scheduler
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.tokenizer import Tokenizer

Answer = TypeVar("Answer")


class Steppable(Protocol):
    """The public side of :class:`~workbench.engine.Engine` that its runs use; each member is described there."""

    model: ModelFacts
    tokenizer: Tokenizer | None

    @property
    def config(self) -> EngineConfig:
        """The settings as they are now."""
        ...

    @property
    def trace(self) -> Trace:
        """Every step so far."""
        ...

    @property
    def scheduler(self) -> Scheduler:
        """Who decides."""
        ...

    @property
    def runner(self) -> Runner:
        """Who executes."""
        ...

    @property
    def unfinished(self) -> set[str]:
        """Ids of the requests that still have tokens to come."""
        ...

    @property
    def last_restored(self) -> Restored | None:
        """How a state of the past was last brought back."""
        ...

    def between_steps(self, command: Callable[[], Answer]) -> Answer:
        """Run a command now, or between two steps of the run that is active."""
        ...

    def take(self, run: Any) -> None:
        """Let ``run`` (a :class:`~workbench.run.Run`), and nobody else, step from now on."""
        ...

    def release(self) -> None:
        """Let others step again."""
        ...

    def hold_clock(self) -> None:
        """Stop the clock until the next step."""
        ...

    def step(self) -> StepRecord:
        """Take one step."""
        ...

    def add_request(self, prompt: Any, **params: Any) -> Request:
        """Add one prompt."""
        ...

    def change(self, **knobs: Any) -> None:
        """Give the engine other settings between two steps."""
        ...

    def park(self) -> None:
        """Give back the KV cache but keep all else."""
        ...

    def abort(self, request_id: str) -> bool:
        """End a request."""
        ...

    def apply_commands(self) -> None:
        """Apply what was asked for during the last step."""
        ...

    def seconds_to_next_arrival(self) -> float | None:
        """How long there is nothing to do."""
        ...

    def rewind(self, step: int) -> Restored:
        """Go back to before ``step``."""
        ...

    def fork(self, step: int | None = None, **changes: Any) -> Steppable:
        """A second engine from before ``step``."""
        ...

    def scheduler_before(self, step: int) -> Scheduler:
        """A copy of the scheduler as it stood before ``step``."""
        ...

    def current(self, request_id: str) -> Request:
        """A request as it is now."""
        ...

    def check_open(self) -> None:
        """Raise if the engine was closed."""
        ...
