"""Choosing tokens: against plain references, and by counting draws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ModelError, RequestError
from workbench.request import Request, SamplingParams
from workbench.sampler import SampleRow, draw, probabilities, sample, token_logprobs


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tests run side by side; waiting for each other's threads would take longer than the work
    yield
    torch.set_num_threads(before)


def row(prompt=(1, 2, 3), output=(), *, seed=0, eos=(), bad_words=(), name="r0", **params):
    request = Request(
        id=name, prompt_token_ids=tuple(prompt), sampling=SamplingParams.of(seed=seed, **params), eos_token_ids=eos, bad_words_ids=bad_words
    )
    return SampleRow(request, [*prompt, *output], len(output))


def scores(rows, vocab, seed=0, scale=3.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def support(logits, **params):
    """Which tokens may come."""
    return (probabilities(logits, [row(temperature=1.0, **params) for _ in logits]) > 0).tolist()


# Greedy


@pytest.mark.parametrize("vocab", [1, 2, 63, 64, 65, 1000, 49_152])
def test_temperature_zero_takes_the_likeliest_token(vocab):
    logits = scores(5, vocab)
    assert sample(logits, [row()] * 5) == (logits.argmax(-1).tolist(), None)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=200))
def test_among_equally_likely_tokens_greedy_takes_the_lowest_id(values):
    assert sample(torch.tensor([values]), [row()])[0] == [values.index(max(values))]


def test_sampling_leaves_the_scores_as_they_are():
    logits = scores(3, 100)
    before = logits.clone()
    sample(logits, [row(), row(temperature=1.0, top_p=0.5), row(repetition_penalty=2.0, logit_bias={1: 5.0})])
    assert torch.equal(logits, before)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_numbers_raise_and_never_become_a_token(temperature, value):
    logits = scores(3, 100)
    logits[1, 70] = value
    rows = [row(name=f"r{i}", temperature=temperature) for i in range(3)]
    with pytest.raises(ModelError, match="request r1 at position 3 are not numbers"):
        sample(logits, rows)


def test_a_row_of_only_minus_infinity_raises():
    with pytest.raises(ModelError, match="are not numbers"):
        sample(torch.full((1, 10), -math.inf), [row()])


def test_parameters_that_leave_no_token_raise_and_name_the_request():
    with pytest.raises(RequestError, match="request r0: its parameters leave no token"):
        sample(scores(1, 10), [row(allowed_token_ids=[7], eos=(7,), min_tokens=3)])


def test_sampling_without_a_seed_raises():
    with pytest.raises(RequestError, match="no seed"):
        sample(scores(1, 10), [row(temperature=1.0, seed=None)])


# Shaping, against transformers' processors where meanings agree


def shaped(logits, **params):
    """Log-probabilities after shaping, from the distribution itself."""
    return probabilities(logits, [row(temperature=1.0, **params) for _ in logits]).log()


def log_softmax(logits):
    return logits.log_softmax(-1)


def assert_same(ours, theirs):
    assert torch.allclose(ours.exp(), theirs.exp(), atol=1e-6)
    assert torch.equal(ours.isinf(), theirs.isinf())


def test_repetition_penalty_is_that_of_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, prompt, output = scores(4, 300), (5, 6, 7, 5), (8, 9, 8)
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([[*prompt, *output]] * 4), logits.clone())
    assert_same(shaped(logits, prompt=prompt, output=output, repetition_penalty=1.7), log_softmax(theirs))


@pytest.mark.parametrize("top_k", [1, 2, 7, 64, 65, 299, 300, 1000])
def test_top_k_is_that_of_transformers(top_k):
    from transformers import TopKLogitsWarper

    logits = scores(4, 300)
    assert_same(shaped(logits, top_k=top_k), log_softmax(TopKLogitsWarper(top_k)(None, logits.clone())))


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_top_p_is_that_of_transformers(top_p, scale):
    from transformers import TopPLogitsWarper

    logits = scores(4, 20_000, scale=scale)
    assert_same(shaped(logits, top_p=top_p), log_softmax(TopPLogitsWarper(top_p)(None, logits.clone())))


@pytest.mark.parametrize("min_p", [0.001, 0.1, 1.0])
def test_min_p_is_that_of_transformers(min_p):
    from transformers import MinPLogitsWarper

    logits = scores(4, 300)
    assert_same(shaped(logits, min_p=min_p), log_softmax(MinPLogitsWarper(min_p)(None, logits.clone())))


def test_bad_words_are_those_of_transformers_while_the_output_is_what_matches():
    from transformers import NoBadWordsLogitsProcessor

    words, output = [[4], [8, 9], [7, 8, 10], [9, 8, 11], [3, 12]], (7, 9, 8)
    logits = scores(2, 50)
    theirs = NoBadWordsLogitsProcessor(words, eos_token_id=0)(torch.tensor([output] * 2), logits.clone())
    assert_same(shaped(logits, output=output, bad_words=tuple(map(tuple, words))), log_softmax(theirs))


def test_bad_words_do_not_match_into_the_prompt():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    assert sample(logits, [row(prompt=(0, 1), bad_words=((1, 2),))])[0] == [2]
    assert sample(logits, [row(prompt=(0,), output=(1,), bad_words=((1, 2),))])[0] == [1]


def test_frequency_and_presence_penalties_count_the_output_only():
    logits = torch.zeros(1, 6)
    ours = shaped(logits, prompt=(4, 4), output=(1, 2, 2, 2), frequency_penalty=0.5, presence_penalty=0.25)
    expected = torch.tensor([[0.0, -0.75, -1.75, 0.0, 0.0, 0.0]])
    assert torch.allclose(ours, log_softmax(expected))


def test_logit_bias_is_added_and_precedes_the_repetition_penalty():
    ours = shaped(torch.tensor([[1.0, 1.0, 1.0]]), prompt=(2,), logit_bias={2: 3.0, 0: -1.0}, repetition_penalty=2.0)
    assert torch.allclose(ours, log_softmax(torch.tensor([[0.0, 1.0, 2.0]])))


@pytest.mark.parametrize("bias", [{1: math.nan}, {1: -math.inf}, {"one": 1.0}, {1: "2"}])
def test_a_bias_that_is_no_number_is_refused_when_the_parameters_are_made(bias):
    with pytest.raises(RequestError, match="logit_bias must map token ids to finite numbers"):
        SamplingParams(logit_bias=bias)


def test_min_tokens_holds_back_every_end_until_enough_tokens_are_out():
    logits = torch.tensor([[1.0, 2.0, 9.0, 8.0]])
    rules = {"min_tokens": 2, "eos": (2,), "stop_token_ids": (3, 99), "ignore_eos": True}
    assert sample(logits, [row(output=(0,), **rules)])[0] == [1]
    assert sample(logits, [row(output=(0, 0), **rules)])[0] == [2]


@pytest.mark.parametrize(
    "params",
    [{"logit_bias": {10: 1.0}}, {"allowed_token_ids": [-1, 2]}, {"bad_words": ((11,),)}, {"prompt": (50,), "repetition_penalty": 2.0}],
)
def test_a_token_id_outside_the_vocabulary_raises_and_never_counts_from_the_end(params):
    with pytest.raises(RequestError, match="ids go from 0 to 9"):
        sample(scores(1, 10), [row(**params)])


# Truncation


def plain_truncation(logits, top_k, top_p, min_p):
    """The definition, by one full sort in float64: for each row the set of tokens that may come."""
    result = []
    for values in logits.double():
        chances = values.softmax(-1)
        chances[chances < min_p * chances.max() * (1 - 1e-6)] = 0
        if 0 < top_k < len(chances):
            chances[chances < chances.sort(descending=True).values[top_k - 1]] = 0
        order = chances.sort(descending=True, stable=True).indices
        before = chances[order].cumsum(0) - chances[order]
        kept = order[before < top_p * chances.sum()] if top_p < 1 else order
        allowed = torch.zeros(len(chances), dtype=torch.bool)
        allowed[kept] = True
        result.append((allowed & (chances > 0)).tolist())
    return result


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocab=st.sampled_from([1, 3, 64, 100, 257, 12_000]),
    scale=st.sampled_from([0.01, 1.0, 4.0]),
    top_k=st.sampled_from([0, 1, 5, 40, 100, 500]),
    top_p=st.sampled_from([1.0, 0.123, 0.517, 0.951]),
    min_p=st.sampled_from([0.0, 0.0213]),
)
def test_truncation_without_sorting_everything_equals_a_full_sort(seed, vocab, scale, top_k, top_p, min_p):
    logits = scores(3, vocab, seed, scale)
    found, wanted = support(logits, top_k=top_k, top_p=top_p, min_p=min_p), plain_truncation(logits, top_k, top_p, min_p)
    for row, mine, theirs in zip(logits, found, wanted, strict=True):
        other = [i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
        # Sums taken in another order differ in their last bits: on the edge of the nucleus a token may be in or out, or one for its like.
        assert len(other) <= 2
        assert abs(sum(mine) - sum(theirs)) <= 1
        assert not other or float(row[other].max() - row[other].min()) <= 1e-4


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 2000), (0.2501, 1001), (0.0001, 1)])
def test_top_p_keeps_the_lower_ids_among_equals(top_p, kept):
    assert support(torch.zeros(1, 4000), top_p=top_p) == [[True] * kept + [False] * (4000 - kept)]


def test_a_nucleus_of_many_thousand_tokens_keeps_the_lower_ids_among_equals():
    logits = torch.zeros(2, 30_000)
    logits[:, ::64] = 1.0  # the first guess is these 469 tokens, far too few
    found = support(logits, top_p=0.7)
    likelier, equal = range(0, 30_000, 64), [i for i in range(30_000) if i % 64]
    goal = 0.7 * (len(likelier) * math.e + len(equal)) - len(likelier) * math.e
    kept = {*likelier, *equal[: math.ceil(goal)]}
    assert found == [[i in kept for i in range(30_000)]] * 2


def test_top_k_keeps_what_ties_with_the_last():
    assert support(torch.tensor([[3.0, 1.0, 2.0, 2.0, 0.0]]), top_k=2) == [[True, False, True, True, False]]


def test_temperature_sharpens_before_top_p_cuts():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    hot, cold = (probabilities(logits, [row(temperature=t, top_p=0.9)]) for t in (2.0, 0.3))
    assert (hot > 0).sum() == 3
    assert (cold > 0).sum() == 1


@pytest.mark.parametrize("temperature", [1e-4, 1e-6, 1e-40])
def test_a_tiny_temperature_is_greedy_and_never_not_a_number(temperature):
    logits = torch.tensor([[1e4, 3.0, -1e4]])
    assert sample(logits, [row(temperature=temperature)])[0] == [0]


# Drawing


def chi_squared_limit(freedom, z=4.75):
    """Exceeded by 1 of 1,000,000 honest samples (Wilson and Hilferty's approximation)."""
    return freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.6},
        {"temperature": 1.5, "top_k": 20},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.0, "min_p": 0.05},
        {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_tokens_come_as_often_as_their_probability_says(params):
    """Chi-squared of 20,000 draws over 150 tokens, rare ones pooled: false alarms 1 in 1,000,000 per case, were the seed not fixed."""
    draws, logits, request = 20_000, scores(1, 150, scale=1.5), row(**params).request
    expected = probabilities(logits, [row(**params)])[0].double() * draws
    counts = torch.zeros(150, dtype=torch.float64)
    for start in range(0, draws, 2000):
        # Only the output's length chooses the random number; were its tokens there, penalties would change from draw to draw.
        rows = [SampleRow(request, (1, 2, 3), index) for index in range(start, start + 2000)]
        counts += torch.tensor(sample(logits.expand(2000, -1), rows)[0]).bincount(minlength=150)
    assert counts[expected == 0].sum() == 0
    common = expected >= 5
    groups = [(counts[i], expected[i]) for i in common.nonzero()] + [(counts[~common].sum(), expected[~common].sum())]
    groups = [(seen, hoped) for seen, hoped in groups if hoped > 0]
    statistic = sum(float((seen - hoped) ** 2 / hoped) for seen, hoped in groups)
    assert statistic < chi_squared_limit(len(groups) - 1)


def test_distribution_of_a_plain_row_is_the_softmax():
    logits = scores(3, 1000)
    ours = probabilities(logits, [row(temperature=0.7)] * 3)
    assert torch.allclose(ours, (logits / 0.7).softmax(-1), atol=1e-7)


def test_distribution_of_a_greedy_row_is_all_on_one_token():
    logits = scores(2, 100)
    ours = probabilities(logits, [row(), row(temperature=1.0)])
    assert ours[0].nonzero().flatten().tolist() == [logits[0].argmax()]
    assert ours[1].sum().item() == pytest.approx(1.0)


@given(
    weights=st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 1.0]), min_size=1, max_size=200).filter(any),
    point=st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53])),
)
def test_an_index_of_weight_zero_never_comes(weights, point):
    assert weights[draw(torch.tensor([weights]), [point]).item()] > 0


