"""Drafts that are right at a chosen rate: the coins, what they do to drafts, and how many tokens come of it."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ConfigError, IntegrityError
from workbench.randomness import uniform
from workbench.speculative.acceptance import ACCEPT, DRAFT, RECOVER, SAMPLE, verify_greedy
from workbench.speculative.proposer import Wanted
from workbench.speculative.synthetic import COIN, SyntheticProposer, accepted, corrupt, keeps

RATES = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8, 0.95])
def test_a_coin_shows_heads_at_its_rate(rate):
    """20,000 flips; a fair coin misses its mean by more than 5.33 standard deviations for 1 seed in 10,000,000."""
    flips = 20_000
    heads = sum(keeps(11, position, rate) for position in range(flips))
    assert abs(heads - flips * rate) < 5.33 * math.sqrt(flips * rate * (1 - rate))


def test_neighbouring_coins_know_nothing_of_each_other():
    """Chi-squared of 30,000 pairs, 1 degree of freedom after the margins: independent ones exceed 28.4 for 1 seed in 10,000,000."""
    heads = [keeps(12, position, 0.5) for position in range(30_001)]
    pairs = Counter(pairwise(heads))
    share = sum(heads) / len(heads)
    chances = {(a, b): (share if a else 1 - share) * (share if b else 1 - share) for a in (True, False) for b in (True, False)}
    assert sum((pairs[pair] - 30_000 * chance) ** 2 / (30_000 * chance) for pair, chance in chances.items()) < 28.4


def test_coins_have_random_numbers_of_their_own():
    assert COIN not in (SAMPLE, ACCEPT, RECOVER, DRAFT)
    assert uniform(0, 0, COIN) not in {uniform(0, 0, stream) for stream in (SAMPLE, ACCEPT, RECOVER, DRAFT)}


@pytest.mark.parametrize("rate", [0.3, 0.7, 0.9])
def test_rounds_emit_as_many_tokens_as_independent_trials_would(rate):
    """20,000 rounds of 4 drafts, each begun where the last one ended, against (1 − rate^5) / (1 − rate) tokens per round.

    Chi-squared over 0 … 4 accepted, 4 degrees of freedom: independent trials exceed 38.6 for 1 seed in 12,000,000 (p = 8.4e-8).
    """
    rounds, position, counts = 20_000, 0, Counter()
    for _ in range(rounds):
        kept = accepted(13, position, 4, rate)
        counts[kept] += 1
        position += kept + 1
    chances = [rate**kept * (1 - rate) for kept in range(4)] + [rate**4]
    assert sum((counts[kept] - rounds * chance) ** 2 / (rounds * chance) for kept, chance in enumerate(chances)) < 38.6
    assert position / rounds == pytest.approx((1 - rate**5) / (1 - rate), rel=0.05)


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(), st.integers(0, 1000), RATES)
def test_a_draft_is_kept_or_certainly_wrong_as_its_coin_fell(drafts, seed, num_output, rate):
    changed = corrupt(drafts, seed, num_output, rate, 10)
    assert [new == old for new, old in zip(changed, drafts, strict=True)] == [
        keeps(seed, num_output + index, rate) for index in range(len(drafts))
    ]
    assert all(0 <= token < 10 for token in changed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(), st.integers(0, 1000), RATES)
def test_verification_keeps_as_many_as_the_coins_say_and_emits_the_targets_text(target, seed, num_output, rate):
    drafts = corrupt(target[:-1], seed, num_output, rate, 10)
    emitted = verify_greedy(drafts, target)
    assert emitted == target[: accepted(seed, num_output, len(drafts), rate) + 1]


def test_all_are_right_at_rate_1_and_none_at_rate_0():
    assert accepted(3, 0, 1000, 1.0) == 1000
    assert corrupt(list(range(1000)), 3, 0, 1.0, 1000) == list(range(1000))
    assert all(new != old for old, new in enumerate(corrupt(list(range(1000)), 3, 0, 0.0, 1000)))


def test_the_proposer_flips_the_oracles_drafts_by_each_requests_seed_and_position():
    asked = [Wanted("a", [1, 2, 3, 4], 3, 3, seed=5), Wanted("b", [1, 2], 2, 2, seed=6), Wanted("c", [1], 1, 0, seed=7)]

    def oracle(wanted):
        assert list(wanted) == asked
        return [[7, 8, 9], [0, 1, 2], [4]]

    proposer = SyntheticProposer(0.6, oracle, 10)
    first = proposer.propose(asked)
    assert first == [corrupt([7, 8, 9], 5, 1, 0.6, 10), corrupt([0, 1], 6, 0, 0.6, 10), []]
    assert proposer.propose(asked) == first


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_a_rate_beyond_0_to_1_is_refused(rate):
    with pytest.raises(ConfigError, match="an acceptance rate lies between 0 and 1"):
        SyntheticProposer(rate, lambda wanted: [], 10)


def test_a_vocabulary_without_a_wrong_token_is_refused():
    with pytest.raises(IntegrityError, match="a vocabulary of 1 has no wrong token"):
        corrupt([0], 0, 0, 0.5, 1)
