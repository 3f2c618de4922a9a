"""Why a request ran, or did not run, in one step: a sentence with the numbers, and what stands behind it.

Everything is read from a trace.  The scheduler wrote the decision and its numbers; here they are put into words, followed from
request to request, looked up forwards in the trace, and set against the smallest change that would have decided otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from workbench.counterfactual import Counterfactual, counterfactuals, counterfactuals_of_step, is_asked
from workbench.errors import RequestError
from workbench.events import Decision, Reason, StepRecord
from workbench.explain.afterwards import afterwards, ending
from workbench.explain.commands import commands_in_words
from workbench.explain.scene import Scene
from workbench.explain.sentences import listed, sentence
from workbench.findings.why import ExplanationData, StepExplanationData
from workbench.prefix_story import prefix_story
from workbench.prefix_story.past import unknown_request
from workbench.rebuild import rebuild
from workbench.render._format import plural
from workbench.render.why import explanation_html, explanation_text, step_html, step_text
from workbench.scheduler import Scheduler
from workbench.trace import Trace

__all__ = ["Explanation", "StepExplanation", "explain", "explain_scene", "explain_step"]

SchedulerAt = Callable[[int], Scheduler]


class Explanation(ExplanationData, frozen=True):
    """Why a request ran, or did not, in one step; fields as in :class:`~workbench.findings.why.ExplanationData`."""

    counterfactuals: tuple[Counterfactual, ...] = ()

    def __repr__(self) -> str:
        return explanation_text(self)

    def _repr_html_(self) -> str:
        return explanation_html(self)


class StepExplanation(StepExplanationData, frozen=True):
    """A whole step, and why each of its requests ran or did not; fields as in :class:`~workbench.findings.why.StepExplanationData`."""

    explanations: tuple[Explanation, ...]

    def __repr__(self) -> str:
        return step_text(self)

    def _repr_html_(self) -> str:
        return step_html(self)


def explain(trace: Trace, request_id: str, step: int, *, scheduler_at: SchedulerAt | None = None) -> Explanation:
    """Explain what happened to one request in one step.

    ``scheduler_at(step)`` returns a fresh scheduler as it stood before a step; by default the trace is run again to get there.
    Raises :class:`IndexError` for a step that is not in the trace, and :class:`RequestError` for a request that is not known, or was not
    unfinished in that step; both say what there is.
    """
    scene = Scene(trace, trace.at(step))
    if request_id not in scene.decisions:
        raise _no_decision(scene, request_id)
    at = _scheduler_at(trace, scheduler_at)
    changes = counterfactuals(trace, request_id, step, scheduler_at=at) if at is not None else None
    return _explain(scene, scene.decisions[request_id], changes)


def explain_step(trace: Trace, step: int, *, scheduler_at: SchedulerAt | None = None) -> StepExplanation:
    """Explain what happened to every unfinished request in one step; arguments and errors as in :func:`explain`."""
    scene, at = Scene(trace, trace.at(step)), _scheduler_at(trace, scheduler_at)
    return explain_scene(scene, counterfactuals_of_step(trace, step, scheduler_at=at) if at is not None else None)


def explain_scene(scene: Scene, changes: Mapping[str, tuple[Counterfactual, ...]] | None = None) -> StepExplanation:
    """Explain a step from its scene, with the ``changes`` that would have helped, ``None`` if they were not looked for."""
    record = scene.record
    order = dict.fromkeys((*record.running, *record.waiting, *scene.decisions))
    told = [(scene.decisions[name], changes.get(name, ()) if changes is not None else None) for name in order if name in scene.decisions]
    summary = "  ".join([_summary(record), *_drafting(scene)])
    return StepExplanation(scene.step, summary, tuple(commands_in_words(record)), tuple(_explain(scene, *each) for each in told))


def _scheduler_at(trace: Trace, given: SchedulerAt | None) -> SchedulerAt | None:
    """``given``, or copies of schedulers that are rebuilt once; ``None`` for a trace that cannot be run again."""
    if given is not None:
        return given
    if trace.first_step or trace.fidelity != "exact":
        return None
    once = cache(lambda step: rebuild(trace, step))
    return lambda step: once(step).copy()


def _explain(scene: Scene, decision: Decision, changes: tuple[Counterfactual, ...] | None) -> Explanation:
    name, step = decision.request_id, scene.step
    return Explanation(
        name,
        step,
        decision,
        sentence(scene, decision),
        tuple(_chain(scene, decision)),
        afterwards(scene, decision),
        prefix_story(scene.trace, name, step).sentence if name in scene.record.admitted else None,
        changes or (),
        tried=changes is not None and is_asked(decision),
    )


# -- who waits for whom ------------------------------------------------------------------------------------------------


def _chain(scene: Scene, decision: Decision) -> Iterator[str]:
    """A link for each request that stands in another's way, and what the last of them did."""
    seen, current = {decision.request_id}, decision
    while current.blocker is not None and current.blocker not in seen:
        yield _link(scene, current, current.blocker)
        seen.add(current.blocker)
        following = scene.decisions.get(current.blocker)
        if following is None:
            if current.blocker in scene.record.held:
                yield f"{current.blocker} is done, and holds its place until its batch is."
            return
        current = following
    if current is not decision and current.blocker is None:
        yield sentence(scene, current)