def test_drawing_inverts_the_cumulative_distribution():
    weights = torch.tensor([[0.0, 1.0, 0.0, 2.0, 1.0, 0.0]])
    assert [draw(weights, [u]).item() for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999999)] == [1, 1, 3, 3, 4, 4]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(8)), size=st.integers(1, 8))
def test_the_same_seed_gives_the_same_token_in_any_batch(seed, order, size):
    params = [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 2.0, "top_k": 40},
        {"temperature": 1.0, "min_p": 0.01},
        {},
        {"temperature": 1.0, "repetition_penalty": 1.5},
        {"temperature": 1.0, "top_p": 0.99, "logprobs": 2},
        {"temperature": 5.0, "top_p": 0.9999},
    ]
    logits = scores(8, 2000, seed)
    rows = [row(output=(4,) * i, seed=seed + i, **params[i]) for i in range(8)]
    alone = [sample(logits[i : i + 1], [rows[i]])[0][0] for i in range(8)]
    together = sample(logits[list(order[:size])], [rows[i] for i in order[:size]])[0]
    assert together == [alone[i] for i in order[:size]]


def test_the_number_of_threads_changes_nothing():
    logits = scores(8, 49_152)
    rows = [row(seed=i, temperature=1.0, top_p=0.95) for i in range(8)]
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(sample(logits, rows)[0])
    assert found[0] == found[1] == found[2]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(), allowed=st.sets(st.integers(0, 99), min_size=1, max_size=10), temperature=st.sampled_from([0.0, 1.0, 100.0]))
