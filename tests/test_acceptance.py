"""The acceptance rule: vLLM's cases, and the exact distribution of what comes out."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import IntegrityError
from workbench.randomness import uniform
from workbench.speculative.acceptance import DRAFT, SAMPLE, accepts, certain, pick, recovered, verify_greedy, verify_sampled

# -- greedy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drafts", "target", "emitted"),
    [
        ([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3], [1, 5, 3, 4], [1, 5]),
        ([1, 2, 3], [1, 2, 7, 6], [1, 2, 7]),
        ([4, 5, 6], [4, 8, 6, 7], [4, 8]),
        ([], [5], [5]),
        ([-1, -1], [5, 6, 7], [5]),
    ],
)
def test_the_greedy_cases_of_vllm_hold(drafts, target, emitted):
    """vLLM tests/v1/sample/test_rejection_sampler.py@004fce2d: test_perfect_match, test_early_mismatch, test_multiple_sequences, …

    What vLLM pads with −1 is not there here; a padding draft is our own case.
    """
    assert verify_greedy(drafts, target) == emitted


@given(st.lists(st.integers(0, 2), max_size=6), st.data())
def test_greedy_emits_the_targets_own_tokens_up_to_the_first_that_differs(drafts, data):
    target = data.draw(st.lists(st.integers(0, 2), min_size=len(drafts) + 1, max_size=len(drafts) + 1))
    emitted = verify_greedy(drafts, target)
    assert emitted == target[: len(emitted)]
    assert emitted[:-1] == drafts[: len(emitted) - 1]
    assert len(emitted) == len(drafts) + 1 or emitted[-1] != drafts[len(emitted) - 1]


def test_target_tokens_are_computed_no_further_than_needed():
    asked = []
    assert verify_greedy([1, 2, 3], (asked.append(token) or token for token in (1, 9, 3, 4))) == [1, 9]
    assert asked == [1, 9]


def test_too_few_target_tokens_are_refused():
    with pytest.raises(IntegrityError, match="2 drafts need up to 3 target tokens, not 2"):
        verify_greedy([1, 2], [1, 2])


# -- sampled: the exact law --------------------------------------------------------------------------------------------

CELLS = 12  # a multiple of every denominator that quarters can give: 1, 2, 3 and 4


def quarters(size):
    """Distributions over ``size`` tokens in quarters, as exact fractions."""
    counts = st.lists(st.integers(0, size - 1), min_size=4, max_size=4)
    return counts.map(lambda drawn: [Fraction(drawn.count(token), 4) for token in range(size)])


class Unknown(Exception):
    """A random number was asked for whose value is not settled yet."""


def law(drafts, target, proposal):
    """The exact probability of every outcome: each random number runs through ``CELLS`` equal cells, one branch each."""
    outcomes, open_branches = Counter(), [{}]
    while open_branches:
        settled = open_branches.pop()

        def number(_seed, index, stream, settled=settled):
            if (index, stream) not in settled:
                raise Unknown((index, stream))
            return settled[index, stream]

        try:
            emitted = verify_sampled(drafts, target, proposal, seed=0, num_output=0, random=number)
            outcomes[tuple(emitted)] += Fraction(1, CELLS ** len(settled))
        except Unknown as unknown:
            draw = unknown.args[0]
            open_branches += [{**settled, draw: Fraction(2 * cell + 1, 2 * CELLS)} for cell in range(CELLS)]
    return outcomes


@settings(max_examples=60, deadline=None)
@given(quarters(3), quarters(3), quarters(3))
def test_one_draft_leaves_exactly_the_targets_distribution(p, q, after):
    first, both = Counter(), Counter()
    for draft in range(3):
        for emitted, chance in law([draft], [p, after], [q]).items() if q[draft] else ():
            first[emitted[0]] += q[draft] * chance
            both[emitted] += q[draft] * chance
    assert [first[token] for token in range(3)] == p
    for token, bonus in product(range(3), repeat=2):  # the draft is kept with min(p, q), and then the bonus follows its own law
        assert both[token, bonus] == min(p[token], q[token]) * after[bonus]


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_two_drafts_leave_exactly_the_targets_distribution_of_whole_sequences(data):
    """Distributions depend on what came before; outputs shorter than three tokens go on by ordinary sampling."""
    size = 2
    tree = {prefix: data.draw(quarters(size)) for length in range(3) for prefix in product(range(size), repeat=length)}
    guess = {prefix: data.draw(quarters(size)) for length in range(2) for prefix in product(range(size), repeat=length)}
    found = Counter()
    for drafts in product(range(size), repeat=2):
        drawn = guess[()][drafts[0]] * guess[drafts[:1]][drafts[1]]
        target = [tree[()], tree[drafts[:1]], tree[drafts]]
        for emitted, chance in law(list(drafts), target, [guess[()], guess[drafts[:1]]]).items() if drawn else ():
            for rest in product(range(size), repeat=3 - len(emitted)):
                whole = (*emitted, *rest)
                going_on = math.prod((tree[whole[:at]][whole[at]] for at in range(len(emitted), 3)), start=Fraction(1))
                found[whole] += drawn * chance * going_on
    for whole in product(range(size), repeat=3):
        assert found[whole] == tree[()][whole[0]] * tree[whole[:1]][whole[1]] * tree[whole[:2]][whole[2]]


@settings(max_examples=60, deadline=None)
@given(quarters(3), quarters(3), st.integers(0, 2))
def test_a_certain_draft_is_kept_with_the_targets_probability_of_it(p, after, draft):
    outcomes = law([draft], [p, after], None)
    first = Counter()
    for emitted, chance in outcomes.items():
        first[emitted[0]] += chance
    assert [first[token] for token in range(3)] == p
    assert sum(chance for emitted, chance in outcomes.items() if len(emitted) == 2) == p[draft]


@given(quarters(4), quarters(4))
def test_the_token_after_a_rejection_comes_from_what_the_proposal_had_too_little_of(p, q):
    left = recovered(p, q)
    assert left == ([max(a - b, 0) for a, b in zip(p, q, strict=True)] if p != q else p)


# -- sampled: with real numbers ----------------------------------------------------------------------------------------


def distribution(seed, size=10):
    weights = [uniform(seed, token, 9) for token in range(size)]
    return [weight / sum(weights) for weight in weights]


def verified(seed, target, proposal, k=2):
    drafts = [pick(proposal, uniform(seed, position, DRAFT)) for position in range(k)]
    return verify_sampled(drafts, [target] * (k + 1), [proposal] * k, seed=seed, num_output=0)


def distance(counts, total, reference):
    return math.sqrt(sum((counts[token] / total - chance) ** 2 for token, chance in enumerate(reference)))


def test_rejection_sampling_approximates_target_distribution():
    """vLLM tests/v1/sample/test_rejection_sampler.py@004fce2d, same name: 10 tokens, 2 drafts, 10 to 100,000 samples.

    The distance (L2) of n samples to their own distribution exceeds 5 / √n with a probability below e⁻¹⁶ (McDiarmid's inequality: it
    is at most 1 / √n in the mean, and one sample moves it by at most √2 / n), so another seed would fail here 6 times in 10,000,000.
    """
    target, proposal = distribution(1), distribution(2)
    counts, distances = Counter(), {}
    for sample in range(100_000):
        counts[verified(sample, target, proposal)[0]] += 1
        if sample + 1 in (10, 100, 1_000, 10_000, 100_000):
            distances[sample + 1] = distance(counts, sample + 1, target)
    assert all(found <= 5 / math.sqrt(number) for number, found in distances.items())
    assert distances[100_000] < distances[10] / 5
    assert distance(counts, 100_000, proposal) > 10 * distances[100_000]


def test_deterministic_when_seeded():
    """vLLM tests/v1/sample/test_rejection_sampler.py@004fce2d, same name: whatever else was drawn in between."""
    target, proposal = distribution(3), distribution(4)
    first = [verified(seed, target, proposal) for seed in range(50)]
    again = [verified(seed, target, proposal) for seed in reversed(range(50))]
    assert first == again[::-1]
    assert len(set(map(tuple, first))) > 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=4), st.integers(0, 99), st.data())
def test_certain_targets_and_drafts_give_the_greedy_rule(drafts, seed, data):
    target = data.draw(st.lists(st.integers(0, 3), min_size=len(drafts) + 1, max_size=len(drafts) + 1))
    emitted = verify_sampled(drafts, [certain(token, 4) for token in target], seed=seed, num_output=7)
    assert emitted == verify_greedy(drafts, target)


@pytest.mark.parametrize("drafts", [[], [-1, -1]])
def test_without_a_proposal_the_token_is_the_one_of_plain_decoding(drafts):
    target = distribution(5)
    for seed in range(20):
        emitted = verify_sampled(drafts, [target] * (len(drafts) + 1), seed=seed, num_output=3)
        assert emitted == [pick(target, uniform(seed, 3, SAMPLE))]


def test_the_bonus_is_the_token_of_plain_decoding():
    bonus = distribution(6)
    for seed in range(20):
        assert verify_sampled([2], [certain(2, 10), bonus], seed=seed, num_output=3)[1] == pick(bonus, uniform(seed, 4, SAMPLE))


# -- parts and bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "q", "u", "kept"),
    [(0.5, 0.25, 0.99, True), (0.25, 0.5, 0.49, True), (0.25, 0.5, 0.5, False), (0.0, 0.5, 0.0, False), (0.5, 0.0, 0.0, False)],
)
def test_a_draft_is_kept_with_the_ratio_of_the_probabilities(p, q, u, kept):
    assert accepts(p, q, u) is kept


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(any), st.floats(0, 1, exclude_max=True))
def test_an_index_of_weight_zero_is_never_picked(weights, u):
    assert weights[pick(weights, u)] > 0


def test_weights_that_are_all_zero_are_refused():
    with pytest.raises(IntegrityError, match="none of 2 tokens has any probability"):
        pick([0.0, 0.0], 0.5)


@pytest.mark.parametrize(
    ("target", "proposal", "message"),
    [(1, None, "1 drafts need 2 target distributions, not 1"), (2, 2, "1 drafts need 1 proposal distributions, not 2")],
)
def test_lists_of_the_wrong_length_are_refused(target, proposal, message):
    with pytest.raises(IntegrityError, match=message):
        verify_sampled([0], [[1.0]] * target, None if proposal is None else [[1.0]] * proposal, seed=0, num_output=0)
