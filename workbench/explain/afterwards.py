"""Looking forward in a trace: when a request ran that did not run in full, and what freed the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from workbench.events import BlockEvent, Decision, Finished, Reason, Scheduled, StepRecord, Verdict
from workbench.explain.commands import knobs_in_words
from workbench.explain.scene import Scene, row_of
from workbench.explain.sentences import listed
from workbench.prefix_story.past import events_before_admission, planned_events
from workbench.render._format import plural

_BUDGET = (Reason.TOKEN_BUDGET, Reason.CHUNKED_PREFILL_OFF, Reason.SPECULATIVE_PADDING)
_NO_RELEASE = (Reason.NOT_ARRIVED, Reason.BATCH_NOT_FULL, Reason.MAX_MODEL_LEN, Reason.SIBLING_PREFIX, Reason.PREFILL_FIRST, *_BUDGET)
_SHOWN = 3  # releases named in a sentence


def afterwards(scene: Scene, decision: Decision) -> str | None:
    """What became of the request after this decision, as far as the trace goes; ``None`` when it ran in full and did not end."""
    name = decision.request_id
    here = _end_in(scene.record, name)
    if here is not None and decision.verdict is not Verdict.PREEMPTED:
        return _ended_here(here, decision)
    if decision.verdict is Verdict.SCHEDULED:
        return None
    ran, end = scene.next_run(name), scene.next_end(name)
    if ran is not None and (end is None or ran.step <= end.step):
        row = row_of(ran, name)
        assert row is not None
        return _ran(scene, decision, ran, row)
    if end is not None:
        return _never(scene, end, decision)
    last = scene.course.records[-1].step
    if scene.next_arrival(name) is not None:
        return f"It arrived, but had not run when the trace ended with step {last}."
    return f"It had not run{_again(scene, name)} when the trace ended with step {last}."


def _end_in(record: StepRecord, name: str) -> Finished | None:
    return next((end for end in record.finished if end.request_id == name), None)


def _again(scene: Scene, name: str) -> str:
    return " again" if scene.ran_before(name) or name in scene.rows else ""


def _ended_here(end: Finished, decision: Decision) -> str:
    if decision.verdict is Verdict.REJECTED:
        return "It was ended with this step (abort)."
    return f"It finished in this step ({ending(end)})."


def ending(end: Finished) -> str:
    """How a request ended: ``length``, ``stop at 'x'``, ``abort``."""
    return end.reason if end.stop_reason is None or end.reason == "abort" else f"{end.reason} at {end.stop_reason!r}"


def _never(scene: Scene, record: StepRecord, decision: Decision) -> str:
    name = decision.request_id
    never = f"It never ran{_again(scene, name)}"
    if any(other.request_id == name and other.verdict is Verdict.REJECTED for other in record.decisions):
        return f"{never}: it was rejected in step {record.step}, because it can never fit."
    return f"{never}: it was aborted before step {record.step}."


def _ran(scene: Scene, decision: Decision, record: StepRecord, row: Scheduled) -> str:
    """The step in which it ran next, how many steps later that was, and what freed the way."""
    name, away = decision.request_id, record.step - scene.step
    if name not in record.admitted:
        tail = f", {plural(row.num_tokens, 'token')}" if decision.verdict is Verdict.PARTIAL else ""
        return f"It next ran in step {record.step}{tail}{_budget_left(record, name, decision)}."
    when = f"in the next step, {record.step}" if away == 1 else f"in step {record.step}, {away} steps later"
    verb, lead = "resumed" if name in record.resumed else "admitted", "It was"
    if decision.reason is Reason.NOT_ARRIVED:
        arrived = scene.next_arrival(name) or record
        lead, when = f"It arrived in step {arrived.step} and was", "at once" if arrived is record else f"in step {record.step}"
    found = _found_again(scene, record, row, name) if decision.verdict is Verdict.PREEMPTED else ""
    return f"{lead} {verb} {when}{_way(scene, decision, record)}{found}."


def _found_again(scene: Scene, record: StepRecord, row: Scheduled, name: str) -> str:
    lost = scene.computed(name)
    if not scene.config.enable_prefix_caching:
        return f"; prefix caching is off, so the {plural(lost, 'token')} that it had lost had to be computed again"
    if not row.num_cached:
        return f"; the prefix cache gave back none of the {plural(lost, 'token')} that it had lost"
    blocks = plural(row.num_cached // scene.config.block_size, "block")
    return f"; it found {plural(row.num_cached, 'token')} ({blocks}) in the prefix cache, and had lost {lost}"


def _way(scene: Scene, decision: Decision, record: StepRecord) -> str:
    """What freed the way between this step and the admission in ``record``."""
    changed = list(_knob_changes(scene, record))
    if decision.reason in _NO_RELEASE:
        others = [name for name in record.admitted if name != decision.request_id]
        if decision.reason is Reason.BATCH_NOT_FULL and others:
            return f", together with {listed(others)}"
        return _budget_left(record, decision.request_id, decision)
    released = list(_releases(scene, record, decision.request_id))
    head = _head_left(scene, decision, record)
    shown = [f"{_how(scene, where, other)} ({plural(count, 'block')})" for where, other, count in released[-_SHOWN:]]
    parts = [*shown, *changed, *head]
    more = len(released) - _SHOWN
    return f", after {_and(parts)}" + (f" (and {more} had let go of blocks before)" if more > 0 else "") if parts else ""


def _budget_left(record: StepRecord, name: str, decision: Decision) -> str:
    if decision.reason not in _BUDGET:
        return ""
    before = record.scheduled[: [row.request_id for row in record.scheduled].index(name)]
    left = record.tokens.limit - sum(row.num_tokens for row in before)
    return f", when {left} of the token budget of {record.tokens.limit} {'was' if left == 1 else 'were'} left for it"


def _head_left(scene: Scene, decision: Decision, until: StepRecord) -> list[str]:
    """When the request in front of it was admitted."""
    if decision.reason is not Reason.HEAD_OF_LINE or decision.blocker is None:
        return []
    admitted, end = scene.next_admission(decision.blocker), scene.next_end(decision.blocker)
    if admitted is not None and admitted.step <= until.step and (end is None or admitted.step <= end.step):
        return [f"{decision.blocker} was admitted in step {admitted.step}"]
    if end is not None and end.step <= until.step:
        return [f"{decision.blocker} was aborted before step {end.step}"]
    return []


def _releases(scene: Scene, until: StepRecord, name: str) -> Iterator[tuple[StepRecord, str, int]]:
    """Who let go of blocks, and how many, since this step was planned, until ``name`` was admitted in ``until``."""
    for record in scene.letting_go(until):
        events: Sequence[BlockEvent] = record.block_events
        if record is scene.record:
            events = events[len(planned_events(record)) :]
        elif record is until:
            events = events_before_admission(record, name)
        freed = [event.request_id for event in events if event.kind == "freed" and event.request_id != name]
        for other, group in groupby(freed):
            yield record, other, len(list(group))


def _how(scene: Scene, record: StepRecord, other: str) -> str:
    end = _end_in(record, other)
    if end is not None:
        return f"{other} was aborted before step {record.step}" if end.reason == "abort" else f"{other} finished in step {record.step}"
    if scene.ended_before(other, record):
        return f"{other} left with its batch in step {record.step}"
    if other in record.preempted:
        return f"{other} was preempted in step {record.step}"
    return f"{other} had to start again before step {record.step}"


def _knob_changes(scene: Scene, until: StepRecord) -> Iterator[str]:
    """Changes of settings after this step, until ``until``."""
    first = scene.position - scene.step
    for position, command in scene.course.changes(scene.position + 1, first + until.step + 1):
        if command.kind == "knobs":
            yield from (f"{what} before step {position - first}" for what in knobs_in_words(command))


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
