"""The adaptive number of drafts, on simulated machines and texts: it finds the best K, switches off where drafting loses, and on again.

The simulator knows the true cost curve and acceptance; the numbers of drafts it would choose itself are the reference.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.draft_choice import DraftChoice
from workbench.events import Budget, KvUsage, Proposed, Sampled, Scheduled, SpecRound, StepRecord, StepTiming
from workbench.speculative.acceptance_odds import AcceptanceOdds
from workbench.speculative.adaptive import AdaptiveDrafts
from workbench.speculative.cost_model import FIRST_DOUBT, MAX_CELLS, STALE_STEPS, DraftCosts, StepCosts

MAX_DRAFTS = 6
EAGLE = (0.8, 0.66, 0.57, 0.5, 0.5, 0.5)
POOR = (0.1,) * 6
GOOD = (0.9,) * 6
NEVER = (0.0,) * 6


class Curve(NamedTuple):
    """Milliseconds of a step by its tokens, linear between the points and beyond."""

    points: tuple[tuple[int, float], ...]
    draft_ms: float  # of one draft for one request

    def __call__(self, tokens: float) -> float:
        points = self.points
        after = next((i for i, (size, _) in enumerate(points) if size >= tokens), len(points) - 1)
        (low, low_ms), (high, high_ms) = points[max(0, after - 1)], points[max(1, after)]
        return low_ms + (high_ms - low_ms) * (tokens - low) / (high - low)

    def drafting(self, requests: int, drafts: int) -> float:
        return drafts * self.draft_ms * (1 + requests / 32)


CPU = Curve(((1, 18.0), (5, 26.0), (8, 40.0), (32, 100.0)), 1.5)
GPU = Curve(((1, 10.0), (256, 10.5), (512, 20.0)), 0.5)
STEEP = Curve(((1, 10.0), (2, 19.0), (64, 577.0)), 1.0)  # every token costs nearly what the first does
MACHINES = {"cpu": CPU, "gpu": GPU, "steep": STEEP}


class Machine:
    """Runs steps of a batch whose drafts are right with given odds, and reports them as records."""

    def __init__(self, curve: Curve, acceptance: tuple[float, ...], seed: int = 0, noise: float = 0.0, stalls: float = 0.0) -> None:
        self.curve, self.acceptance, self.noise, self.stalls = curve, acceptance, noise, stalls
        self.random = random.Random(seed)
        self.offered = 1.0  # how often the proposer has something to propose
        self.pending: list[int] = []  # drafts that each request has to verify
        self.step = 0
        self.warm_up = 0

    def run(self, num_drafts: int, requests: int) -> StepRecord:
        """One step: verifies what is pending, then proposes ``num_drafts`` for each request."""
        pending = (self.pending + [0] * requests)[:requests]
        rows, rounds, sampled = [], [], []
        for i, drafts in enumerate(pending):
            accepted = next((j for j in range(drafts) if self.random.random() >= self.acceptance[j]), drafts)
            rows.append(Scheduled(f"r{i}", "verify" if drafts else "decode", 0, 1 + drafts, 0, drafts))
            sampled.append(Sampled(f"r{i}", (0,) * (accepted + 1)))
            if drafts:
                rounds.append(SpecRound(f"r{i}", drafts, accepted, accepted + 1, None if accepted == drafts else accepted))
        self.pending = [num_drafts if self.random.random() < self.offered else 0 for _ in range(requests)]
        forward = self.curve(sum(row.num_tokens for row in rows)) * self.disturbance()
        draft = self.curve.drafting(requests, num_drafts) * self.disturbance()
        self.step += 1
        return record(
            self.step,
            StepTiming(forward_ms=forward, draft_ms=draft),
            scheduled=tuple(rows),
            spec=tuple(rounds),
            sampled=tuple(sampled),
            proposed=tuple(Proposed(f"r{i}", (0,) * k) for i, k in enumerate(self.pending) if k),
        )

    def disturbance(self) -> float:
        """Noise, now and then a stall, and the first steps slower than all others."""
        slow = 3.0 if self.step < self.warm_up else 10.0 if self.random.random() < self.stalls else 1.0
        return slow * self.random.lognormvariate(0.0, self.noise)

    def rate(self, num_drafts: int, requests: int) -> float:
        """The true tokens per millisecond and request."""
        tokens = odds = 1.0
        for position in range(num_drafts):
            odds *= self.acceptance[position]
            tokens += self.offered * odds
        ms = self.curve(requests * (1 + self.offered * num_drafts)) + self.curve.drafting(requests, num_drafts)
        return tokens / ms

    def best(self, requests: int) -> int:
        return max(range(MAX_DRAFTS + 1), key=lambda k: self.rate(k, requests))


def record(step: int, timing: StepTiming, **fields: Any) -> StepRecord:
    used = KvUsage(1, 0, 9)
    return StepRecord(step, 0.0, timing, Budget(9, 1), Budget(9, 1), used, used, **fields)


def drive(adaptive: AdaptiveDrafts, machine: Machine, requests: int, steps: int) -> list[tuple[DraftChoice, StepRecord]]:
    """Run so many steps, each with the drafts chosen for it."""
    history = []
    for _ in range(steps):
        choice = adaptive.choose(requests, machine.step + 1)
        done = machine.run(choice.num_drafts, requests)
        adaptive.observe(done)
        history.append((choice, done))
    return history


def spent_ms(history: list[tuple[DraftChoice, StepRecord]]) -> float:
    return sum(done.timing.forward_ms + done.timing.draft_ms for _, done in history)


def num_tokens(history: list[tuple[DraftChoice, StepRecord]]) -> int:
    return sum(len(one.token_ids) for _, done in history for one in done.sampled)


def settled(machine: Machine, history: list[tuple[DraftChoice, StepRecord]], requests: int) -> float:
    """What the choices (probes apart) reach of the best K's tokens per millisecond, by the true costs and odds."""
    chosen = [machine.rate(choice.num_drafts, requests) for choice, _ in history if choice.reason != "probe"]
    return sum(chosen) / len(chosen) / machine.rate(machine.best(requests), requests)


