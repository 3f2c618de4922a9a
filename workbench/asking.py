"""``why``: one question for a decision, a step or a whole life, asked of any trace."""

from __future__ import annotations

from collections.abc import Callable

from workbench.errors import RequestError
from workbench.explain import Explanation, StepExplanation, explain, explain_step
from workbench.lives import Life, life
from workbench.rebuild import check_whole
from workbench.scheduler import Scheduler
from workbench.trace import Trace


def why(
    trace: Trace, request_id: str | None = None, step: int | None = None, *, scheduler_at: Callable[[int], Scheduler] | None = None
) -> Explanation | StepExplanation | Life:
    """Why a request did or did not run in a step; why a whole step is what it is; or a request's life.

    ``why(trace, "r2", step=7)`` is a sentence with the numbers, what it waited for, and which single change would have let it run;
    ``why(trace, step=7)`` explains every request of the step; ``why(trace, "r2")`` tells its segments from arrival to end.
    ``scheduler_at`` is a faster way to earlier schedulers than deciding the trace again.
    Raises :class:`RequestError` for an unknown request, :class:`IndexError` for a step that is not there, and :class:`TraceError` for
    what is no step at all.
    """
    if step is not None:
        check_whole(step)
    if step is None and request_id is None:
        raise RequestError("why needs a request, a step, or both: why('r0'), why(step=7), why('r0', step=7)")
    if step is None:
        return life(trace, request_id or "")
    if request_id is None:
        return explain_step(trace, step, scheduler_at=scheduler_at)
    return explain(trace, request_id, step, scheduler_at=scheduler_at)
