"""``Board``: a trace turned into rows and columns, before anybody draws it.

Pure bookkeeping: which request was in which state in which step, why it waited, and per-step totals.  The picture,
the text timeline and their tests all read the same board, so they cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.events import Decision, Reason, StepRecord, Verdict
from workbench.render._format import plural
from workbench.render.palette import CACHE, HELD, IDLE, PREEMPTED, PREFILL, WAITING, WORK

REASON_WORDS = {
    Reason.FULL: "all the tokens that it could compute",
    Reason.TOKEN_BUDGET: "no token budget left in the step",
    Reason.LONG_PREFILL_THRESHOLD: "at most {limit} tokens of a prompt in a step (long_prefill_token_threshold)",
    Reason.MAX_MODEL_LEN: "at max_model_len",
    Reason.MAX_NUM_SEQS: "{limit} requests run already (max_num_seqs)",
    Reason.NO_FREE_BLOCKS: "needs {blocks}, {available} free",
    Reason.HEAD_OF_LINE: "behind {blocker}",
    Reason.PREEMPTION_IN_STEP: "nobody is admitted in a step that preempts",
    Reason.CHUNKED_PREFILL_OFF: "its {needed} tokens do not fit the {available} left in the step, and chunking is off",
    Reason.SPECULATIVE_PADDING: "its {needed} tokens with draft slots do not fit the {available} left in the step",
    Reason.NOT_ARRIVED: "not arrived",
    Reason.BATCH_NOT_FULL: "waits for a full batch",
    Reason.BATCH_RUNNING: "waits for the running batch to end",
    Reason.PREEMPTED_FOR: "its blocks went to {blocker}",
    Reason.NEVER_FITS: "can never fit the pool",
    Reason.RESERVED_TO_COMPLETION: "may need {blocks} to its end, {available} not in use or reserved",
    Reason.SIBLING_PREFIX: "lets {blocker} compute their common beginning first",
    Reason.PREFILL_FIRST: "this step computes prompts only",
    Reason.MEMORY_ESTIMATE: "expected to need {needed} tokens, {available} are expected to be left",
    Reason.UNTIL_ONE_FINISHES: "the batch was found full, and nobody has left it since",
    Reason.PLACE_TAKEN: "{blocker} took its place (max_num_seqs)",
    Reason.RETRACTED: "the next tokens of all needed {blocks}, {available} free",
}
"""Every reason in a few words, with the numbers of a decision to be filled in; ``{blocks}`` is ``needed`` as a number of blocks."""


@dataclass
class Lane:
    """One request: its state per step (``""`` while it does not exist) and what happened on the way."""

    request_id: str
    kinds: list[str]
    tokens: dict[int, int] = field(default_factory=dict)  # step index -> tokens computed
    cached: dict[int, int] = field(default_factory=dict)  # step index -> tokens that the prefix cache spared
    emitted: dict[int, int] = field(default_factory=dict)  # step index -> tokens out of a verification
    refused: dict[int, Decision] = field(default_factory=dict)  # step index -> why it did not run
    preempted: list[int] = field(default_factory=list)
    finished: tuple[int, str] | None = None

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """Stretches of one state as ``(kind, first, end)``, half-open, gaps left out."""
        start = 0
        for index in range(1, len(self.kinds) + 1):
            if index == len(self.kinds) or self.kinds[index] != self.kinds[start]:
                if self.kinds[start]:
                    yield self.kinds[start], start, index
                start = index

    def why(self, first: int, end: int) -> str:
        """The reasons of a stretch of waiting, most frequent first, each with its latest numbers."""
        refused = [self.refused[i] for i in range(first, end) if i in self.refused]
        reasons = Counter(decision.reason for decision in refused)
        last = {decision.reason: decision for decision in refused}
        return ", ".join(in_words(last[reason]) for reason, _ in reasons.most_common(3))


@dataclass
class Board:
    """All lanes of a trace, in order of arrival, and the records they come from."""

    records: Sequence[StepRecord]
    lanes: list[Lane]

    def __len__(self) -> int:
        return len(self.records)

    def tokens(self, kind: str) -> list[int]:
        """Tokens that rows of ``kind`` computed, per step."""
        return [sum(row.end - row.start for row in record.scheduled if row.kind == kind) for record in self.records]

    def kinds(self) -> set[str]:
        """The states that occur, for a legend without surplus entries."""
        found = {kind for lane in self.lanes for kind in set(lane.kinds) if kind}
        return found | ({CACHE} if any(lane.cached for lane in self.lanes) else set())


def board_of(trace: Any) -> Board:
    """Read a trace (anything with ``records`` and ``requests``) into a board."""
    records = list(trace.records)
    lanes: dict[str, Lane] = {}
    for index, record in enumerate(records):
        for request_id, kind in states_of(record).items():
            if request_id not in lanes:
                lanes[request_id] = Lane(request_id, [""] * len(records))
            lanes[request_id].kinds[index] = kind
        _note(record, index, lanes)
    order = {request_id: place for place, request_id in enumerate(list(trace.requests))}
    return Board(records, sorted(lanes.values(), key=lambda lane: order.get(lane.request_id, len(order))))


def fold(values: Sequence[float], k: int) -> list[tuple[float, float]]:
    """``(mean, max)`` of every ``k`` values; the last group may be shorter."""
    groups = (values[i : i + k] for i in range(0, len(values), k))
    return [(sum(group) / len(group), max(group)) for group in groups]


def fold_kinds(kinds: Sequence[str], k: int) -> list[str]:
    """One state for every ``k`` steps: a preemption or a prefill if there was one, else the most frequent."""
    return list(kinds) if k == 1 else [_dominant(kinds[i : i + k]) for i in range(0, len(kinds), k)]


def _dominant(kinds: Sequence[str]) -> str:
    for rare in (PREEMPTED, PREFILL):
        if rare in kinds:
            return rare
    if len(set(kinds)) == 1:
        return kinds[0]
    counts = Counter(kind for kind in kinds if kind)
    return max(counts, key=lambda kind: (counts[kind], kind in WORK, kind), default="")


def states_of(record: StepRecord) -> dict[str, str]:
    """What each request in sight did in a step, as kinds of :mod:`workbench.render.palette`; one that has not arrived is not in sight."""
    running = set(record.running)
    states = dict.fromkeys(record.waiting, WAITING)
    for decision in record.decisions:
        if decision.reason is Reason.NOT_ARRIVED:
            states.pop(decision.request_id, None)
        elif decision.verdict in (Verdict.DEFERRED, Verdict.REJECTED):
            states[decision.request_id] = IDLE if decision.request_id in running else WAITING
    states.update(dict.fromkeys(record.held, HELD))
    states.update({row.request_id: row.kind for row in record.scheduled})
    states.update(dict.fromkeys(record.preempted, PREEMPTED))
    return states


def _note(record: StepRecord, index: int, lanes: dict[str, Lane]) -> None:
    for row in record.scheduled:
        lane = lanes[row.request_id]
        lane.tokens[index] = row.end - row.start
        if row.num_cached:
            lane.cached[index] = row.num_cached
    for decision in record.decisions:
        if decision.verdict not in (Verdict.SCHEDULED, Verdict.PARTIAL) and decision.request_id in lanes:
            lanes[decision.request_id].refused[index] = decision
    for request_id in record.preempted:
        lanes[request_id].preempted.append(index)
    for spec in record.spec:
        lanes[spec.request_id].emitted[index] = spec.emitted
    for finished in record.finished:
        if finished.request_id in lanes:
            lanes[finished.request_id].finished = (index, finished.reason)


def in_words(decision: Decision) -> str:
    """Why a request did not run, in a few words with the numbers."""
    sentence = REASON_WORDS[decision.reason]
    if decision.reason is Reason.PREEMPTED_FOR and decision.blocker == decision.request_id:
        sentence = "needs {blocks}, {available} free, and it is itself the one to give way"
    numbers = {"needed": decision.needed, "available": decision.available, "limit": decision.limit, "blocker": decision.blocker}
    return sentence.format(blocks=plural(decision.needed or 0, "block"), **numbers)
