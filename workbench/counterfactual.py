"""Counterfactuals: the smallest change of one knob with which a request would have run in a step in which it did not.

Nothing is derived from the reason of a decision: the scheduler before the step is copied, one setting (or the request's priority) is
changed, the step is planned, and the plan says what it would have decided.  So every suggestion holds, whatever the policy, and one unit
less does not do it.  How the smallest one is found, and how sure that is, stands in :mod:`workbench._search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from workbench._search import smallest
from workbench.adjust import change_knobs, edit_request
from workbench.errors import ConfigError, RequestError
from workbench.events import Decision, Reason, Verdict
from workbench.rebuild import rebuild
from workbench.render._format import escape, plural
from workbench.scheduler import Scheduler
from workbench.state import RequestState
from workbench.trace import Trace

Goal = Literal["run", "run in full"]
SchedulerAt = Callable[[int], Scheduler]
Plan = tuple[tuple[str, Verdict, Reason, int], ...]

TRIED = (
    "priority", "long_prefill_token_threshold", "enable_chunked_prefill", "batch_window_steps", "max_num_seqs",
    "max_num_batched_tokens", "reserve_full_prompt", "num_blocks",
)  # fmt: skip
"""What is tried, the least intrusive first, which is the order of suggestions.

One request's own place comes before what shapes other requests' chunks, that before more work in every step, that before
a promise to a prompt given up (preemptions may follow), and memory, which a running engine cannot get, comes last.
"""


class Counterfactual(msgspec.Struct, frozen=True):
    """One change with which ``request_id`` would have run (or run in full) in ``step``; a smaller one would not have done.

    ``knob`` is an :class:`~workbench.config.EngineConfig` knob, or ``"priority"`` of the request.  ``verdict`` is what the step decided
    instead, ``part`` the kind of row that was cut (``prefill``, ``decode``, ``verify``), empty for one that did not run.
    """

    request_id: str
    step: int
    knob: str
    before: int | bool
    after: int | bool
    goal: Goal
    verdict: Verdict = Verdict.DEFERRED
    part: str = ""

    @property
    def changes(self) -> dict[str, Any]:
        """Keywords of ``fork`` that make the change: ``{"num_blocks": 50}`` or ``{"edit": {"r4": {"priority": 0}}}``."""
        return self._keywords(self.after)

    @property
    def one_unit_less(self) -> dict[str, Any]:
        """Keywords of ``fork`` for the next smaller change, with which the request does not run (or not in full)."""
        if isinstance(self.after, bool):
            return self._keywords(self.before)
        return self._keywords(self.after + (1 if self._falls else -1))

    @property
    def _falls(self) -> bool:
        """Whether the value goes down; a threshold of 0 is none at all, so a finite one is less."""
        return self.after < self.before or (self.knob == "long_prefill_token_threshold" and not self.before)

    def _keywords(self, value: int | bool) -> dict[str, Any]:
        return {"edit": {self.request_id: {"priority": value}}} if self.knob == "priority" else {self.knob: value}

    @property
    def sentence(self) -> str:
        """The change and its effect in one plain sentence."""
        return f"{self._change} {self._effect} in step {self.step}."

    @property
    def _change(self) -> str:
        new, old, values = self.after, self.before, f"({self.knob} {self.after} instead of {self.before})"
        match self.knob:
            case "num_blocks":
                return f"With {plural(new - old, 'more block')} {values}"
            case "max_num_batched_tokens":
                return f"With a token budget of {new} instead of {old} ({self.knob})"
            case "max_num_seqs" if new > old:
                return f"With {plural(new - old, 'more place')} in the batch {values}"
            case "max_num_seqs":
                return f"With a batch of {plural(new, 'request')} instead of {old} ({self.knob})"
            case "long_prefill_token_threshold":
                return f"With chunks of at most {plural(new, 'token')} instead of {old or 'any number'} ({self.knob})"
            case "enable_chunked_prefill":
                return f"With chunked prefill on {values}"
            case "reserve_full_prompt":
                return f"With blocks for its first chunk only, not for its whole prompt {values},"
            case "batch_window_steps":
                return f"With a batch window of {plural(new, 'step')} instead of {old} ({self.knob})"
            case _:
                return f"With {self.knob} {new} instead of {old}"

    @property
    def _effect(self) -> str:
        if self.goal == "run in full":
            whose = "'s prefill" if self.part == "prefill" else ""
            return f"{self.request_id}{whose} would have run in full"
        return f"{self.request_id} would have {'kept running' if self.verdict is Verdict.PREEMPTED else 'run'}"

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"Counterfactual({self.sentence!r}, {self.changes})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.sentence)}</p>"


def counterfactuals(
    trace: Trace, request_id: str, step: int, *, scheduler_at: SchedulerAt | None = None
) -> tuple[Counterfactual, ...]:
    """Every knob that alone would have let a request run in ``step`` (or run in full), each with its smallest change.

    The least intrusive comes first (:data:`TRIED`).  Empty for a request that ran in full, had not arrived or was finished, and where no
    single knob would have done (:func:`no_single_knob` says so).  ``scheduler_at`` gives a scheduler as it stood before a step;
    without it the trace is run again.
    Raises :class:`IndexError` for a step that the trace does not have, :class:`RequestError` for an unknown request, and
    :class:`TraceError` for a trace that cannot be run again.
    """
    record = trace.at(step)
    decision = next((decision for decision in record.decisions if decision.request_id == request_id), None)
    if decision is None:
        if request_id not in trace.requests:
            raise RequestError(f"no request has the id {request_id!r}: this trace has {', '.join(trace.requests) or 'none'}")
        return ()
    if decision.verdict is Verdict.SCHEDULED or decision.reason is Reason.NOT_ARRIVED:
        return ()
    scheduler = scheduler_at(step) if scheduler_at is not None else rebuild(trace, step)
    part = next((row.kind for row in record.scheduled if row.request_id == request_id), "")
    trials = Trials(scheduler, decision, record.start_s)
    return tuple(
        Counterfactual(request_id, step, knob, before, after, trials.goal, decision.verdict, part) for knob, before, after in trials.found()
    )


def no_single_knob(decision: Decision) -> str:
    """The sentence for a request for which :func:`counterfactuals` found nothing."""
    more = "run in full" if decision.verdict is Verdict.PARTIAL else "run"
    return f"No single knob would have let {decision.request_id} {more}: {', '.join(TRIED[:-1])} and {TRIED[-1]} were tried, each alone."


class Trials:
    """One step planned again and again, each time with one thing changed; the scheduler handed in is left as it is."""

    def __init__(self, scheduler: Scheduler, decision: Decision, now_s: float) -> None:
        self.scheduler = scheduler
        self.decision = decision
        self.goal: Goal = "run in full" if decision.verdict is Verdict.PARTIAL else "run"
        self._now_s = now_s
        self._states = scheduler.queues.everyone()

    def outcome(self, knob: str, value: int | bool) -> Plan | None:
        """The plan's verdicts with this one change; ``None`` for a value that the engine refuses."""
        trial = self.scheduler.copy()
        try:
            if knob == "priority":
                edit_request(trial, self.decision.request_id, {knob: value})
            else:
                change_knobs(trial, {knob: value})
        except (ConfigError, RequestError):
            return None
        trial.plan(self._now_s)
        return tuple((told.request_id, told.verdict, told.reason, told.num_tokens) for told in trial.open_decisions().values())

    def works(self, outcome: Plan | None) -> bool:
        """Whether the request runs (in full) in a plan with these verdicts."""
        goals = (Verdict.SCHEDULED,) if self.goal == "run in full" else (Verdict.SCHEDULED, Verdict.PARTIAL)
        return outcome is not None and any(name == self.decision.request_id and verdict in goals for name, verdict, _, _ in outcome)

    def meets_goal(self, knob: str, value: int | bool) -> bool:
        """Whether the request runs (in full) with this one change."""
        return self.works(self.outcome(knob, value))

    def found(self) -> Iterator[tuple[str, int | bool, int | bool]]:
        """Each knob that alone suffices: its value, and the nearest one that does."""
        for knob in TRIED:
            before = self._value(knob)
            after = self.nearest(knob, before)
            if after is not None:
                yield knob, before, after

    def nearest(self, knob: str, before: int | bool) -> int | bool | None:
        """The value nearest to ``before`` that meets the goal."""
        match knob:
            case "enable_chunked_prefill":
                return True if not before and self.meets_goal(knob, True) else None
            case "reserve_full_prompt":
                return False if before and self.meets_goal(knob, False) else None
            case "priority":
                return self._priority(before)
            case "long_prefill_token_threshold":
                return self._threshold(before)
            case "max_num_seqs" | "batch_window_steps" if self.decision.reason is Reason.BATCH_NOT_FULL:
                return self._moved(knob, before, -1, before - (knob == "max_num_seqs"))
            case "batch_window_steps":
                return None
        return self._moved(knob, before, 1, self._reach(knob))

    def _value(self, knob: str) -> int | bool:
        if knob == "priority":
            return self._own.request.priority
        if knob == "num_blocks":
            return self.scheduler.kv.pool.num_blocks
        value: int | bool = getattr(self.scheduler.config, knob)
        return value

    @property
    def _own(self) -> RequestState:
        return self.scheduler.queues.states[self.decision.request_id]

    def _lengths(self) -> list[int]:
        """Tokens that each request could ever compute in this step, padding drafts included."""
        width = self.scheduler.config.num_speculative_tokens
        return [state.num_tokens + max(len(state.draft_token_ids), width) for state in self._states]

    def _reach(self, knob: str) -> int:
        """How far up a change could ever matter: room for everybody at once."""
        if knob == "num_blocks":
            lengths = zip(self._states, self._lengths(), strict=True)
            return sum(self.scheduler.kv.blocks_for(max(state.limit, length)) for state, length in lengths)
        return sum(self._lengths()) if knob == "max_num_batched_tokens" else len(self._states)

    def _moved(self, knob: str, start: int, direction: int, reach: int) -> int | None:
        """The nearest value to ``start`` in one direction."""
        guesses = self._guesses(knob, start)
        distance = smallest(lambda distance: self.outcome(knob, start + direction * distance), self.works, reach, guesses)
        return None if distance is None else start + direction * distance

    def _guesses(self, knob: str, start: int) -> list[int]:
        """What the decision's own numbers say is missing."""
        needed, available = self.decision.needed, self.decision.available
        if needed is None or available is None:
            return []
        missing = [abs(needed - available)]
        return [*missing, abs(start - needed)] if knob == "long_prefill_token_threshold" else missing

    def _threshold(self, before: int) -> int | None:
        """The nearest threshold, lower or higher; 0 sets none, which is as high as the longest request."""
        top, knob = max(self._lengths()), "long_prefill_token_threshold"
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
        if self.scheduler.queues.waiting.policy != "priority":
            return None
        order = self._own.key[1]
        steps = {key[0] if order < key[1] else key[0] - 1 for key in (state.key for state in self._states) if key[1] != order}
        return next((value for value in sorted(steps, reverse=True) if value < before and self.meets_goal("priority", value)), None)