@pytest.mark.parametrize("requests", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("acceptance", [EAGLE, POOR, GOOD, NEVER], ids=["eagle", "poor", "good", "never"])
@pytest.mark.parametrize("machine", MACHINES)
def test_it_finds_the_best_number_of_drafts_within_sixty_rounds(machine, acceptance, requests):
    for seed in range(3):
        simulated = Machine(MACHINES[machine], acceptance, seed, noise=0.03)
        simulated.warm_up = 2
        history = drive(AdaptiveDrafts(MAX_DRAFTS), simulated, requests, 100)
        assert settled(simulated, history[60:], requests) >= 0.945, f"seed {seed}, best {simulated.best(requests)}"


@pytest.mark.parametrize("acceptance", [EAGLE, POOR, NEVER, (0.5,) * 6], ids=["eagle", "poor", "never", "half"])
@pytest.mark.parametrize("machine", ["cpu", "steep"])
def test_where_drafting_loses_it_costs_three_percent_at_most(machine, acceptance):
    """At batch 32 over 300 steps, the first ones included; by the true costs, so that the noise of the measurements cancels out."""
    for seed in range(4):
        simulated = Machine(MACHINES[machine], acceptance, seed, noise=0.05)
        simulated.warm_up = 2
        assert simulated.best(32) == 0
        made, proposed = 0.0, 0
        ms = 0.0
        for choice, _ in drive(AdaptiveDrafts(MAX_DRAFTS), simulated, 32, 300):
            verified, proposed = proposed, choice.num_drafts
            odds = [1.0]
            for position in range(verified):
                odds.append(odds[-1] * acceptance[position])
            made += sum(odds)
            ms += simulated.curve(32 * (1 + verified)) + simulated.curve.drafting(32, proposed)
        assert made / ms >= 0.97 / simulated.curve(32), f"seed {seed}"


def test_without_any_accepted_draft_nothing_but_a_rare_probe_is_drafted():
    simulated = Machine(CPU, NEVER, noise=0.05)
    history = drive(AdaptiveDrafts(MAX_DRAFTS), simulated, 1, 400)[50:]
    assert {choice.reason for choice, _ in history if choice.num_drafts} <= {"probe"}
    read = [sum(row.num_tokens for row in done.scheduled) for _, done in history]
    true_ms = sum(map(CPU, read)) + sum(CPU.drafting(1, choice.num_drafts) for choice, _ in history)
    assert true_ms <= 1.02 * len(history) * CPU(1)


def test_it_switches_on_again_within_thirty_steps_after_the_batch_shrank():
    for seed in range(5):
        simulated = Machine(CPU, EAGLE, seed, noise=0.03)
        adaptive = AdaptiveDrafts(MAX_DRAFTS)
        large = drive(adaptive, simulated, 32, 200)
        assert settled(simulated, large[60:], 32) >= 0.97
        small = drive(adaptive, simulated, 1, 60)
        assert settled(simulated, small[30:], 1) >= 0.95
        assert any(choice.reason == "best" for choice, _ in small[:30])


def test_it_switches_off_soon_after_the_batch_grew():
    simulated = Machine(CPU, EAGLE, noise=0.03)
    adaptive = AdaptiveDrafts(MAX_DRAFTS)
    assert drive(adaptive, simulated, 1, 80)[-1][0].num_drafts > 0
    assert settled(simulated, drive(adaptive, simulated, 32, 60)[30:], 32) >= 0.97


def test_it_follows_a_text_that_turns_predictable_and_random_again():
    for seed in range(4):
        simulated = Machine(CPU, NEVER, seed, noise=0.03)
        adaptive = AdaptiveDrafts(MAX_DRAFTS)
        assert drive(adaptive, simulated, 1, 200)[-1][0].reason in ("off", "probe")
        simulated.acceptance = GOOD
        assert settled(simulated, drive(adaptive, simulated, 1, 200)[140:], 1) >= 0.9
        simulated.acceptance = NEVER
        assert settled(simulated, drive(adaptive, simulated, 1, 160)[100:], 1) >= 0.95


def test_stalled_steps_do_not_turn_the_choice():
    simulated = Machine(CPU, EAGLE, noise=0.03)
    adaptive = AdaptiveDrafts(MAX_DRAFTS)
    drive(adaptive, simulated, 1, 100)
    simulated.stalls = 0.05
    assert settled(simulated, drive(adaptive, simulated, 1, 200), 1) >= 0.95


def test_a_proposer_that_finds_nothing_is_paid_for_by_what_it_verifies():
    """Drafts that are seldom found but then always right cost little where none are found: they stay on."""
    simulated = Machine(CPU, GOOD, noise=0.02)
    simulated.curve, simulated.offered = CPU._replace(draft_ms=0.001), 0.3
    history = drive(AdaptiveDrafts(MAX_DRAFTS), simulated, 1, 200)
    assert simulated.best(1) > 0
    assert settled(simulated, history[60:], 1) >= 0.95


def test_steps_that_read_prompts_teach_nothing_about_the_cost_of_decoding():
    adaptive = AdaptiveDrafts(MAX_DRAFTS)
    mixed = (Scheduled("a", "decode", 4, 5), Scheduled("b", "prefill", 0, 500))
    for step in range(10):
        adaptive.observe(record(step, StepTiming(forward_ms=900.0), scheduled=mixed, sampled=(Sampled("a", (1,)),)))
    assert adaptive.choose(2, 10).reason == "measuring"
    history = drive(adaptive, Machine(CPU, EAGLE), 1, 40)
    before = history[-1][0].plain_ms
    adaptive.observe(record(50, StepTiming(forward_ms=900.0), scheduled=mixed, sampled=(Sampled("a", (1,)),)))
    assert adaptive.choose(1, 51).plain_ms == pytest.approx(before, rel=0.01)


SITUATIONS = st.lists(
    st.tuples(st.sampled_from([1, 2, 5, 32]), st.integers(1, 30), st.sampled_from([EAGLE, POOR, GOOD, NEVER])), min_size=1, max_size=5
)


@settings(max_examples=25, deadline=None)
@given(situations=SITUATIONS, seed=st.integers(0, 1000), curve=st.sampled_from([CPU, GPU, STEEP]))
def test_replaying_the_records_brings_back_every_choice(situations, seed, curve):
    simulated = Machine(curve, EAGLE, seed, noise=0.1, stalls=0.02)
    adaptive = AdaptiveDrafts(MAX_DRAFTS)
    history = []
    for requests, steps, acceptance in situations:
        simulated.acceptance = acceptance
        history += [(requests, *one) for one in drive(adaptive, simulated, requests, steps)]
    again = AdaptiveDrafts(MAX_DRAFTS)
    for requests, choice, done in history:
        assert 0 <= choice.num_drafts <= MAX_DRAFTS
        assert repr(again.choose(requests, done.step)) == repr(choice)  # as text: not-a-number equals nothing, itself included
        assert choice.sentence()
        again.observe(done)
        again.choose(7, done.step)  # asking changes nothing


def test_a_copy_goes_its_own_way():
    simulated = Machine(CPU, EAGLE)
    adaptive = AdaptiveDrafts(MAX_DRAFTS)
    drive(adaptive, simulated, 1, 60)
    kept, twin = repr(adaptive.choose(1, 61)), adaptive.copy()
    assert repr(twin.choose(1, 61)) == kept
    drive(twin, Machine(STEEP, NEVER), 1, 100)
    assert repr(twin.choose(1, 161)) != kept
    assert repr(adaptive.choose(1, 61)) == kept


def test_sentences_say_why_with_the_numbers():
    best = DraftChoice(num_drafts=4, reason="best", num_requests=1, expected_tokens=3.1, step_ms=31.0, plain_ms=18.0, rival_ms=18.0)
    assert best.sentence() == "4 drafts: 3.1 tokens in 31 ms instead of 1 in 18 ms (1.8 times as fast)"
    off = DraftChoice(num_drafts=0, reason="off", num_requests=32, step_ms=95.0, plain_ms=95.0, rival_drafts=4,
        rival_tokens=3.1, rival_ms=340.0)
    said = "no drafts: 4 drafts would make 3.1 tokens in 340 ms, a step without them makes 1 in 95 ms, for each of 32 requests"
    assert off.sentence() == said
    probe = DraftChoice(
        num_drafts=1, reason="probe", num_requests=1, expected_tokens=1.5, step_ms=20.0, plain_ms=18.0, rival_tokens=1.0, rival_ms=18.0
    )
    assert probe.sentence() == "1 draft for one step, to find out: 1.5 tokens in 20 ms expected; no drafts make 1.0 in 18 ms"
    assert AdaptiveDrafts(4).choose(3, 0).sentence() == "no drafts yet: a step without them is measured first"


def test_step_costs_are_the_medians_of_what_was_seen_and_lines_between():
    costs = StepCosts()
    for step, ms in enumerate([18.0, 500.0, 18.0, 18.0]):
        costs.learn(1, 1, ms, step)
    costs.learn(1, 5, 26.0, 4)
    assert costs.predict(1, 1, 4).ms == 18.0
    assert costs.predict(1, 3, 4).ms == pytest.approx(22.0)
    assert costs.predict(1, 9, 4).ms == pytest.approx(34.0)
    assert costs.predict(1, 5, 4).doubt == FIRST_DOUBT > costs.predict(1, 1, 4).doubt


def test_what_was_measured_in_a_slow_minute_is_not_held_against_the_rest():
    """Others on the machine take a third of it for a while: steps of all sizes are expected to take longer, and again less afterwards."""
    costs = StepCosts()
    for step in range(7):
        costs.learn(1, 1, 18.0, 2 * step)
        costs.learn(1, 5, 26.0, 2 * step + 1)
    for step in range(14, 20):
        costs.learn(1, 1, 27.0, step)
    assert costs.predict(1, 1, 20).ms == pytest.approx(27.0)
    assert costs.predict(1, 5, 20).ms == pytest.approx(39.0)
    for step in range(20, 26):
        costs.learn(1, 5, 26.0, step)
    assert costs.predict(1, 1, 26).ms == pytest.approx(18.0)
    assert costs.copy().predict(1, 5, 26) == costs.predict(1, 5, 26)


def test_old_measurements_give_way_to_the_first_new_one():
    costs = StepCosts()
    for step in range(7):
        costs.learn(1, 1, 18.0, step)
    costs.learn(1, 1, 9.0, 6 + STALE_STEPS)
    assert costs.predict(1, 1, 6 + STALE_STEPS).ms == 9.0


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 3000), st.floats(0.01, 1e4)), min_size=1, max_size=400))
def test_costs_stay_small_and_their_predictions_positive(measurements):
    steps, drafts = StepCosts(), DraftCosts()
    for step, (requests, tokens, ms) in enumerate(measurements):
        steps.learn(requests, tokens, ms, step)
        drafts.learn(requests, tokens, ms, step)
        assert len(steps._cells) <= MAX_CELLS >= len(drafts._cells)
        assert len(steps._sizes) == len(steps._curve) == len(set(steps._sizes))
        estimate = steps.predict(requests + 1, 2.5 * tokens, step)
        assert estimate.ms > 0
        assert 0 <= estimate.doubt < 1
        assert drafts.predict(3, 2, step).ms > 0


def test_a_position_never_reached_takes_the_rate_of_the_one_before():
    odds = AcceptanceOdds(3)
    for _ in range(200):
        odds.learn_offers(1, 1, [1])
        odds.learn_rounds([(1, 1)])
    drafts, tokens, hoped = zip(*odds.expect(), strict=True)
    assert drafts == pytest.approx((0.0, 1.0, 2.0, 3.0))
    assert tokens == pytest.approx((1.0, 2.0, 3.0, 4.0), abs=0.15)
    assert all(one <= more for one, more in zip(tokens, hoped, strict=True))
