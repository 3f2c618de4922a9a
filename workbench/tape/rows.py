"""A step's record as rows of the tables: lanes, tokens, verifications, block events."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain

from workbench.events import Decision, Reason, Sampled, StepRecord, Verdict
from workbench.render.board import states_of
from workbench.render.palette import DECODE, HELD, IDLE, PREEMPTED, PREFILL, VERIFY, WAITING
from workbench.tape.columns import NO_CODE, NO_TOKEN, NONE, Row, Rows

REASONS = tuple(reason.value for reason in Reason)
TOUCHES = ("allocated", "hit", "shared", "cached", "evicted", "freed")
DECODED, ACCEPTED, CORRECTED, BONUS = range(4)

_STATES = {kind: code for code, kind in enumerate((PREFILL, DECODE, VERIFY, WAITING, IDLE, HELD, PREEMPTED))}
_VERDICTS = {verdict: code for code, verdict in enumerate(Verdict)}
_REASONS = {reason: code for code, reason in enumerate(Reason)}
_TOUCHES: dict[str, int] = {kind: code for code, kind in enumerate(TOUCHES)}
_FINISHES = {"stop": 1, "length": 2, "abort": 3}
_NOT_DECIDED = (NO_CODE, NO_CODE, NONE, NONE, NONE, -1)
_NOT_RUN = (0, 0, 0, 0)

Numbers = Mapping[str, int]


def step_row(record: StepRecord, wasted: int | None) -> Row:
    """The row of ``steps``, without the counts of other rows."""
    timing, kv = record.timing, record.kv
    return (
        record.start_s, timing.plan_ms, timing.prepare_ms, timing.forward_ms, timing.sample_ms, timing.commit_ms,
        timing.draft_ms, record.tokens.limit, record.tokens.used, record.seqs.limit, record.seqs.used,
        kv.in_use, kv.cached, kv.free, len(record.running), len(record.waiting),
        NO_CODE if record.draft_choice is None else record.draft_choice.num_drafts, NONE if wasted is None else wasted,
    )  # fmt: skip


def lane_rows(record: StepRecord, numbers: Numbers) -> Rows:
    """A row for every request in sight, in order of their numbers."""
    states = states_of(record)
    decisions = {decision.request_id: decision for decision in record.decisions}
    rows = {row.request_id: row for row in record.scheduled}
    sampled = {entry.request_id: len(entry.token_ids) for entry in record.sampled}
    accepted = {spec.request_id: spec.accepted for spec in record.spec}
    ended = {end.request_id: _FINISHES[end.reason] for end in record.finished}
    lanes: Rows = []
    for number, name in sorted([(numbers[name], name) for name in states]):
        row, decision = rows.get(name), decisions.get(name)
        start, end, cached, drafts = (row.start, row.end, row.num_cached, row.num_drafts) if row is not None else _NOT_RUN
        verdict, reason, needed, available, limit, blocker = _told(decision, numbers) if decision is not None else _NOT_DECIDED
        lanes += (
            number, _STATES[states[name]], verdict, reason, start, end, cached, drafts, sampled.get(name, 0),
            accepted.get(name, -1), ended.get(name, 0), needed, available, limit, blocker,
        )  # fmt: skip
    return lanes


def _told(decision: Decision, numbers: Numbers) -> tuple[int, int, int, int, int, int]:
    needed, available, limit = decision.needed, decision.available, decision.limit
    return (
        _VERDICTS[decision.verdict],
        _REASONS[decision.reason],
        NONE if needed is None else needed,
        NONE if available is None else available,
        NONE if limit is None else limit,
        -1 if decision.blocker is None else numbers[decision.blocker],
    )


def touch_rows(record: StepRecord, numbers: Numbers) -> Rows:
    """A row for every block event, in order."""
    touches: Rows = []
    for event in record.block_events:
        touches += (event.block_id, _TOUCHES[event.kind], numbers[event.request_id] if event.request_id else -1)
    return touches


def token_rows(record: StepRecord, numbers: Numbers) -> tuple[Rows, Rows]:
    """A row for every token that came out, and one for every alternative that its log-probabilities name."""
    tokens: Rows = []
    tops: Rows = []
    rounds = {spec.request_id: spec for spec in record.spec}
    for entry in record.sampled:
        number, round_ = numbers[entry.request_id], rounds.get(entry.request_id)
        right = 0 if round_ is None else round_.accepted
        after = DECODED if round_ is None else BONUS if round_.rejected_at is None else CORRECTED
        for place, token in enumerate(entry.token_ids):
            origin = ACCEPTED if place < right else after
            if place < len(entry.logprobs):
                scores = entry.logprobs[place]
                tokens += (number, token, origin, scores.logprob, scores.rank, len(scores.top_ids))
                tops += chain.from_iterable(zip(scores.top_ids, scores.top_logprobs, strict=True))
            else:
                tokens += (number, token, origin, math.nan, 0, 0)
    return tokens, tops


def token_ids(sampled: tuple[Sampled, ...]) -> Iterator[int]:
    """Every token id that a step names."""
    for entry in sampled:
        yield from entry.token_ids
        for scores in entry.logprobs:
            yield from scores.top_ids


class Drafts:
    """The drafts that requests wait to have verified."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, ...]] = {}

    def rows(self, record: StepRecord, numbers: Numbers) -> tuple[Rows, Rows]:
        """Rows of ``rounds`` and ``drafts``, before the record is followed.  A draft that is not known is ``NO_TOKEN``."""
        rounds: Rows = []
        drafts: Rows = []
        for spec in record.spec:
            name = spec.request_id
            known = () if name in record.admitted else self._open.get(name, ())[: spec.proposed]  # a newcomer's are placeholders
            rounds += (numbers[name], spec.proposed, spec.accepted, spec.emitted, spec.draft_ms, spec.verify_ms)
            drafts += [token if token >= 0 else NO_TOKEN for token in known]
            drafts += [NO_TOKEN] * (spec.proposed - len(known))
        return rounds, drafts

    def follow(self, record: StepRecord) -> None:
        """Take the next record in."""
        if self._open:
            for name in (*record.admitted, *record.preempted, *[row.request_id for row in record.scheduled]):
                self._open.pop(name, None)
        for entry in record.proposed:
            self._open[entry.request_id] = entry.token_ids
