"""The life of a request: what it did from the step before which it was added to its end, as segments over steps.

Every step in which the request was unfinished, or held by its batch, belongs to exactly one segment.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from workbench.events import Decision, Finished, Reason, StepRecord, Verdict
from workbench.findings.why import Kind, LifeData, Segment
from workbench.prefix_story.past import gives_another_prompt, unknown_request
from workbench.render.prose import life_story
from workbench.render.why import life_html, life_text
from workbench.trace import Trace

__all__ = ["Life", "Segment", "life"]


class Life(LifeData, frozen=True):
    """What one request went through, as a paragraph and a table; fields as in :class:`~workbench.findings.why.LifeData`."""

    @property
    def story(self) -> str:
        """The life in one paragraph."""
        return life_story(self)

    def __repr__(self) -> str:
        return life_text(self)

    def _repr_html_(self) -> str:
        return life_html(self)


def life(trace: Trace, request_id: str) -> Life:
    """Follow one request through a trace.  Raises :class:`~workbench.errors.RequestError` for an unknown one."""
    if request_id not in trace.requests:
        raise unknown_request(trace, request_id)
    follower = _Follower(request_id)
    for record in trace.records:
        follower.see(record)
    return follower.life()


class _Follower:
    """Sorts the steps of one request into segments."""

    def __init__(self, request_id: str) -> None:
        self.name = request_id
        self._segments: list[Segment] = []
        self._reasons: Counter[Reason] = Counter()  # of the last segment
        self._end: Finished | None = None
        self._end_step = 0
        self._added: int | None = None
        self._was_running = False
        self._preempted = False  # waits with what it had

    def see(self, record: StepRecord) -> None:
        """Take in the next step."""
        if any(command.kind == "add" and command.request_id == self.name for command in record.commands):
            self._added = record.step
        if any(command.request_id == self.name and gives_another_prompt(command) for command in record.commands):
            self._was_running = self._preempted = False
        decision = next((one for one in record.decisions if one.request_id == self.name), None)
        if decision is not None:
            self._decided(record, decision)
        elif self.name in record.held:
            self._extend(record, Segment(kind="held", start=record.step, end=record.step + 1, ms=record.duration_ms))
        end = next((one for one in record.finished if one.request_id == self.name), None)
        if end is not None:
            self._end, self._end_step = end, record.step

    def life(self) -> Life:
        """The segments so far, closed by the end."""
        segments = tuple(self._segments)
        if self._end is None:
            return Life(self.name, segments)
        at = segments[-1].end if segments else self._end_step if self._added is None else self._added
        how = self._end.reason if self._end.stop_reason is None else f"{self._end.reason}: {self._end.stop_reason!r}"
        last = Segment(kind="finished", start=at, end=at, cause=how)
        return Life(self.name, (*segments, last), self._end.reason, self._end_step)

    def _decided(self, record: StepRecord, decision: Decision) -> None:
        """One step in which the request was unfinished."""
        base = Segment(kind="queue", start=record.step, end=record.step + 1, ms=record.duration_ms)
        row = next((one for one in record.scheduled if one.request_id == self.name), None)
        if row is not None:
            self._extend(record, self._ran(record, base))
            self._was_running, self._preempted = True, False
            return
        if decision.verdict is Verdict.PREEMPTED:
            self._preempted, self._was_running = True, False
            cause = f"for {decision.blocker}" if decision.blocker != self.name else "for its own next token"
            if decision.blocker is None:
                cause = "because the next tokens of all did not fit"
            self._extend(record, msgspec.structs.replace(base, kind="preempted", cause=cause, other=decision.blocker), decision.reason)
            return
        self._extend(record, self._waited(record, base, decision), decision.reason)

    def _waited(self, record: StepRecord, base: Segment, decision: Decision) -> Segment:
        kind: Kind = "queue"
        cause = ""
        if decision.reason is Reason.NOT_ARRIVED:
            kind = "not arrived"
        elif self.name in record.running:
            kind = "idle"
        elif self._was_running or self._preempted:
            kind = "preempted"
            if self._was_running:  # a command put it back
                reset = any(command.kind == "reset" for command in record.commands)
                cause = "by a reset of the prefix cache" if reset else "because an attempt at the step was taken back"
            self._preempted, self._was_running = True, False
        return msgspec.structs.replace(base, kind=kind, cause=cause)

    def _ran(self, record: StepRecord, base: Segment) -> Segment:
        row = next(one for one in record.scheduled if one.request_id == self.name)
        spec = [one for one in record.spec if one.request_id == self.name]
        return msgspec.structs.replace(
            base,
            kind="prefill" if row.kind == "prefill" else "decode",
            tokens=row.num_tokens,
            cached=row.num_cached,
            output=sum(len(one.token_ids) for one in record.sampled if one.request_id == self.name),
            chunks=int(row.kind == "prefill"),
            rounds=len(spec),
            proposed=sum(one.proposed for one in spec),
            accepted=sum(one.accepted for one in spec),
        )

    def _extend(self, record: StepRecord, step: Segment, reason: Reason | None = None) -> None:
        """Join a step to the last segment, or begin a new one."""
        last = self._segments[-1] if self._segments else None
        afresh = bool(step.cause) or (step.kind == "prefill" and self.name in record.admitted)
        if last is None or last.kind != step.kind or afresh:
            self._reasons = Counter()
            self._segments.append(step)
        else:
            sums = {name: getattr(last, name) + getattr(step, name) for name in _SUMMED}
            self._segments[-1] = msgspec.structs.replace(last, end=step.end, **sums)
        if reason is not None:
            self._reasons[reason] += 1
            self._segments[-1] = msgspec.structs.replace(self._segments[-1], reasons=tuple(self._reasons.items()))


_SUMMED = ("ms", "tokens", "cached", "output", "chunks", "rounds", "proposed", "accepted")
