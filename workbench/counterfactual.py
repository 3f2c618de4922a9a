"""Counterfactuals: the smallest change of one knob with which a request would have run in a step in which it did not.

Nothing is derived from the reason of a decision: the scheduler before the step is copied, one setting (or the request's priority) is
changed, the step is planned, and the plan says what it would have decided.  So every suggestion holds, whatever the policy, and one unit
less does not do it.  How the smallest one is found, and how sure that is, stands in :mod:`workbench._search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import takewhile

from workbench._search import smallest
from workbench.adjust import change_knobs, edit_request
from workbench.errors import ConfigError, RequestError
from workbench.events import Decision, Reason, Verdict
from workbench.findings.why import TRIED, CounterfactualData, Goal
from workbench.rebuild import rebuild
from workbench.render._format import escape
from workbench.render.prose import change_sentence, no_single_knob
from workbench.scheduler import Scheduler
from workbench.trace import Trace

__all__ = ["TRIED", "Counterfactual", "counterfactuals", "counterfactuals_of_step", "is_asked", "no_single_knob"]

SchedulerAt = Callable[[int], Scheduler]
Plan = dict[str, tuple[Verdict, Reason, int]]


class Counterfactual(CounterfactualData, frozen=True):
    """One change that would have let a request run, or run in full.

    Fields as in :class:`~workbench.findings.why.CounterfactualData`.
    """

    @property
    def sentence(self) -> str:
        """The change and its effect in one plain sentence."""
        return change_sentence(self)

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"Counterfactual({self.sentence!r}, {self.changes})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.sentence)}</p>"


def counterfactuals(trace: Trace, request_id: str, step: int, *, scheduler_at: SchedulerAt | None = None) -> tuple[Counterfactual, ...]:
    """Every knob that alone would have let a request run in ``step`` (or run in full), each with its smallest change.

    The least intrusive comes first (:data:`TRIED`).  Empty for a request that ran in full, had not arrived or was finished, and where no
    single knob would have done (:func:`no_single_knob` says so).  ``scheduler_at`` gives a scheduler as it stood before a step;
    without it the trace is run again.
    Raises :class:`IndexError` for a step that the trace does not have, :class:`RequestError` for an unknown request, and
    :class:`TraceError` for a trace that cannot be run again.
    """
    decisions = [decision for decision in trace.at(step).decisions if decision.request_id == request_id]
    if not decisions and request_id not in trace.requests:
        raise RequestError(f"no request has the id {request_id!r}: this trace has {', '.join(trace.requests) or 'none'}")
    return _answers(trace, step, decisions, scheduler_at).get(request_id, ())


def counterfactuals_of_step(trace: Trace, step: int, *, scheduler_at: SchedulerAt | None = None) -> dict[str, tuple[Counterfactual, ...]]:
    """:func:`counterfactuals` of every request that did not run, or not in full, in ``step``; much faster than one after the other.

    What one request's search planned is not planned again for the next.
    """
    return _answers(trace, step, trace.at(step).decisions, scheduler_at)


def is_asked(decision: Decision) -> bool:
    """Whether a knob might have changed a decision at all.

    Nobody runs before it arrives.  A batch that SGLang's rule found full is not looked at again until one leaves: any change would
    make it look, so a suggestion would name the look and not what was lacking.
    """
    if decision.reason in (Reason.NOT_ARRIVED, Reason.UNTIL_ONE_FINISHES):
        return False
    return decision.verdict is not Verdict.SCHEDULED


def _answers(
    trace: Trace, step: int, decisions: Iterable[Decision], scheduler_at: SchedulerAt | None
) -> dict[str, tuple[Counterfactual, ...]]:
    held_back = [each for each in decisions if is_asked(each)]
    if not held_back:
        return {}
    record = trace.at(step)
    trials = Trials(scheduler_at(step) if scheduler_at is not None else rebuild(trace, step), record.start_s)
    kinds = {row.request_id: row.kind for row in record.scheduled}
    return {each.request_id: tuple(_found(Question(trials, each), step, kinds.get(each.request_id, ""))) for each in held_back}


def _found(question: Question, step: int, part: str) -> Iterator[Counterfactual]:
    decision = question.decision
    for knob in TRIED:
        before = question.value(knob)
        after = question.nearest(knob, before)
        if after is not None:
            yield Counterfactual(decision.request_id, step, knob, before, after, question.goal, decision.verdict, part)


class Trials:
    """One step planned again and again, each time with one thing changed; the scheduler handed in is left as it is."""

    def __init__(self, scheduler: Scheduler, now_s: float) -> None:
        self.scheduler = scheduler
        self.states = scheduler.queues.everyone()
        self._now_s = now_s
        self._plans: dict[tuple[str, str, int], Plan | None] = {}

    def plan(self, knob: str, value: int | bool, request_id: str) -> Plan | None:
        """What the step decides with one value changed, a knob's or the request's priority; ``None`` if the engine refuses it."""
        key = (knob, request_id if knob == "priority" else "", value)
        if key not in self._plans:
            self._plans[key] = self._planned(knob, value, request_id)
        return self._plans[key]

    def _planned(self, knob: str, value: int | bool, request_id: str) -> Plan | None:
        trial = self.scheduler.copy()
        try:
            if knob == "priority":
                edit_request(trial, request_id, {knob: value})
            else:
                change_knobs(trial, {knob: value})
        except ConfigError:
            return None
        trial.plan(self._now_s)
        return {name: (told.verdict, told.reason, told.num_tokens) for name, told in trial.open_decisions().items()}

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens that each request could ever compute in this step, padding drafts included."""
        config = self.scheduler.config
        width = config.max_drafts + config.lookahead_tokens
        return [state.num_tokens + max(len(state.draft_token_ids), width) for state in self.states]

    @cached_property
    def most_blocks(self) -> int:
        """Blocks that hold everybody at full length."""
        blocks_for = self.scheduler.kv.blocks_for
        return sum(blocks_for(max(state.limit, length)) for state, length in zip(self.states, self.lengths, strict=True))


