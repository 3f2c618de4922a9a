"""Why, as a screen shows it: a row for every unfinished request of a step, in sentences."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from workbench.events import Decision, Reason, Scheduled, Verdict
from workbench.explain import Explanation, StepExplanation, explain_scene, explain_step
from workbench.explain.course import Course
from workbench.explain.scene import Scene
from workbench.findings.why import CounterfactualData
from workbench.rebuild import check_whole
from workbench.render.board import states_of
from workbench.render.palette import IDLE, PREFILL, VERIFY
from workbench.scheduler import Scheduler
from workbench.trace import Trace

Payload = dict[str, Any]


def why_payload(trace: Trace, step: int, scheduler_at: Callable[[int], Scheduler] | None = None, counterfactuals: bool = True) -> Payload:
    """Why a step is what it is; with ``counterfactuals`` also the smallest changes that would have let each request run.

    ``scheduler_at(step)`` is a faster way to the scheduler before a step than deciding the trace again.
    Raises :class:`IndexError` for a step that the trace does not have, :class:`~workbench.errors.TraceError` for what is no step at all.
    """
    check_whole(step)
    record = trace.at(step)
    if counterfactuals:
        return _payload(trace, explain_step(trace, step, scheduler_at=scheduler_at))
    return _payload(trace, explain_scene(Scene(trace, record)))


def whys(trace: Trace, first_step: int, end_step: int, budget_s: float) -> list[Payload]:
    """Why every step from ``first_step`` to before ``end_step`` is what it is, without counterfactuals.

    For pages that no kernel stands behind.  Ends early when ``budget_s`` seconds are used up.
    """
    began, course = perf_counter(), Course(trace)
    found: list[Payload] = []
    for record in course.records:
        if record.step >= end_step or perf_counter() - began > budget_s:
            break
        if record.step >= first_step:
            found.append(_payload(trace, explain_scene(Scene(trace, record, course))))
    return found


def _payload(trace: Trace, told: StepExplanation) -> Payload:
    record = trace.at(told.step)
    states, rows = states_of(record), {row.request_id: row for row in record.scheduled}
    return {
        "step": told.step,
        "summary": told.summary,
        "commands": list(told.commands),
        "rows": [_row(one, states.get(one.request_id, ""), rows.get(one.request_id)) for one in told.explanations],
    }


def _row(told: Explanation, state: str, row: Scheduled | None) -> Payload:
    return {
        "request": told.request_id,
        "verdict": told.decision.verdict.value,
        "label": _label(told.decision, state, row),
        "sentence": told.sentence,
        "more": [*told.chain, *[text for text in (told.prefix, told.afterwards) if text]],
        "changes": [{"label": _change(found), "fork": found.changes} for found in told.counterfactuals],
        "tried": told.tried,
    }


def _label(decision: Decision, state: str, row: Scheduled | None) -> str:
    """What a request did, in a word or three."""
    if decision.reason is Reason.NOT_ARRIVED:
        return "not arrived"
    if decision.verdict is Verdict.REJECTED:
        return "rejected"
    if row is not None and state == PREFILL:
        if decision.verdict is Verdict.PARTIAL:
            return f"chunk {decision.num_tokens} of {decision.needed}"
        return f"prefill {row.num_tokens}"
    if row is not None and state == VERIFY:
        return f"verify {row.num_drafts}"
    return "not in this step" if state == IDLE else state


def _change(found: CounterfactualData) -> str:
    value = {True: "on", False: "off"}[found.after] if isinstance(found.after, bool) else f"{found.after:,}"
    effect = found.goal if found.goal == "run in full" else "keep running" if found.verdict is Verdict.PREEMPTED else "run it"
    return f"{found.knob} {value.replace('-', '−')} → {effect}"
