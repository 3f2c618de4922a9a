"""When new requests may join the batch: every step, or (for teaching) batch by batch.

A batcher answers one question before admission.  ``continuous`` always says yes: iteration-level scheduling as in Orca
and vLLM.  ``static`` and ``dynamic`` are what came before it: they collect a batch, run it until its last request is
done, and hold the places of those that finish early.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from workbench.config import EngineConfig
from workbench.events import Reason
from workbench.queues import WaitingQueue


class Hold(msgspec.Struct, frozen=True):
    """Why nobody may join now, with the numbers for the decisions."""

    reason: Reason
    needed: int
    available: int
    limit: int
    blocker: str | None = None


class BatchView(msgspec.Struct, frozen=True):
    """What a batcher may look at: the step's number, who waits, who is in the batch, whether more will arrive."""

    step: int
    waiting: WaitingQueue
    in_batch: tuple[str, ...]
    more_to_come: bool


class Batcher(Protocol):
    """Decides whether admission is open in a step."""

    holds_finished: bool

    def hold(self, view: BatchView) -> Hold | None:
        """``None`` when requests may join now."""
        ...


class Continuous:
    """Requests join whenever there is room."""

    holds_finished = False

    def hold(self, view: BatchView) -> Hold | None:
        """Never."""
        return None


class Static:
    """Wait for ``size`` requests, then run them to the end.

    A smaller batch starts only when nobody else is going to arrive.
    """

    holds_finished = True

    def __init__(self, size: int) -> None:
        self.size = size

    def hold(self, view: BatchView) -> Hold | None:
        """While a batch runs, and while the next is not complete."""
        if view.in_batch:
            return Hold(Reason.BATCH_RUNNING, 0, len(view.in_batch), self.size, view.in_batch[0])
        if len(view.waiting) < self.size and view.more_to_come:
            return Hold(Reason.BATCH_NOT_FULL, self.size, len(view.waiting), self.size)
        return None


class Dynamic:
    """Start with ``size`` requests, or when the one that arrived first has waited ``window_steps``."""

    holds_finished = True

    def __init__(self, size: int, window_steps: int) -> None:
        self.size = size
        self.window_steps = window_steps

    def hold(self, view: BatchView) -> Hold | None:
        """While a batch runs, and while the next is not complete."""
        if view.in_batch:
            return Hold(Reason.BATCH_RUNNING, 0, len(view.in_batch), self.size, view.in_batch[0])
        waited = view.step - min(state.arrival_step for state in view.waiting)
        if len(view.waiting) < self.size and waited < self.window_steps:
            return Hold(Reason.BATCH_NOT_FULL, self.size, len(view.waiting), self.window_steps - waited)
        return None


def make_batcher(config: EngineConfig) -> Batcher:
    """The batcher that ``config.batching`` names; a full batch is ``max_num_seqs``."""
    if config.batching == "static":
        return Static(config.max_num_seqs)
    if config.batching == "dynamic":
        return Dynamic(config.max_num_seqs, config.batch_window_steps)
    return Continuous()
