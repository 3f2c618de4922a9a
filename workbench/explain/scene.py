"""``Scene``: one step of a trace with what its sentences need, each part worked out when it is first asked for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from workbench.config import EngineConfig
from workbench.events import Decision, Scheduled, StepRecord
from workbench.explain.course import Course, taken_by
from workbench.prefix_story.past import planned_events
from workbench.request import Request
from workbench.trace import Trace


class Scene:
    """A step, its settings, and what was there before it; scenes of one trace may share its ``course``."""

    def __init__(self, trace: Trace, record: StepRecord, course: Course | None = None) -> None:
        self.trace = trace
        self.record = record
        self.step = record.step
        self.course = Course(trace) if course is None else course
        self.position = record.step - self.course.records[0].step
        self.decisions = {decision.request_id: decision for decision in record.decisions}
        self.rows = {row.request_id: row for row in record.scheduled}

    @cached_property
    def config(self) -> EngineConfig:
        """The settings with which the step was planned."""
        return self.course.config(self.position)

    @cached_property
    def _planned(self) -> Counter[str]:
        """By how much planning changed the blocks that each request holds."""
        held: Counter[str] = Counter()
        for event in planned_events(self.record):
            held[event.request_id] += taken_by(event)
        return held

    def holds(self, request_id: str) -> int | None:
        """Blocks that a request held when the step was planned, ``None`` where the trace begins too late to tell."""
        first = self.course.records[0]
        if first.step and request_id in (*first.running, *first.held) and request_id not in first.admitted:
            return None
        return (self.course.held[request_id].before(self.position) or 0) + self._planned[request_id]

    def request(self, request_id: str) -> Request:
        """A request as it was in this step."""
        return self.course.request(request_id, self.position)

    def num_tokens(self, request_id: str) -> int:
        """Prompt and output tokens of a request known before the step."""
        return self.request(request_id).num_prompt_tokens + self.output_before(request_id)

    def known_blocks(self, request_id: str) -> int:
        """Blocks that the known tokens of a request fill or begin."""
        return -(-self.num_tokens(request_id) // self.config.block_size)

    def output_before(self, request_id: str) -> int:
        """Output tokens of a request known before the step; another prompt drops those from before."""
        return self.course.outputs[request_id].before(2 * self.position + 1) or 0

    def computed(self, request_id: str) -> int:
        """Tokens of a running request whose keys and values were there before the step."""
        return self.course.rows[request_id].before(self.position) or 0

    def waits(self, request_id: str) -> bool:
        """Whether a request was in the waiting queue, not in the batch."""
        return request_id in self.record.waiting

    def ran_before(self, request_id: str) -> bool:
        """Whether a request had run in an earlier step."""
        return self.course.rows[request_id].before(self.position) is not None

    def ended_before(self, request_id: str, record: StepRecord) -> bool:
        """Whether a request had ended in a step before that of ``record``."""
        return self.course.ends[request_id].before(record.step - self.step + self.position) is not None

    def place(self, decision: Decision) -> int:
        """Place in the waiting queue, from 1."""
        return self.record.waiting.index(decision.request_id) + 1

    @property
    def pool(self) -> int:
        """Blocks of the pool."""
        return self.record.kv.total

    # -- what came later -------------------------------------------------------------------------------------------

    def next_run(self, request_id: str) -> StepRecord | None:
        """The next step that ran a request."""
        return self._later(self.course.rows[request_id].next(self.position))

    def next_end(self, request_id: str) -> StepRecord | None:
        """The later step that ended a request."""
        return self._later(self.course.ends[request_id].next(self.position))

    def next_arrival(self, request_id: str) -> StepRecord | None:
        """The later step in which a request arrived."""
        return self._later(self.course.arrivals[request_id].next(self.position))

    def next_admission(self, request_id: str) -> StepRecord | None:
        """The next step that let a request into the batch."""
        return self._later(self.course.admissions[request_id].next(self.position))

    def _later(self, position: int | None) -> StepRecord | None:
        return None if position is None else self.course.records[position]

    def letting_go(self, until: StepRecord) -> Sequence[StepRecord]:
        """The steps from this one to that of ``until`` in which blocks were freed."""
        records, found = self.course.records, self.course.letting_go
        low = bisect_left(found, self.position)
        return [records[position] for position in found[low : bisect_right(found, self.position + until.step - self.step)]]


def row_of(record: StepRecord, request_id: str) -> Scheduled | None:
    """A request's row of a step's batch."""
    for row in record.scheduled:
        if row.request_id == request_id:
            return row
    return None
