"""``Scene``: one step of a trace with what its sentences need, each part worked out when it is first asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from workbench.config import EngineConfig
from workbench.events import Decision, Scheduled, StepRecord
from workbench.prefix_story.past import config_at, gives_another_prompt, planned_events, request_at
from workbench.request import Request
from workbench.trace import Trace

TAKES = ("allocated", "hit", "shared")


class Scene:
    """A step, its settings, and what was there before it."""

    def __init__(self, trace: Trace, record: StepRecord) -> None:
        self.trace = trace
        self.record = record
        self.step = record.step
        self.decisions = {decision.request_id: decision for decision in record.decisions}
        self.rows = {row.request_id: row for row in record.scheduled}

    @cached_property
    def config(self) -> EngineConfig:
        """The settings with which the step was planned."""
        return config_at(self.trace, self.step)

    @cached_property
    def later(self) -> Sequence[StepRecord]:
        """The records after this one."""
        return self.trace.records[self.step - self.trace.first_step + 1 :]

    @cached_property
    def earlier(self) -> Sequence[StepRecord]:
        """The records before this one."""
        return self.trace.records[: self.step - self.trace.first_step]

    @cached_property
    def blocks(self) -> Counter[str]:
        """Blocks that each request held when the step was planned."""
        held: Counter[str] = Counter()
        for record in self.earlier:
            for event in record.block_events:
                if event.kind in TAKES:
                    held[event.request_id] += 1
                elif event.kind == "freed":
                    held[event.request_id] -= 1
        for event in planned_events(self.record):
            held[event.request_id] += (event.kind in TAKES) - (event.kind == "freed")
        return held

    def holds(self, request_id: str) -> int | None:
        """Blocks that a request held, ``None`` where the trace begins too late to tell."""
        first = self.trace.records[0]
        if self.trace.first_step and request_id in (*first.running, *first.held) and request_id not in first.admitted:
            return None
        return self.blocks[request_id]

    def request(self, request_id: str) -> Request:
        """A request as it was in this step."""
        return request_at(self.trace, request_id, self.step)

    def num_tokens(self, request_id: str) -> int:
        """Prompt and output tokens of a request known before the step."""
        return self.request(request_id).num_prompt_tokens + self.output_before(request_id)

    def known_blocks(self, request_id: str) -> int:
        """Blocks that the known tokens of a request fill or begin."""
        return -(-self.num_tokens(request_id) // self.config.block_size)

    def output_before(self, request_id: str) -> int:
        """Output tokens of a request known before the step; another prompt drops those from before."""
        output = 0
        for record in (*self.earlier, self.record):
            if any(command.request_id == request_id and gives_another_prompt(command) for command in record.commands):
                output = 0
            if record is not self.record:
                output += sum(len(sampled.token_ids) for sampled in record.sampled if sampled.request_id == request_id)
        return output

    def computed(self, request_id: str) -> int:
        """Tokens of a running request whose keys and values were there before the step."""
        for record in reversed(self.earlier):
            row = row_of(record, request_id)
            if row is not None:
                rejected = sum(spec.proposed - spec.accepted for spec in record.spec if spec.request_id == request_id)
                return row.end - rejected
        return 0

    def waits(self, request_id: str) -> bool:
        """Whether a request was in the waiting queue, not in the batch."""
        return request_id in self.record.waiting

    def ran_before(self, request_id: str) -> bool:
        """Whether a request had run in an earlier step."""
        return any(row_of(record, request_id) is not None for record in self.earlier)

    def place(self, decision: Decision) -> int:
        """Place in the waiting queue, from 1."""
        return self.record.waiting.index(decision.request_id) + 1

    @property
    def pool(self) -> int:
        """Blocks of the pool."""
        return self.record.kv.total


def row_of(record: StepRecord, request_id: str) -> Scheduled | None:
    """A request's row of a step's batch."""
    for row in record.scheduled:
        if row.request_id == request_id:
            return row
    return None
