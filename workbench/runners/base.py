"""``Runner``: whoever can execute a plan.

Torch, scripted tokens and a recorded trace stand behind this one protocol, so a simulation is the same
scheduler with another runner.  A runner owns the KV tensors and nothing else: requests, block tables and
random seeds arrive with every plan.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

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
