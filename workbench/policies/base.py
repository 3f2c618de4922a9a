"""``Planner``: what a scheduling policy is.

A policy decides, once a step, who runs, how many tokens each computes, and who loses its blocks.  It moves requests between the
queues, takes blocks from the cache, and writes one decision for every unfinished request into the draft.
"""

from __future__ import annotations

from typing import Protocol

from workbench.draft import StepDraft
from workbench.plan import StepPlan
from workbench.state import RequestState


class Planner(Protocol):
    """Fills a :class:`~workbench.draft.StepDraft`; one file of ``policies`` each."""

    def fill(self, draft: StepDraft) -> None:
        """Decide about every unfinished request, then ``draft.close(queues, usage)``."""
        ...

    def put_back(self, state: RequestState) -> None:
        """Take a running request's blocks and let it wait again: a preemption, or a plan that was taken back."""
        ...

    def settle(self, plan: StepPlan) -> None:
        """The plan was executed, and its tokens are about to be taken in: a policy lets blocks be found here that it did not before."""
        ...

    def keep(self, state: RequestState) -> None:
        """A request has ended by itself and is about to lose its blocks: what was computed of it may be kept for others."""
        ...

    def carry(self, previous: Planner) -> None:
        """Go on where ``previous`` stood; called once, when this planner takes over a copied or changed engine.

        A policy that remembers nothing from step to step does nothing here.
        """
        ...
