"""``Runner``: whoever can execute a plan.

Torch, scripted tokens and a recorded trace stand behind this one protocol, so a simulation is the same
scheduler with another runner.  A runner owns the KV tensors and nothing else: requests, block tables and
random seeds arrive with every plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from workbench.events import ModelFacts
from workbench.plan import StepOutput, StepPlan


@runtime_checkable
class Runner(Protocol):
    """Executes plans; see :class:`~workbench.plan.StepPlan` for what a row promises."""

    facts: ModelFacts

    def execute(self, plan: StepPlan) -> StepOutput:
        """Run every row of ``plan`` in one pass and return its tokens, row by row."""
        ...

    def close(self) -> None:
        """Give back memory; calling it twice is harmless."""
        ...


@runtime_checkable
class Forkable(Protocol):
    """A runner that can have an independent twin; every runner of ours can."""

    def fork(self, num_blocks: int) -> Runner:
        """A runner of the same model with empty blocks ``1 … num_blocks`` of its own; weights are shared."""
        ...


class SavedBlocks(Protocol):
    """Contents of some blocks, in whatever form the runner likes (a tensor)."""

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        ...


@runtime_checkable
class HoldsBlocks(Protocol):
    """A runner whose blocks hold something that must be put back to go back in time.

    One that does not have these verbs keeps nothing from step to step.
    """

    @property
    def block_bytes(self) -> int:
        """What one block takes."""
        ...

    def read_blocks(self, block_ids: Sequence[int]) -> Any:
        """A copy of what these blocks hold (:class:`SavedBlocks`)."""
        ...

    def write_blocks(self, block_ids: Sequence[int], saved: Any, rows: Sequence[int] | None = None) -> None:
        """Make ``block_ids`` hold what :meth:`read_blocks` returned, or those ``rows`` of it."""
        ...
