"""The first step in which two runs differ, and what differs first in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from workbench.comparison.pairing import Pairing
from workbench.comparison.words import Side, decided, listed_ids, the_token
from workbench.events import StepRecord
from workbench.findings.comparison import Divergence, Kind
from workbench.moment.fold import end_of_planning

_EXACT = ("decisions", "scheduled", "block_events", "sampled", "finished", "running", "waiting", "held", "proposed")


def first_divergence(pairing: Pairing, letters: tuple[str, str] = ("a", "b")) -> Divergence | None:
    """The first difference between paired steps; ``None`` if there is none.  ``letters`` are what its sentence calls the two."""
    if not pairing.common:
        return None
    common = None if pairing.all_common else pairing.common
    for position, (a, b) in enumerate(pairing):
        if all(getattr(a, field) == getattr(b, field) for field in _EXACT):
            continue
        found = _difference(a, b, common)
        if found is not None:
            return _told(pairing, letters, position, *found)
    return None


def _difference(a: StepRecord, b: StepRecord, common: frozenset[str] | None) -> tuple[Kind, str | None] | None:
    """What differs first, and whose it is."""
    everyone = list(dict.fromkeys(name for record in (a, b) for name in _in_order(record) if common is None or name in common))
    for kind, view in _VIEWS:
        of_a, of_b = view(a), view(b)
        for name in everyone:
            if of_a.get(name) != of_b.get(name):
                return kind, name
        if kind == "row" and any(_queue(a, field, everyone) != _queue(b, field, everyone) for field in _QUEUES):
            return "order", None
    return None


def _in_order(record: StepRecord) -> Iterable[str]:
    """Everybody in a step: the batch, the waiting queue, then the rest."""
    decided = [decision.request_id for decision in record.decisions]
    return [*record.running, *record.waiting, *record.held, *decided, *(end.request_id for end in record.finished)]


_QUEUES = ("scheduled", "running", "waiting", "held")


def _queue(record: StepRecord, field: str, everyone: Iterable[str]) -> list[str]:
    wanted = set(everyone)
    entries = [entry if isinstance(entry, str) else entry.request_id for entry in getattr(record, field)]
    return [name for name in entries if name in wanted]


def decisions_of(record: StepRecord) -> dict[str, Any]:
    """Verdict, reason and tokens by request; the numbers behind a reason are left out."""
    return {decision.request_id: (decision.verdict, decision.reason, decision.num_tokens) for decision in record.decisions}


def rows_of(record: StepRecord) -> dict[str, Any]:
    """What the model read, by request."""
    return {row.request_id: row for row in record.scheduled}


def blocks_of(record: StepRecord) -> dict[str, Any]:
    """What planning did to which block, by request; what the commit frees is told by who ended."""
    found: dict[str, list[tuple[str, int]]] = {}
    for event in record.block_events[: end_of_planning(record)]:
        found.setdefault(event.request_id, []).append((event.kind, event.block_id))
    return found


def tokens_of(record: StepRecord) -> dict[str, Any]:
    """Sampled tokens by request."""
    return {sampled.request_id: sampled.token_ids for sampled in record.sampled}


def ends_of(record: StepRecord) -> dict[str, Any]:
    """How requests ended."""
    return {end.request_id: end for end in record.finished}


def drafts_of(record: StepRecord) -> dict[str, Any]:
    """Drafts for the next step, by request."""
    return {proposed.request_id: proposed.token_ids for proposed in record.proposed}


_VIEWS: tuple[tuple[Kind, Callable[[StepRecord], dict[str, Any]]], ...] = (
    ("decision", decisions_of),
    ("row", rows_of),
    ("blocks", blocks_of),
    ("tokens", tokens_of),
    ("end", ends_of),
    ("drafts", drafts_of),
)


def _told(pairing: Pairing, letters: tuple[str, str], position: int, kind: Kind, name: str | None) -> Divergence:
    a, b = Side(letters[0], pairing.trace_a, pairing.a, position), Side(letters[1], pairing.trace_b, pairing.b, position)
    decisions = [next((one for one in side.record.decisions if one.request_id == name), None) for side in (a, b)]
    steps = a.record.step, b.record.step
    step = f"step {steps[0]}" + (f" ({steps[1]} in {b.letter})" if steps[0] != steps[1] else "")
    return Divergence(
        position=position,
        steps=steps,
        kind=kind,
        request_id=name,
        a=decisions[0],
        b=decisions[1],
        sentence=_sentence(kind, name, step, a, b),
    )


def _sentence(kind: Kind, name: str | None, step: str, a: Side, b: Side) -> str:
    in_a, in_b = f"in {a.letter}", f"in {b.letter}"
    if name is None:
        field = next(field for field in _QUEUES if getattr(a.record, field) != getattr(b.record, field))
        what = "batch" if field in ("scheduled", "running") else "queue of those that wait" if field == "waiting" else "held batch"
        return f"They part in {step}: every request is decided alike, but the order of the {what} differs."
    if kind == "decision":
        return f"They part in {step}: {decided(name, a, b)}."
    if kind == "row":
        return f"They part in {step}: {name} is decided alike, but computes {a.row_of(name)} {in_a} and {b.row_of(name)} {in_b}."
    if kind == "blocks":
        mine, theirs = (listed_ids(blocks_of(side.record).get(name, [])) for side in (a, b))
        return f"Their decisions agree; in {step} the blocks of {name} begin to differ: {mine} {in_a}, {theirs} {in_b}."
    if kind == "end":
        return f"They part in {step}: {name} {a.end_of(name)} {in_a}, {in_b} it {b.end_of(name)}."
    what = "sampled tokens" if kind == "tokens" else "drafts"
    view = tokens_of if kind == "tokens" else drafts_of
    mine, theirs = (the_token(side, view(side.record).get(name, ())) for side in (a, b))
    return f"Up to there their decisions and blocks agree: in {step} the {what} of {name} differ: {mine} {in_a}, {theirs} {in_b}."