def _link(scene: Scene, decision: Decision, blocker: str) -> str:
    name = decision.request_id
    match decision.reason:
        case Reason.NO_FREE_BLOCKS:
            held = scene.holds(blocker)
            return f"{name} waits for blocks that {blocker} holds" + (f", {held} of {scene.pool}." if held is not None else ".")
        case Reason.PREEMPTION_IN_STEP:
            return f"{name} waits because {blocker} was preempted."
        case Reason.PREEMPTED_FOR:
            return f"{name} gave way to {blocker}."
        case Reason.RESERVED_TO_COMPLETION:
            return f"{name} waits for blocks that {blocker} has reserved."
        case Reason.SIBLING_PREFIX:
            return f"{name} waits for {blocker} to compute their common beginning."
        case Reason.PREFILL_FIRST:
            return f"{name} waits for the prompt of {blocker}."
        case Reason.BATCH_RUNNING:
            return f"{name} waits for the batch of {blocker}."
        case _:
            return f"{name} waits behind {blocker}."


# -- the step as a whole -----------------------------------------------------------------------------------------------


def _summary(record: StepRecord) -> str:
    """The step in one line: budgets, blocks, and who came and went."""
    kv, tokens, seqs = record.kv, record.tokens, record.seqs
    ended = [f"{end.request_id} ({ending(end)})" for end in record.finished]
    fresh = [name for name in record.admitted if name not in record.resumed]
    moves = {"admitted": fresh, "resumed": record.resumed, "preempted": record.preempted, "ended": ended, "held by the batch": record.held}
    parts = [
        f"{tokens.used} of {plural(tokens.limit, 'token')}",
        f"{seqs.used} of {plural(seqs.limit, 'request')} running",
        f"{len(record.waiting)} waiting",
        f"blocks {kv.in_use} in use, {kv.cached} cached, {kv.free} free",
        *(f"{what}: {listed(list(names), most=8)}" for what, names in moves.items() if names),
    ]
    return f"Step {record.step}: {'; '.join(parts)}."


def _drafting(scene: Scene) -> Iterator[str]:
    """How many drafts the step asked for and why, and why it got none; nothing when nobody was left to draft for."""
    record, count = scene.record, sum(len(proposed.token_ids) for proposed in scene.record.proposed)
    if record.draft_problem:
        yield f"Proposing drafts failed, so the next step goes on without: {record.draft_problem.rstrip('.')}."
    elif {one.request_id for one in record.sampled} <= {end.request_id for end in record.finished}:
        return
    elif record.draft_choice is not None:
        yield f"For the next step, {record.draft_choice.sentence()}."
        if record.draft_choice.num_drafts and not count:
            yield "None were proposed."
    elif count:
        yield f"For the next step, {plural(count, 'draft')}: num_speculative_tokens allows {scene.config.max_drafts} for each request."
    elif scene.config.max_drafts:
        yield "For the next step, no drafts: none were proposed."


def _no_decision(scene: Scene, request_id: str) -> RequestError:
    """The error for a request without a decision in the step: unknown, not yet there, or gone."""
    trace = scene.trace
    if request_id not in trace.requests:
        return unknown_request(trace, request_id)
    steps = [record.step for record in trace.records if any(decision.request_id == request_id for decision in record.decisions)]
    if not steps:
        return RequestError(f"{request_id} was not unfinished in step {scene.step}, nor in any other step of this trace")
    span = f"in step {steps[0]} only" if len(steps) == 1 else f"from step {steps[0]} to step {steps[-1]}"
    return RequestError(f"{request_id} was not unfinished in step {scene.step}; it was {span}: choose one of these")