def test_a_sampled_token_is_always_an_allowed_one(seed, allowed, temperature):
    rows = [
        row(output=(3,) * i, seed=seed, temperature=temperature, allowed_token_ids=sorted(allowed), frequency_penalty=2.0) for i in range(4)
    ]
    assert set(sample(scores(4, 100), rows)[0]) <= allowed


# Log-probabilities


def test_logprobs_are_of_the_raw_scores_and_only_where_asked():
    logits = scores(3, 500)
    rows = [row(), row(temperature=0.1, logit_bias={5: 100.0}, logprobs=3), row(logprobs=0)]
    tokens, logprobs = sample(logits, rows)
    reference = logits.log_softmax(-1)
    assert logprobs[0] is None
    assert tokens[1] == logprobs[1].token_id == 5
    assert logprobs[1].logprob == pytest.approx(reference[1, 5].item(), abs=1e-5)
    assert logprobs[1].rank == (logits[1] > logits[1, 5]).sum() + 1
    assert logprobs[1].top_ids == tuple(logits[1].topk(3).indices.tolist())
    assert logprobs[1].top_logprobs == pytest.approx(reference[1].topk(3).values.tolist(), abs=1e-5)
    assert (logprobs[2].rank, logprobs[2].top_ids, logprobs[2].top_logprobs) == (1, (), ())


def test_prompt_logprobs_add_up_to_the_likelihood_of_the_text():
    logits, prompt = scores(6, 100), [4, 8, 15, 16, 23, 42]
    found = token_logprobs(logits[:-1], prompt[1:], 2)
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(prompt[1:]), reduction="sum")
    assert sum(entry.logprob for entry in found) == pytest.approx(-loss.item(), rel=1e-5)
    assert [entry.token_id for entry in found] == prompt[1:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_tokens_on_cuda_are_those_on_the_cpu():
    logits = scores(64, 49_152)
    rows = [row(seed=i, output=(3, 3), temperature=float(i % 3), top_p=(1.0, 0.9)[i % 2], top_k=(0, 40)[i // 2 % 2]) for i in range(64)]
    assert sample(logits.cuda(), rows)[0] == sample(logits, rows)[0]
