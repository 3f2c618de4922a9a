"""What one of two runs does with a request in a step, in words that fit into one sentence about both."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from workbench.events import Decision, Reason, Scheduled, StepRecord, Verdict
from workbench.render._format import plural
from workbench.render.board import in_words
from workbench.trace import Trace

_RUNS = (Verdict.SCHEDULED, Verdict.PARTIAL)


class Side(msgspec.Struct, frozen=True):
    """One run at one step."""

    letter: str
    trace: Trace
    records: Sequence[StepRecord]
    position: int

    @property
    def record(self) -> StepRecord:
        """The step."""
        return self.records[self.position]

    def decision(self, name: str) -> Decision | None:
        """What was decided about a request."""
        return next((decision for decision in self.record.decisions if decision.request_id == name), None)

    def row(self, name: str) -> Scheduled | None:
        """What the model reads of it."""
        return next((row for row in self.record.scheduled if row.request_id == name), None)

    def row_of(self, name: str) -> str:
        """The positions that it computes, in words."""
        row = self.row(name)
        if row is None:
            return "nothing"
        drafts = f", {plural(row.num_drafts, 'draft')} among them" if row.num_drafts else ""
        cached = f", {row.num_cached} more from the prefix cache" if row.num_cached else ""
        return f"positions {row.start} to {row.end - 1} ({row.kind}{drafts}{cached})"

    def end_of(self, name: str) -> str:
        """How it ends in the step, in words."""
        end = next((end for end in self.record.finished if end.request_id == name), None)
        if end is None:
            return "goes on"
        return f"ends by {end.reason}" + (f" ({end.stop_reason!r})" if end.stop_reason is not None else "")

    def does(self, name: str) -> str:
        """What it does in this step, as a verb with its object."""
        decision = self.decision(name)
        if decision is None:
            return self._absent(name)
        if decision.verdict in _RUNS:
            return self._runs(decision)
        if decision.reason is Reason.NOT_ARRIVED:
            return "has not arrived"
        if decision.verdict is Verdict.PREEMPTED:
            return f"is preempted: {in_words(decision)}"
        if decision.verdict is Verdict.REJECTED:
            return f"is rejected: it {in_words(decision)}"
        return f"{'does not run' if name in self.record.running else 'waits'}: {_because(decision)}"

    def _runs(self, decision: Decision) -> str:
        row = self.row(decision.request_id)
        if row is None:
            return f"runs {plural(decision.num_tokens, 'token')}"
        if row.kind == "verify":
            return f"verifies {plural(row.num_drafts, 'draft')}"
        if row.kind == "decode":
            return "decodes"
        cached = f" after {row.num_cached} from the prefix cache" if row.num_cached else ""
        if decision.verdict is Verdict.PARTIAL:
            return f"runs {row.num_tokens} of {plural(decision.needed or 0, 'token')}{cached} (cut by {decision.reason.value})"
        request = self.trace.requests.get(decision.request_id)
        noun = "prompt token" if request is not None and row.end <= request.num_prompt_tokens else "token"
        last = "last " if row.start > row.num_cached else ""
        return f"runs its {last}{plural(row.num_tokens, noun)}{cached}"

    def _absent(self, name: str) -> str:
        for record in reversed(self.records[: self.position + 1]):
            for end in record.finished:
                if end.request_id == name:
                    return f"was aborted before step {record.step}" if end.reason == "abort" else f"ended in step {record.step}"
        return "is not there"


def decided(name: str, a: Side, b: Side) -> str:
    """``r4 runs its 36 prompt tokens in b, in a it waits: it needs 7 blocks and 5 are free``; who runs comes first."""
    of_a, of_b = a.decision(name), b.decision(name)
    b_runs_alone = (of_b is not None and of_b.verdict in _RUNS) and not (of_a is not None and of_a.verdict in _RUNS)
    first, second = (b, a) if b_runs_alone else (a, b)
    return f"{name} {first.does(name)} in {first.letter}, in {second.letter} it {second.does(name)}".replace(": it it ", ": it ")


def _because(decision: Decision) -> str:
    if decision.reason is Reason.NO_FREE_BLOCKS:
        free = decision.available or 0
        return f"it needs {plural(decision.needed or 0, 'block')} and {free} {'is' if free == 1 else 'are'} free"
    if decision.reason is Reason.HEAD_OF_LINE:
        return f"it stands behind {decision.blocker}, who does not fit"
    return in_words(decision)


def listed_ids(events: Sequence[tuple[str, int]]) -> str:
    """``allocated 5 6, freed 3``; at most a dozen ids."""
    words: dict[str, list[str]] = {}
    for kind, block_id in events[:12]:
        words.setdefault(kind, []).append(str(block_id))
    more = " …" if len(events) > 12 else ""
    return ", ".join(f"{kind} {' '.join(ids)}" for kind, ids in words.items()) + more or "none"


def the_token(side: Side, token_ids: Sequence[int]) -> str:
    """Tokens with their text, where it is known."""
    texts = [f"{token} {side.trace.token_texts[token]!r}" if token in side.trace.token_texts else str(token) for token in token_ids[:8]]
    return " ".join(texts) or "none"
