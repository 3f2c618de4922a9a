"""``Course``: a trace indexed by request, so that what lies before or after a step is looked up and not searched for.

Each index is made when it is first asked for, in one pass over the records there are then.  Positions count records from 0.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property
from typing import Generic, TypeVar

from workbench.config import EngineConfig
from workbench.events import BlockEvent, Command, StepRecord
from workbench.prefix_story.past import gives_another_prompt, unknown_request
from workbench.request import Request
from workbench.trace import Trace

Value = TypeVar("Value")

TAKES = ("allocated", "hit", "shared")


class Series(Generic[Value]):
    """Values that something takes at rising positions."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.values: list[Value] = []

    def put(self, position: int, value: Value) -> None:
        """The value from ``position`` on."""
        self.positions.append(position)
        self.values.append(value)

    def before(self, position: int) -> Value | None:
        """The last value put at an earlier position."""
        place = bisect_left(self.positions, position)
        return self.values[place - 1] if place else None

    def next(self, position: int) -> int | None:
        """The first later position."""
        place = bisect_right(self.positions, position)
        return self.positions[place] if place < len(self.positions) else None


Index = defaultdict[str, Series[Value]]


class Course:
    """What happened to each request, when."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.records: list[StepRecord] = list(trace.records)  # as of now: a run may be adding to them

    @cached_property
    def rows(self) -> Index[int]:
        """When each request ran, and how many of its tokens had keys and values then."""
        found: Index[int] = defaultdict(Series)
        for position, record in enumerate(self.records):
            rejected = {spec.request_id: spec.proposed - spec.accepted for spec in record.spec}
            for row in record.scheduled:
                found[row.request_id].put(position, row.end - rejected.get(row.request_id, 0))
        return found

    @cached_property
    def outputs(self) -> Index[int]:
        """How many output tokens each request had, by twice the position, and one more for what the step itself brought."""
        found: Index[int] = defaultdict(Series)
        for position, record in enumerate(self.records):
            for command in record.commands:
                if gives_another_prompt(command):
                    found[command.request_id].put(2 * position, 0)
            for sampled in record.sampled:
                series = found[sampled.request_id]
                before = series.values[-1] if series.values else 0
                series.put(2 * position + 1, before + len(sampled.token_ids))
        return found

    @cached_property
    def held(self) -> Index[int]:
        """How many blocks each request held after a step."""
        found: Index[int] = defaultdict(Series)
        for position, record in enumerate(self.records):
            for event in record.block_events:
                taken = taken_by(event)
                if taken:
                    series = found[event.request_id]
                    before = series.values[-1] if series.values else 0
                    series.put(position, before + taken)
        return found

    @cached_property
    def ends(self) -> Index[str]:
        """When each request ended, and how."""
        found: Index[str] = defaultdict(Series)
        for position, record in enumerate(self.records):
            for end in record.finished:
                found[end.request_id].put(position, end.reason)
        return found

    @cached_property
    def arrivals(self) -> Index[None]:
        """When each request arrived."""
        found: Index[None] = defaultdict(Series)
        for position, record in enumerate(self.records):
            for arrival in record.arrived:
                found[arrival.request_id].put(position, None)
        return found

    @cached_property
    def admissions(self) -> Index[None]:
        """When each request entered the batch."""
        found: Index[None] = defaultdict(Series)
        for position, record in enumerate(self.records):
            for name in record.admitted:
                found[name].put(position, None)
        return found

    @cached_property
    def letting_go(self) -> list[int]:
        """The positions in which blocks were freed."""
        return [position for position, record in enumerate(self.records) if any(event.kind == "freed" for event in record.block_events)]

    @cached_property
    def _changes(self) -> list[tuple[int, Command]]:
        """Edits and changes of settings."""
        return [
            (position, command)
            for position, record in enumerate(self.records)
            for command in record.commands
            if command.kind in ("edit", "knobs")
        ]

    def changes(self, first: int, end: int) -> list[tuple[int, Command]]:
        """Edits and changes of settings before the steps in positions ``[first, end)``."""
        low = bisect_left(self._changes, first, key=lambda change: change[0])
        return self._changes[low : bisect_left(self._changes, end, key=lambda change: change[0])]

    def config(self, position: int) -> EngineConfig:
        """The settings with which a step was planned."""
        config = self.trace.config
        for _, command in reversed(self.changes(position + 1, len(self.records))):
            if command.kind == "knobs":
                config = config.replace(**command.before)
        return config

    def request(self, name: str, position: int) -> Request:
        """A request as it was when a step was planned.  Raises :class:`~workbench.errors.RequestError` for an unknown one."""
        if name not in self.trace.requests:
            raise unknown_request(self.trace, name)
        request = self.trace.requests[name]
        for _, command in reversed(self.changes(position + 1, len(self.records))):
            if command.kind == "edit" and command.request_id == name:
                request = request.edited(**command.before)
        return request


def taken_by(event: BlockEvent) -> int:
    """By how much an event changes the number of blocks that its request holds."""
    return (event.kind in TAKES) - (event.kind == "freed")