class Question:
    """What one request would have needed to run (in full)."""

    def __init__(self, trials: Trials, decision: Decision) -> None:
        self.trials = trials
        self.decision = decision
        self.goal: Goal = "run in full" if decision.verdict is Verdict.PARTIAL else "run"
        self._goals = (Verdict.SCHEDULED,) if self.goal == "run in full" else (Verdict.SCHEDULED, Verdict.PARTIAL)

    def value(self, knob: str) -> int | bool:
        """The value with which the step was planned."""
        scheduler = self.trials.scheduler
        if knob == "priority":
            return scheduler.queues.states[self.decision.request_id].request.priority
        if knob == "num_blocks":
            return scheduler.kv.pool.num_blocks
        value: int | bool = getattr(scheduler.config, knob)
        return value

    def nearest(self, knob: str, before: int | bool) -> int | bool | None:
        """The value nearest to ``before`` with which the request runs (in full), if there is one."""
        match knob:
            case "enable_chunked_prefill":
                return True if not before and self._meets(knob, True) else None
            case "reserve_full_prompt":
                return False if before and self._meets(knob, False) else None
            case "priority":
                return self._priority(before)
            case "long_prefill_token_threshold":
                return self._threshold(before)
            case "num_blocks":
                return self._moved(knob, before, 1, self.trials.most_blocks)
            case "max_num_batched_tokens":
                return self._moved(knob, before, 1, sum(self.trials.lengths))
            case _:
                return self._batch(knob, before)

    def _batch(self, knob: str, before: int) -> int | None:
        """A batch that waits to be full starts when it is smaller or waits less long; else more places may help."""
        if self.decision.reason is Reason.BATCH_NOT_FULL:
            return self._moved(knob, before, -1, before - (knob == "max_num_seqs"))
        return self._moved(knob, before, 1, len(self.trials.states)) if knob == "max_num_seqs" else None

    def _threshold(self, before: int) -> int | None:
        """The nearest threshold, lower or higher; 0 sets none, which is as high as the longest request."""
        top, knob = max(self.trials.lengths), "long_prefill_token_threshold"
        start = min(before, top) if before else top
        lower = self._moved(knob, start, -1, start - 1)
        higher = self._moved(knob, start, 1, top - start)
        if lower is None or higher is None:
            return higher if lower is None else lower
        return lower if start - lower < higher - start else higher

    def _priority(self, before: int) -> int | None:
        """The largest smaller number with which the request goes first where it has to.

        Only the order of requests counts, and it changes only where a number passes another request's: those are all the values to try.
        """
        queues, name = self.trials.scheduler.queues, self.decision.request_id
        if queues.waiting.policy != "priority":
            return None
        order = queues.states[name].key[1]
        steps = {state.key[0] - (state.key[1] < order) for state in self.trials.states if state.id != name}
        return next((value for value in sorted(steps, reverse=True) if value < before and self._meets("priority", value)), None)

    def _moved(self, knob: str, start: int, direction: int, reach: int) -> int | None:
        """The nearest value to ``start`` in one direction."""
        name, guesses = self.decision.request_id, self._guesses(knob, start)
        distance = smallest(lambda far: self.trials.plan(knob, start + direction * far, name), self._works, reach, guesses)
        return None if distance is None else start + direction * distance

    def _guesses(self, knob: str, start: int) -> list[int]:
        """What the decision's own numbers say is missing."""
        needed, available = self.decision.needed, self.decision.available
        if needed is None or available is None:
            return []
        missing = abs(needed - available)
        if knob == "long_prefill_token_threshold":
            return [missing, abs(start - needed)]
        return [missing, self._tokens_ahead() + 1 - start] if knob == "max_num_batched_tokens" else [missing]

    def _tokens_ahead(self) -> int:
        """Tokens that those before the request in the batch and in the queue want: with one more it has its first."""
        queues = self.trials.scheduler.queues
        ahead = takewhile(lambda state: state.id != self.decision.request_id, (*queues.running, *queues.waiting))
        return sum(state.num_tokens + len(state.draft_token_ids) - state.num_computed_tokens for state in ahead)

    def _meets(self, knob: str, value: int | bool) -> bool:
        return self._works(self.trials.plan(knob, value, self.decision.request_id))

    def _works(self, plan: Plan | None) -> bool:
        return plan is not None and plan[self.decision.request_id][0] in self._goals
