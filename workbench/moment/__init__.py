"""``Moment``: everything about one step of a trace, worked out from its records alone.

One step has two instants.  Queues, block tables and blocks are as they stand after planning, which is what ``record.kv`` counts; tokens and
text are as they are after the commit of the same step.

Records are folded once, from the first on.  In a trace that begins later than its engine did, what lies before is unknown; it is
said to be so, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.errors import TraceError
from workbench.findings.moment import BlockMoment, RequestMoment
from workbench.moment.fold import Fold, Moment
from workbench.trace import Trace

__all__ = ["BlockMoment", "Moment", "RequestMoment", "moment", "moments"]


def moment(trace: Trace, step: int) -> Moment:
    """The state at ``step`` of ``trace``, from its records alone.

    Raises :class:`TraceError` for a step that the trace does not have.
    """
    records = list(trace.records)  # as of now: a run may be adding to them
    if not records:
        raise TraceError(f"there is no step {step!r}: this trace has no steps")
    first, last = records[0].step, records[-1].step
    if type(step) is not int or not first <= step <= last:
        raise TraceError(f"there is no step {step!r}: the trace has steps {first} to {last}")
    fold = Fold(trace, records[0])
    for record in records[: step - first]:
        fold.plan(record)
        fold.commit(record)
    fold.plan(records[step - first])
    return fold.moment(records[step - first])


def moments(trace: Trace) -> Iterator[Moment]:
    """The state at every step, in one pass."""
    records = list(trace.records)
    if not records:
        return
    fold = Fold(trace, records[0])
    for record in records:
        fold.plan(record)
        yield fold.moment(record)
        fold.commit(record)
