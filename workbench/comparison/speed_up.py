"""What speculation gained between two runs of the same prompts, one with it and one without, by their clocks."""

from __future__ import annotations

import math
from typing import NamedTuple

from workbench.comparison.pairing import Pairing
from workbench.rebuild import config_before, originals
from workbench.render._format import ms, number, plural
from workbench.render.facts import method_in_words
from workbench.speculative.measured import rounds_of
from workbench.trace import Trace


class Decoding(NamedTuple):
    """The steps of a run that computed no prompt: their time, the drafting at their ends included, and the tokens that came out.

    Drafting at the end of a step that computed a prompt belongs to that step, as reading the prompt with a draft model does.
    """

    num_steps: int
    num_tokens: int
    total_ms: float

    @property
    def ms_per_token(self) -> float | None:
        """Milliseconds per output token; ``None`` without any."""
        return self.total_ms / self.num_tokens if self.num_tokens and self.total_ms > 0 else None


def decoding(trace: Trace) -> Decoding:
    """What a run's steps without prompts gave and took."""
    records = [record for record in trace.records if record.scheduled and all(row.kind != "prefill" for row in record.scheduled)]
    tokens = sum(len(sampled.token_ids) for record in records for sampled in record.sampled)
    return Decoding(len(records), tokens, math.fsum(record.duration_ms for record in records))


class Gain(NamedTuple):
    """Two runs of the same prompts of which ``speculates`` (0 or 1) did and the other did not."""

    speculates: int
    method: str
    sides: tuple[Decoding, Decoding]

    @property
    def speed_up(self) -> float | None:
        """How many times as fast the run with speculation gave its tokens; ``None`` where one of them gave none without a prompt."""
        with_it, without = self.sides[self.speculates].ms_per_token, self.sides[1 - self.speculates].ms_per_token
        return without / with_it if with_it and without else None

    def sentence(self) -> str:
        """The same in words, or why there is nothing to tell."""
        here, there = "ab"[self.speculates], "ba"[self.speculates]
        who = f"Speculation in {here}{f' ({self.method})' if self.method else ''}"
        if self.speed_up is None:
            lacking = there if self.sides[1 - self.speculates].ms_per_token is None else here
            return f"{who}: speed-up –, for {lacking} has no step without a prompt to measure."
        mine, theirs = self.sides[self.speculates], self.sides[1 - self.speculates]
        steps = f"{plural(mine.num_steps, 'step')} of {here} and {theirs.num_steps:,} of {there}"
        times = f"{ms(mine.ms_per_token)} per output token instead of {ms(theirs.ms_per_token)}"
        return f"{who}: {number(self.speed_up)} times as fast as {there}, {times}, over the {steps} that computed no prompt."


def gain(pairing: Pairing) -> Gain | None:
    """What speculation gained; ``None`` unless both were given the same prompts and just one of them verified drafts."""
    traces = pairing.trace_a, pairing.trace_b
    speculated = [any(map(rounds_of, trace.records)) for trace in traces]
    if speculated[0] == speculated[1] or not _same_prompts(pairing):
        return None
    which = int(speculated[1])
    method = method_in_words(config_before(traces[which], traces[which].first_step))
    return Gain(which, method, (decoding(traces[0]), decoding(traces[1])))


def _same_prompts(pairing: Pairing) -> bool:
    mine, theirs = originals(pairing.trace_a), originals(pairing.trace_b)
    return pairing.all_common and all(
        name in mine and name in theirs and mine[name].prompt_token_ids == theirs[name].prompt_token_ids for name in pairing.common
    )
