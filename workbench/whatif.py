"""What if: the change that would have let a request run, made in a fork, run to its end, and laid beside what happened."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import msgspec

from workbench.comparison import Comparison
from workbench.counterfactual import Counterfactual, counterfactuals, is_asked, no_single_knob
from workbench.errors import RequestError
from workbench.events import Decision, Verdict
from workbench.explain import Explanation
from workbench.scheduler import Scheduler
from workbench.trace import Trace

WayBack = Callable[[int], Callable[[int], Scheduler] | None]


class WhatIf(msgspec.Struct, frozen=True):
    """A suggested change, the fork in which it was made, and how the two differ."""

    counterfactual: Counterfactual
    branch: Any  # the fork, a Run that is over
    comparison: Comparison

    @property
    def sentence(self) -> str:
        """What was changed, and what came of it."""
        return self.counterfactual.sentence

    def __repr__(self) -> str:
        return f"{self.sentence}\n{self.comparison!r}"

    def _repr_html_(self) -> str:
        return f"<div><p>{escape(self.sentence)}</p>{self.comparison._repr_html_()}</div>"


def choose(trace: Trace, change: Decision | Counterfactual | Explanation, step: int | None, way_back: WayBack) -> Counterfactual:
    """The change to try; see :meth:`workbench.run.Run.what_if`.  ``way_back(step)`` tells how the scheduler of a step is had."""
    if isinstance(change, Counterfactual):
        return change
    if isinstance(change, Explanation):
        found, at = change.counterfactuals, change.step
    elif isinstance(change, Decision):
        at = _step_of(trace, change) if step is None else step
        found = counterfactuals(trace, change.request_id, at, scheduler_at=way_back(at))
    else:
        raise RequestError(f"what_if takes a decision, an explanation or a counterfactual, not {type(change).__name__}: see run.why(…)")
    if not found:
        decision = change.decision if isinstance(change, Explanation) else change
        if decision.verdict is Verdict.SCHEDULED:
            raise RequestError(f"{decision.request_id} ran in full in step {at}: there is nothing to change")
        none = f"no knob could have let {decision.request_id} run in step {at}"
        raise RequestError(no_single_knob(decision) if is_asked(decision) else none)
    return found[0]


def _step_of(trace: Trace, decision: Decision) -> int:
    """The first step in which it was so decided: while nothing changes, the same decision stands in every record."""
    for record in trace:
        if decision in record.decisions:
            return record.step
    raise RequestError(f"this decision about {decision.request_id} is not one of this run's: take it from run.trace")
