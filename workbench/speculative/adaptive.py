"""How many drafts to ask for: as many as make the most tokens per millisecond, and none where drafting loses.

Two things are learned from the steps that ran: what a step costs (:mod:`workbench.speculative.cost_model`) and how far drafts are
right (:mod:`workbench.speculative.acceptance_odds`).  With K drafts each, a batch of b requests gains b·E(K) tokens in the time of
drafting and of a step of b·(K+1) tokens; the K with the most tokens per millisecond is best.  What has not been tried lately is tried,
while it may well be better than the best, for one step at a time and only as long as such probes lose :data:`PROBE_SHARE` of the time
at most.

The state follows from the observed records alone, so an engine that rewinds gets its choices back by observing them again.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from workbench.draft_choice import DraftChoice
from workbench.events import StepRecord, StepTiming
from workbench.speculative.acceptance_odds import AcceptanceOdds
from workbench.speculative.cost_model import FIRST_DOUBT, SECOND_DOUBT, DraftCosts, Estimate, StepCosts

PROBE_SHARE = 0.01  # of the time may be lost on probes
PROBE_SPACING = 4  # steps between two probes at least
DEBT_STEPS = 2.0  # plain steps: more is not held against later probes, for it was a stall
WARM_UP_STEPS = 2  # the first steps that decode are slower than any later ones: their times are not learned
EPSILON_MS = 1e-6  # steps of a clock that stands still take no time
PROBE_GAIN = 1.015  # what is tried must at best be so much better: of equals nothing can be learned that would help
SWITCH_GAIN = 1.03  # another K must be so much better than the one that runs: K would flutter between equals


class Option(NamedTuple):
    """One number of drafts for one batch: its tokens per request, its time, and what both would be at best."""

    num_drafts: int
    tokens: float
    step_ms: float
    hoped_ms: float
    doubt: float  # about the step's time, see cost_model.Estimate
    rate: float
    hoped_rate: float


class AdaptiveDrafts:
    """Learns from every step, and says how many drafts the next one shall verify: at most ``max_drafts`` per request."""

    def __init__(self, max_drafts: int) -> None:
        self._max_drafts = max_drafts
        self._steps = StepCosts()
        self._drafting = DraftCosts()
        self._odds = AcceptanceOdds(max_drafts)
        self._step = 0  # observed last
        self._warm_up = WARM_UP_STEPS + 1
        self._running = 0  # the drafts that were best after it
        self._probing: int | None = None  # proposed after it, to be tried in the next
        self._last_probe = -PROBE_SPACING
        self._credit_ms = 0.0  # that probes may lose now
        self._seen: dict[int, list[Option]] = {}  # options by batch, until more is learned

    def copy(self) -> AdaptiveDrafts:
        """An independent copy: what either observes from now on, the other does not know."""
        twin = AdaptiveDrafts(self._max_drafts)
        twin._steps, twin._drafting, twin._odds = self._steps.copy(), self._drafting.copy(), self._odds.copy()
        twin._step, twin._warm_up, twin._running, twin._probing = self._step, self._warm_up, self._running, self._probing
        twin._last_probe, twin._credit_ms = self._last_probe, self._credit_ms
        return twin

    def choose(self, num_decoding: int, step: int) -> DraftChoice:
        """How many drafts to propose after ``step`` when about ``num_decoding`` requests will have them verified in the next.

        Changes nothing: asked again, it answers the same.
        """
        if not self._steps or num_decoding < 1:
            return DraftChoice(num_drafts=0, reason="measuring", num_requests=num_decoding)
        options = self._options(num_decoding)
        best = self._best(options)
        probe = self._probe(options, best, step)
        if probe is not None:
            return _choice("probe", probe, best, options, num_decoding)
        if best.num_drafts:
            return _choice("best", best, options[0], options, num_decoding)
        rival = max(options[1:], key=lambda option: option.rate, default=best)
        return _choice("off", best, rival, options, num_decoding)

    def observe(self, record: StepRecord) -> None:
        """Learn from a step: what it and its drafting cost, which drafts were right, and what a probe lost."""
        rows = [row for row in record.scheduled if row.kind != "prefill"]
        made = self.choose(len(record.sampled), record.step)  # as it was when the step was planned
        first = not self._steps
        self._step, self._seen = record.step, {}
        self._learn_drafting(record, made)
        if rows:
            self._odds.learn_rounds([(one.proposed, one.accepted) for one in record.spec])
        # A step that reads prompts too says nothing about what drafts cost.
        if rows and len(rows) == len(record.scheduled) and self._warmed_up():
            ms = _without_drafting(record.timing)
            self._steps.learn(len(rows), sum(row.num_tokens for row in rows), ms, record.step)
            self._settle(len(rows), ms, first)
        if self._steps and rows:
            self._running = self._best(self._options(len(rows))).num_drafts
        self._probing = made.num_drafts if made.reason == "probe" else None
        if self._probing is not None:
            self._last_probe = record.step

    def _warmed_up(self) -> bool:
        self._warm_up = max(0, self._warm_up - 1)
        return not self._warm_up

    def _learn_drafting(self, record: StepRecord, made: DraftChoice) -> None:
        """What proposing cost and brought; a proposer that reads a prompt first would look slower than it is."""
        lengths = [len(one.token_ids) for one in record.proposed]
        if not lengths and not record.timing.draft_ms:
            self._odds.learn_offers(0, 0, [])
            return
        num_requests = max(1, len(record.sampled))
        self._odds.learn_offers(max(made.num_drafts, *lengths, 0), num_requests, lengths)
        if all(row.kind != "prefill" for row in record.scheduled):
            self._drafting.learn(num_requests, max(1, round(sum(lengths) / num_requests)), record.timing.draft_ms, record.step)

    def _settle(self, num_requests: int, step_ms: float, first: bool) -> None:
        """A share of every step's time is put aside for probes, up to one step's, and the last probe's loss is paid from it."""
        self._credit_ms = step_ms if first else min(self._credit_ms + PROBE_SHARE * step_ms, step_ms)
        if self._probing is not None:
            options = self._options(num_requests)
            tried = options[self._probing]
            loss = tried.step_ms - tried.tokens / self._best(options).rate
            self._credit_ms = max(self._credit_ms - loss, -DEBT_STEPS * options[0].step_ms)

    def _options(self, num_requests: int) -> list[Option]:
        """Every number of drafts for a batch of so many requests, worked out once per step and batch."""
        known = self._seen.get(num_requests)
        if known is None:
            known = self._seen[num_requests] = self._work_out(num_requests)
        return known

    def _work_out(self, num_requests: int) -> list[Option]:
        """The options from the most drafts down: a step of fewer tokens takes no longer than one of more, if that is known as well."""
        options: list[Option] = []
        above = Estimate(math.inf, 1.0)
        for num_drafts, (drafts, tokens, hoped_tokens) in reversed(list(enumerate(self._odds.expect()))):
            verify = self._steps.predict(num_requests, num_requests * (1.0 + drafts), self._step)
            if verify.ms > above.ms and verify.doubt >= above.doubt:
                verify = Estimate(above.ms, max(verify.doubt, SECOND_DOUBT))  # what was measured cannot be right
            above = verify
            propose = self._drafting.predict(num_requests, num_drafts, self._step)
            ms = verify.ms + propose.ms + EPSILON_MS
            hoped_ms = verify.hoped_ms + propose.hoped_ms + EPSILON_MS
            options.append(Option(num_drafts, tokens, ms, hoped_ms, verify.doubt, tokens / ms, hoped_tokens / hoped_ms))
        return options[::-1]

    def _best(self, options: list[Option]) -> Option:
        """The option with the most tokens per millisecond; the one that runs stays unless another is clearly better."""
        running = options[self._running]
        best = max(options, key=lambda option: option.rate)
        return best if best.rate > SWITCH_GAIN * running.rate else running

    def _probe(self, options: list[Option], best: Option, step: int) -> Option | None:
        """The most promising option that may be so much better that it would be chosen, and whose loss can probably be afforded."""
        if step - self._last_probe < PROBE_SPACING:
            return None
        if best.num_drafts and options[0].doubt >= SECOND_DOUBT:
            return options[0]  # what all are measured by: its cost must be known well
        hopeful = [option for option in options if option is not best and option.hoped_rate > PROBE_GAIN * best.rate]
        affordable = [option for option in hopeful if max(0.0, _risked_ms(option) - option.tokens / best.rate) <= self._credit_ms]
        return max(affordable, key=lambda option: option.hoped_rate, default=None)


def _risked_ms(option: Option) -> float:
    """What an unsure step will probably take: a single measurement says little (it may have been a warm-up), of others half is believed."""
    return option.hoped_ms if option.doubt >= FIRST_DOUBT else (option.step_ms + option.hoped_ms) / 2.0


def _choice(
    reason: Literal["best", "off", "probe"], option: Option, rival: Option, options: list[Option], num_requests: int
) -> DraftChoice:
    return DraftChoice(
        num_drafts=option.num_drafts,
        reason=reason,
        num_requests=num_requests,
        expected_tokens=option.tokens,
        step_ms=option.step_ms,
        plain_ms=options[0].step_ms,
        rival_drafts=rival.num_drafts,
        rival_tokens=rival.tokens,
        rival_ms=rival.step_ms,
    )


def _without_drafting(timing: StepTiming) -> float:
    """What the runner took of a step but for its drafting, which serves the next one.

    Planning and committing are left out: they take other times when a recorded step is decided again, and choices must not.
    """
    return timing.runner_ms
