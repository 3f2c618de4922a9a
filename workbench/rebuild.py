"""Running a trace again: the scheduler as it stood before any step.

The scheduler's decisions depend on its settings, on the commands between steps, on each step's clock, and on the tokens that came
back; a trace holds all four.  So any state of the past is reached by deciding the same steps again, without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.adjust import apply
from workbench.config import EngineConfig
from workbench.errors import TraceError
from workbench.events import Command, StepRecord
from workbench.plan import StepOutput, StepPlan
from workbench.request import Request
from workbench.scheduler import Scheduler, TextSink
from workbench.sizing import longest_request
from workbench.state import RequestState
from workbench.trace import Trace

Execute = Callable[[StepPlan], object]


def rebuild(
    trace: Trace, step: int, *, start: Scheduler | None = None, texts: TextSink | None = None, execute: Execute | None = None
) -> Scheduler:
    """The scheduler as it stood before ``step`` was planned, with the commands of that step done.

    ``step`` may be one more than the last: the state after the whole trace.  ``start`` is a scheduler in an earlier state of the same
    trace, which is moved on; without it the first step is where it begins.  ``texts`` is given all output tokens on the way, and
    ``execute`` each plan.
    Raises :class:`TraceError` for a step that is not there, for a trace that lacks its beginning, and for one whose decisions do not follow
    from its own settings and requests (edited by hand, or recorded by other rules).
    """
    check_step(trace, step)
    if start is None:
        start = beginning(trace)
    requests = originals(trace)
    for record in trace.records[start.step - trace.first_step :]:
        for command in record.commands:
            apply(start, command, requests)
        if record.step == step:
            break
        _again(start, record, texts if texts is not None else _recorded_texts(record), execute)
    return start


def check_whole(step: object) -> None:
    """Raise :class:`TraceError` for what cannot be the number of a step."""
    if type(step) is not int:
        raise TraceError(f"a step is given by its number, a whole one, not {step!r}")


def check_step(trace: Trace, step: int) -> None:
    """Raise :class:`TraceError` unless ``step`` is one of the trace's, or the next after its last."""
    check_whole(step)
    first, end = trace.first_step, trace.first_step + len(trace)
    if not first <= step <= end:
        raise TraceError(f"there is no step {step}: the trace has steps {first} to {end - 1}, and {end} would be the next")
    if first:
        raise TraceError(f"this trace begins at step {first}: what came before it is not there, so it cannot be run again")
    if trace.fidelity != "exact":
        raise TraceError(f"this trace is {trace.fidelity}, not exact: it cannot be run again")


def beginning(trace: Trace) -> Scheduler:
    """The scheduler before the trace's first step: empty, with the settings of that time."""
    config = trace.config
    num_blocks = trace.records[-1].kv.total if trace.records else config.num_blocks or 1
    for command in _commands_backwards(trace, "knobs"):
        config = config.replace(**command.before)
        num_blocks = command.before.get("num_blocks", num_blocks)
    return Scheduler(config, num_blocks=num_blocks, max_model_len=_longest(config, trace, num_blocks))


def _longest(config: EngineConfig, trace: Trace, num_blocks: int) -> int:
    return longest_request(config, trace.model, num_blocks)


def originals(trace: Trace) -> dict[str, Request]:
    """The trace's requests as they were when they were added."""
    requests = dict(trace.requests)
    for command in _commands_backwards(trace, "edit"):
        if command.request_id in requests:
            requests[command.request_id] = requests[command.request_id].edited(**command.before)
    return requests


def requests_before(trace: Trace, step: int) -> dict[str, Request]:
    """The requests that were in the engine by ``step``, as they were before it."""
    first, requests = originals(trace), dict[str, Request]()
    for record in trace.records[: max(step - trace.first_step, 0) + 1]:
        for command in record.commands:
            if command.kind == "add":
                requests[command.request_id] = first[command.request_id]
            elif command.kind == "edit" and record.step < step:
                requests[command.request_id] = requests[command.request_id].edited(**command.after)
    recorded = {command.request_id for record in trace.records for command in record.commands if command.kind == "add"}
    if step >= trace.first_step + len(trace):  # those that came in after the last step
        requests.update({name: request for name, request in first.items() if name not in recorded})
    return requests


def config_before(trace: Trace, step: int) -> EngineConfig:
    """The settings as they were before ``step`` and the commands that came with it."""
    config = trace.config
    for record in reversed(trace.records[max(step - trace.first_step, 0) :]):
        for command in reversed(record.commands):
            if command.kind == "knobs":
                config = config.replace(**command.before)
    return config


def _commands_backwards(trace: Trace, kind: str) -> list[Command]:
    return [command for record in reversed(trace.records) for command in reversed(record.commands) if command.kind == kind]


def _again(scheduler: Scheduler, record: StepRecord, texts: TextSink | None, execute: Execute | None) -> None:
    """Decide one recorded step again, and take its recorded tokens in."""
    plan = scheduler.plan(record.start_s)
    rows = [(row.request.id, row.start, row.end) for row in plan.rows]
    recorded = [(row.request_id, row.start, row.end) for row in record.scheduled]
    if rows != recorded:
        raise TraceError(
            f"step {record.step} of the trace runs {_rows(recorded)}, but its settings and requests lead to {_rows(rows)}: "
            "the trace was edited, or recorded by other rules"
        )
    if execute is not None and plan.rows:
        execute(plan)
    scheduler.commit(plan, recorded_output(record, plan), texts)


def _rows(rows: Sequence[tuple[str, int, int]]) -> str:
    return ", ".join(f"{name}[{start}:{end}]" for name, start, end in rows) or "nothing"


def recorded_output(record: StepRecord, plan: StepPlan) -> StepOutput:
    """What the model returned in a recorded step, row by row of ``plan``."""
    sampled = {entry.request_id: entry.token_ids for entry in record.sampled}
    proposed = {entry.request_id: entry.token_ids for entry in record.proposed}
    ids = [row.request.id for row in plan.rows]
    timing = record.timing  # the number of drafts may depend on it
    return StepOutput(
        [list(sampled.get(name, ())) for name in ids],
        [list(proposed.get(name, ())) for name in ids] if proposed else None,
        prepare_ms=timing.prepare_ms,
        forward_ms=timing.forward_ms,
        sample_ms=timing.sample_ms,
        draft_ms=timing.draft_ms,
    )


class _RecordedTexts:
    """Ends requests at the stop strings that a step recorded, without a tokenizer."""

    def __init__(self, ends: dict[str, str], left: dict[str, int]) -> None:
        self._ends = ends
        self._left = left  # output tokens of this step that are still to come

    def push(self, state: RequestState, token_id: int) -> bool:
        self._left[state.id] -= 1
        return state.id in self._ends and not self._left[state.id]

    def take(self, request_id: str, *, finished: bool) -> str:
        return ""

    def stop_reason(self, request_id: str) -> str | None:
        return self._ends.get(request_id)


def _recorded_texts(record: StepRecord) -> _RecordedTexts | None:
    ends = {end.request_id: end.stop_reason for end in record.finished if end.reason == "stop" and isinstance(end.stop_reason, str)}
    if not ends:
        return None
    return _RecordedTexts(ends, {sampled.request_id: len(sampled.token_ids) for sampled in record.sampled})
