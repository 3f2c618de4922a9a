"""Which step of one trace stands beside which step of the other, and which requests both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from workbench.comparison.renaming import renamed, same_prompts
from workbench.errors import TraceError
from workbench.events import StepRecord
from workbench.trace import Trace


class Pairing(msgspec.Struct, frozen=True):
    """Records from the first pair of steps on, and the ids of requests that both traces have.

    ``taken``: where they share no id but all prompts, the ids that requests of ``b`` have of their own, each with the id in ``a`` that it
    goes by here.
    """

    trace_a: Trace
    trace_b: Trace
    a: Sequence[StepRecord]
    b: Sequence[StepRecord]
    common: frozenset[str]
    taken: dict[str, str]

    def __len__(self) -> int:
        """How many steps both have."""
        return min(len(self.a), len(self.b))

    def __iter__(self) -> Iterator[tuple[StepRecord, StepRecord]]:
        return zip(self.a, self.b, strict=False)

    @property
    def all_common(self) -> bool:
        """Whether neither trace has a request that the other lacks."""
        return names(self.trace_a) == names(self.trace_b)


def pair(a: Trace, b: Trace) -> Pairing:
    """Put two traces side by side: by step number, or from the first step of each where that makes more arrivals meet.

    The second run of an engine begins at a later step than the first of another, and is still its equal.
    """
    for letter, trace in (("first", a), ("second", b)):
        if not len(trace):
            raise TraceError(f"the {letter} of the two has no steps: there is nothing to compare")
    taken = {} if names(a) & names(b) else same_prompts(a, b)
    b = renamed(b, taken) if taken else b
    common = frozenset(names(a) & names(b))
    late_a, late_b = max(b.first_step - a.first_step, 0), max(a.first_step - b.first_step, 0)
    numbered = a.records[late_a:], b.records[late_b:]
    if (late_a or late_b) and _meetings(a.records, b.records) > _meetings(*numbered):
        numbered = a.records, b.records
    return Pairing(a, b, *numbered, common, taken)


def names(trace: Trace) -> set[str]:
    """Every request that a trace knows."""
    return set(trace.requests) | {arrival.request_id for record in trace.records for arrival in record.arrived}


def arrivals(records: Sequence[StepRecord]) -> dict[str, int]:
    """At which position each request arrived."""
    return {arrival.request_id: position for position, record in enumerate(records) for arrival in record.arrived}


def _meetings(a: Sequence[StepRecord], b: Sequence[StepRecord]) -> int:
    there = arrivals(b)
    return sum(there.get(name) == position for name, position in arrivals(a).items())
