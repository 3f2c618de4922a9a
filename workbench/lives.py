"""The life of a request: what it did from the step before which it was added to its end, as segments over steps.

Every step in which the request was unfinished, or held by its batch, belongs to exactly one segment.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from workbench.events import Decision, Finished, Reason, StepRecord, Verdict
from workbench.prefix_story.past import gives_another_prompt, unknown_request
from workbench.render._format import ms, plural
from workbench.trace import Trace

Kind = Literal["not arrived", "queue", "prefill", "decode", "idle", "preempted", "held", "finished"]


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive steps ``[start, end)`` in which a request did the same.

    ``kind``: ``not arrived``, ``queue``, ``prefill``, ``decode`` (verifying drafts included), ``idle`` (in the batch, without tokens),
    ``preempted`` (waiting to be resumed), ``held`` (done, but its batch is not), or ``finished``, which takes no steps.
    ``ms``: what its steps took.  ``tokens``: that the model read; ``cached``: that the prefix cache spared; ``output``: that came out;
    ``chunks``: of the prompt.  ``rounds``, ``proposed``, ``accepted``: verifications and their drafts.  ``reasons``: why it did not run,
    with the number of steps.
    ``cause`` and ``other``: how it was preempted, and for whom; how it finished.
    """

    kind: Kind
    start: int
    end: int
    ms: float = 0.0
    tokens: int = 0
    cached: int = 0
    output: int = 0
    chunks: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    reasons: tuple[tuple[Reason, int], ...] = ()
    cause: str = ""
    other: str | None = None

    @property
    def num_steps(self) -> int:
        """Length in steps."""
        return self.end - self.start


class Life(msgspec.Struct, frozen=True):
    """What one request went through, in order; it prints as a table and a paragraph.

    ``segments`` follow each other without gaps, from the step before which it was added, or the first of the trace, to its end, or the
    trace's.  ``finish_reason`` is ``None`` while it has not ended; ``finished_step`` is the step that ended it.
    """

    request_id: str
    segments: tuple[Segment, ...]
    finish_reason: str | None = None
    finished_step: int | None = None

    @property
    def story(self) -> str:
        """The life in one paragraph."""
        return tell(self)

    def __repr__(self) -> str:
        from workbench.render.why import life_text

        return life_text(self)

    def _repr_html_(self) -> str:
        from workbench.render.why import life_html

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

WORDS = {
    Reason.TOKEN_BUDGET: "for the token budget",
    Reason.MAX_MODEL_LEN: "at max_model_len",
    Reason.MAX_NUM_SEQS: "for a place (max_num_seqs)",
    Reason.NO_FREE_BLOCKS: "for blocks",
    Reason.HEAD_OF_LINE: "behind another",
    Reason.PREEMPTION_IN_STEP: "while others were preempted",
    Reason.CHUNKED_PREFILL_OFF: "for a budget that holds its whole prompt",
    Reason.SPECULATIVE_PADDING: "for room for placeholder drafts",
    Reason.NOT_ARRIVED: "before its arrival",
    Reason.BATCH_NOT_FULL: "for a full batch",
    Reason.BATCH_RUNNING: "for the running batch to end",
    Reason.PREEMPTED_FOR: "when it was preempted",
    Reason.NEVER_FITS: "when it was rejected, because it can never fit",
    Reason.RESERVED_TO_COMPLETION: "for blocks that others had reserved",
    Reason.SIBLING_PREFIX: "for a sibling to compute their common beginning",
    Reason.PREFILL_FIRST: "while prompts went first",
    Reason.MEMORY_ESTIMATE: "for memory that others were expected to need",
    Reason.UNTIL_ONE_FINISHES: "for one to leave the full batch",
    Reason.RETRACTED: "when it was retracted",
    Reason.PLACE_TAKEN: "when another took its place",
}
"""What a request waits for, after a number of steps."""

_CAUSES = (Reason.PREEMPTED_FOR, Reason.RETRACTED, Reason.PLACE_TAKEN)  # of losing its blocks, not of waiting


def note(segment: Segment) -> str:
    """The particulars of a segment."""
    match segment.kind:
        case "prefill":
            return f"{plural(segment.tokens, 'token')} in {plural(segment.chunks, 'chunk')}{_cached(segment)}"
        case "decode":
            drafts = f", {segment.accepted} of {plural(segment.proposed, 'draft')} accepted" if segment.rounds else ""
            return f"{plural(segment.output, 'output token')}{drafts}{_cached(segment)}"
        case "finished":
            return segment.cause
        case "not arrived" | "held":
            return ""
        case _:
            return "; ".join(part for part in (segment.cause, _waits(segment)) if part)


def _waits(segment: Segment) -> str:
    return ", ".join(f"{count} {WORDS[reason]}" for reason, count in segment.reasons if reason not in _CAUSES)


def _cached(segment: Segment) -> str:
    return f", {segment.cached} more from the prefix cache" if segment.cached else ""


def tell(lived: Life) -> str:
    """A life in one paragraph."""
    name, parts = lived.request_id, [_clause(segment) for segment in lived.segments if segment.kind != "finished"]
    output = sum(segment.output for segment in lived.segments)
    if lived.finish_reason is None:
        parts.append("and had not ended when the trace did" if parts else "did nothing in this trace")
    elif lived.finish_reason == "abort":
        parts.append(f"{'and ' if parts else ''}was aborted with {plural(output, 'output token')}")
    else:
        parts.append(f"and finished in step {lived.finished_step} ({lived.segments[-1].cause}) with {plural(output, 'output token')}")
    return f"{name} {', '.join(parts)}."


def _clause(segment: Segment) -> str:
    steps = plural(segment.num_steps, "step")
    particulars = note(segment)
    inside = f" ({particulars})" if particulars else ""
    match segment.kind:
        case "not arrived":
            return f"was expected for {steps}"
        case "queue":
            return f"waited {steps}{inside}"
        case "prefill":
            return f"prefilled from step {segment.start} on in {ms(segment.ms)}{inside}"
        case "decode":
            return f"decoded for {steps} in {ms(segment.ms)}{inside}"
        case "idle":
            return f"stood still in the batch for {steps}{inside}"
        case "preempted":
            waits = _waits(segment)
            return f"was preempted in step {segment.start} {segment.cause}, waited {steps}" + (f" ({waits})" if waits else "")
        case _:
            return f"was held by its batch for {steps}"
