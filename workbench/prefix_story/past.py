"""What was known, computed and cached before a step, folded from a trace's records.

No scheduler runs here: prompts and their edits, sampled tokens, computed ranges and block events are all in the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from workbench.config import EngineConfig
from workbench.errors import RequestError
from workbench.events import BlockEvent, Command, StepRecord
from workbench.rebuild import originals
from workbench.request import Request
from workbench.trace import Trace

LossKind = Literal["reused", "reset", "knobs"]


class Loss(NamedTuple):
    """How cached content went: its block was ``reused`` for request ``by`` in ``step``, or a command before the step dropped it."""

    kind: LossKind
    step: int
    by: str


class Computed(NamedTuple):
    """Tokens of a request whose keys and values had been computed at some time."""

    request_id: str
    token_ids: Sequence[int]


class Fate(NamedTuple):
    """Of one block's content: whether it was findable, who made it so and when, and how it was last lost."""

    cached: bool
    by: str = ""
    step: int = 0
    loss: Loss | None = None


def config_at(trace: Trace, step: int) -> EngineConfig:
    """The settings with which ``step`` was planned: those of the trace, with the changes of later steps taken back."""
    config = trace.config
    for record in reversed(trace.records):
        if record.step <= step:
            break
        for command in reversed(record.commands):
            if command.kind == "knobs":
                config = config.replace(**command.before)
    return config


def request_at(trace: Trace, request_id: str, step: int) -> Request:
    """A request as it was when ``step`` was planned, edits of later steps taken back.  Raises :class:`RequestError` for an unknown one."""
    if request_id not in trace.requests:
        raise unknown_request(trace, request_id)
    request = trace.requests[request_id]
    for record in reversed(trace.records):
        if record.step <= step:
            break
        for command in reversed(record.commands):
            if command.kind == "edit" and command.request_id == request_id:
                request = request.edited(**command.before)
    return request


def gives_another_prompt(command: Command) -> bool:
    """Whether a command edited a prompt, so that its request began afresh."""
    if command.kind != "edit" or "prompt_token_ids" not in command.after:
        return False
    return tuple(command.after["prompt_token_ids"]) != tuple(command.before["prompt_token_ids"])


def unknown_request(trace: Trace, request_id: object) -> RequestError:
    """The error for a request that the trace does not know; it names those that it does."""
    names = list(trace.requests)
    known = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return RequestError(f"no request has the id {request_id!r} in this trace; it has {known or 'none'}")


def planned_events(record: StepRecord) -> Sequence[BlockEvent]:
    """The block events of a step without those of its end.

    There, finished requests let go of their blocks, full blocks become findable under some policies, and a request may change its
    own copy for an equal one that was cached before (``shared`` or ``hit``, then ``freed``).
    """
    ended = {end.request_id for end in record.finished if end.reason != "abort"}
    events = record.block_events
    end = len(events)
    while end:
        last, before = events[end - 1], events[end - 2] if end > 1 else None
        if last.kind == "cached" or (last.kind == "freed" and last.request_id in ended):
            end -= 1
        elif last.kind == "freed" and before and before.kind in ("shared", "hit") and before.request_id == last.request_id:
            end -= 2
        else:
            break
    return events[:end]


def events_before_admission(record: StepRecord, request_id: str) -> Sequence[BlockEvent]:
    """The block events of a step up to the look-up of a request that it admitted.

    A step that was attempted before may hold an earlier admission of the same request, which was taken back: the last one counts.
    """
    events = planned_events(record)
    own = [(position, event.kind) for position, event in enumerate(events) if event.request_id == request_id]
    first = len(events)
    for position, kind in reversed(own):
        if kind == "freed":
            break
        if kind != "cached":
            first = position
    return events[:first]


class Past:
    """Known and computed tokens of every request, folded step by step up to the look-up of one request."""

    def __init__(self, trace: Trace, request_id: str, step: int) -> None:
        self.known = {name: list(request.prompt_token_ids) for name, request in originals(trace).items()}
        self._computed: dict[str, int] = {}
        self._given_up: list[Computed] = []  # by requests that were given another prompt later
        for record in trace.records:
            if record.step > step:
                break
            self._edits(record)
            rows = record.scheduled
            if record.step == step:
                before = [row.request_id for row in rows].index(request_id)
                self._rows(record, before)
                break
            self._rows(record, len(rows))
            for sampled in record.sampled:
                self.known.setdefault(sampled.request_id, []).extend(sampled.token_ids)

    def computed(self) -> Iterator[Computed]:
        """Everything that had been computed, whether or not it was still cached."""
        yield from self._given_up
        for name, end in self._computed.items():
            yield Computed(name, self.known[name][:end])

    def _edits(self, record: StepRecord) -> None:
        for command in record.commands:
            if gives_another_prompt(command):
                name = command.request_id
                self._given_up.append(Computed(name, self.known[name][: self._computed.pop(name, 0)]))
                self.known[name] = list(command.after["prompt_token_ids"])

    def _rows(self, record: StepRecord, count: int) -> None:
        for row in record.scheduled[:count]:
            known = len(self.known.setdefault(row.request_id, []))
            self._computed[row.request_id] = max(self._computed.get(row.request_id, 0), min(row.end, known))


def fate_of(trace: Trace, request_id: str, step: int, digest: bytes) -> Fate:
    """What had become of the content with ``digest`` when ``request_id`` looked it up in ``step``."""
    wanted = digest[:8].hex()
    copies: dict[int, tuple[str, int]] = {}  # block -> who cached it, in which step; the oldest first
    loss = None
    for record in trace.records:
        if record.step > step:
            break
        events = record.block_events if record.step < step else events_before_admission(record, request_id)
        for event, following in pairwise((*events, None)):
            if event is None or event.hash != wanted:
                continue
            if event.kind == "cached":
                copies[event.block_id] = (event.request_id, record.step)
            elif event.kind == "evicted":
                promised = copies.pop(event.block_id, ("", -1))[1] == record.step
                loss = _loss(record, event, following, promised) or loss
    for by, when in copies.values():
        return Fate(True, by, when, loss)
    return Fate(False, loss=loss)


def _loss(record: StepRecord, event: BlockEvent, following: BlockEvent | None, promised: bool) -> Loss | None:
    """How this eviction came about; ``None`` when an attempt that was taken back had only ``promised`` the content."""
    if not event.request_id:
        emptied = any(command.kind == "reset" for command in record.commands)
        return Loss("reset" if emptied else "knobs", record.step, "")
    reused = following is not None and following.kind == "allocated" and following.block_id == event.block_id
    retracted = promised and not reused and any(command.kind == "abandoned" for command in record.commands)
    return None if retracted else Loss("reused", record.step, event.request_id)
