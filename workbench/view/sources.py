"""``Source``: one run on the screen — its trace as it is packed, and how it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from workbench.rebuild import config_before
from workbench.request import Request
from workbench.tape import Packer, Part, meta
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.config import EngineConfig
    from workbench.events import StepRecord
    from workbench.scheduler import Scheduler

LIMIT = 2000  # steps in one part


class Watched(Protocol):
    """What the view needs of a run; :class:`~workbench.run.Run` is described there."""

    name: str
    engine: Any
    error: BaseException | None
    failed_step: int | None
    first_step: int
    requests: tuple[Request, ...]

    @property
    def status(self) -> str:
        """Where it stands."""
        ...

    @property
    def trace(self) -> Trace:
        """Its steps."""
        ...

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Be told of changes."""
        ...

    def resume(self, *, background: bool = False) -> Any:
        """Step on."""
        ...

    def pause(self) -> None:
        """Halt."""
        ...

    def step(self) -> StepRecord:
        """Take one step."""
        ...

    def stop(self) -> None:
        """End it."""
        ...

    def rewind(self, step: int) -> Any:
        """Go back."""
        ...

    def fork(self, step: int | None = None, **changes: Any) -> Watched:
        """A second run."""
        ...

    def add(self, prompt: Any, **params: Any) -> Request:
        """Add a prompt."""
        ...

    def way_back(self, step: int) -> Callable[[int], Scheduler] | None:
        """How the scheduler before a step is had."""
        ...

    def when_done(self, listener: Callable[[], None]) -> None:
        """Be told once when it is over."""
        ...


class Source:
    """A run, or a trace alone, and what of it was packed.  ``parent`` and ``fork_step`` say of which source it is a branch."""

    def __init__(self, what: Watched | Trace, number: int, name: str | None = None, *, parent: int | None = None) -> None:
        self.number = number
        self.run: Watched | None = None if isinstance(what, Trace) else what
        self.parent = parent
        self.fork_step: int | None = None
        self.against: int | None = parent  # the source that it is compared with
        self.parted: tuple[int, str] | None = None  # position and sentence of the first difference to that one
        self.fork_config: EngineConfig | None = None  # the parent's settings when it parted
        self._told_config: object = None
        if isinstance(what, Trace):
            self.name = name or what.model.name
            self._whole, self.first_step, text_of = what, what.first_step, None
        else:
            self.name = name or what.name
            # What the engine remembers from before the run says what is in the cache; unless it went another way since.
            self._whole = what.engine.trace if _holds(what.engine.trace, what.trace) else what.trace
            self.first_step = what.first_step
            text_of = what.engine.tokenizer.token_text if what.engine.tokenizer is not None else None
            self.fork_step = what.engine.trace.next_step if parent is not None else None
        self.packer = Packer(self._whole, self.first_step, text_of=text_of)

    def again(self) -> Source:
        """The same, with nothing packed yet."""
        twin = Source(self.run or self._whole, self.number, self.name, parent=self.parent)
        twin.fork_step, twin.fork_config = self.fork_step, self.fork_config
        twin.against, twin.parted = self.against, self.parted
        return twin

    def leave(self, parent: Source) -> None:
        """Remember what was set where this branch left its parent."""
        if self.fork_step is not None:
            self.fork_config = config_before(parent.whole, self.fork_step)

    def difference_to(self, other: Source) -> tuple[int, str] | None:
        """Where this one first differs from the other, as a position and a sentence, which calls the two as the screen's tabs do."""
        from workbench.comparison.divergence import first_divergence
        from workbench.comparison.pairing import pair

        if not (len(self.trace) and len(other.trace)):
            return None
        found = first_divergence(pair(other.trace[:], self.trace[:]), (letter_of(other.number), letter_of(self.number)))
        return None if found is None else (found.position, found.sentence)

    @property
    def trace(self) -> Trace:
        """The steps of the run."""
        return self.run.trace if self.run is not None else self._whole

    @property
    def whole(self) -> Trace:
        """With the steps before the run, where they are known."""
        return self._whole

    @property
    def state(self) -> str:
        """How the run stands."""
        return self.run.status if self.run is not None else "finished"

    @property
    def is_running(self) -> bool:
        """Whether steps are being taken."""
        return self.state == "running"

    def news(self) -> Part | None:
        """What was not packed yet; of a run that is over nothing beyond its own end, whatever its engine does next."""
        run = self.run
        if run is None or run.status in ("running", "paused"):
            return self.packer.pack(LIMIT)
        end = len(run.trace)
        return self.packer.pack(LIMIT, end_step=self.first_step + end) if len(self.packer) != end else None

    def parts(self) -> Iterator[Part]:
        """What was not packed yet, up to the step that is the newest now."""
        end = self.first_step + len(self.trace)
        while (part := self.packer.pack(LIMIT, end_step=end)) is not None:
            yield part

    def info(self) -> dict[str, Any]:
        """The ``RunInfo`` of the wire."""
        found: dict[str, Any] = {"run": self.number, "name": self.name, "live": self.run is not None}
        found["meta"] = meta(self._whole, self.first_step)
        if self.parent is not None:
            found |= {"parent": self.parent, "fork_step": self.fork_step}
        if self.fork_config is not None:
            found["fork_config"] = msgspec.to_builtins(self.fork_config)
        if self.parted is not None:
            found["parted"] = {"position": self.parted[0], "sentence": self.parted[1]}
        return found

    def status(self, *, whole: bool = False) -> dict[str, Any]:
        """The ``Status`` of the wire; the settings are in it when they changed, or if ``whole``."""
        if self.run is None:
            return {"state": "finished"}
        found: dict[str, Any] = {"state": self.state}
        config = self.run.engine.config
        if whole or config is not self._told_config:
            self._told_config = config
            found["config"] = msgspec.to_builtins(config)
        error = self.run.error
        if error is not None:
            step = self.run.failed_step
            at = self.run.engine.trace.next_step if step is None else step
            found["error"] = {"type": type(error).__name__, "message": str(error), "step": at}
        return found


def letter_of(number: int) -> str:
    """What the tab of a source is called: a, b, … z, then numbers (``letterOf`` in ``extensions/view``)."""
    return chr(ord("a") + number) if number < 26 else str(number + 1)


def _holds(whole: Trace, part: Trace) -> bool:
    """Whether the newest record of ``part``, and with it all before, is still one of ``whole``."""
    if not len(part):
        return True
    newest = part[-1]
    return whole.first_step <= newest.step < whole.next_step and whole.at(newest.step) is newest
