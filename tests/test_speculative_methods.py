"""Methods by name: what is understood, and what a mistake is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.speculative.methods import FORMS, TOKEN_METHODS, make_proposer, method_name, synthetic_rate
from workbench.speculative.ngram import NgramProposer
from workbench.speculative.proposer import Remembers, Wanted
from workbench.speculative.suffix import SuffixProposer

REPEATING = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("method", "lengths"), [("ngram", (5, 5)), ("ngram:3", (3, 3)), ("ngram:2-4", (2, 4))])
def test_ngram_takes_its_lengths_as_vllm_does(method, lengths):
    """vllm/config/speculative.py of 0.32.0: without either, both are 5; one alone is both."""
    proposer = make_proposer(method)
    assert isinstance(proposer, NgramProposer)
    assert (proposer.min_n, proposer.max_n) == lengths


def test_suffix_has_the_knobs_of_vllm():
    """vllm/config/speculative.py of 0.32.0: suffix_decoding_max_tree_depth and its neighbours."""
    proposer = make_proposer("suffix")
    assert isinstance(proposer, SuffixProposer)
    assert (proposer.max_depth, proposer.memory.max_answers, proposer.max_factor, proposer.min_probability) == (24, 10_000, 1.0, 0.1)


@pytest.mark.parametrize("method", TOKEN_METHODS)
@given(tokens=st.lists(st.integers(0, 3), max_size=30), limit=st.integers(0, 6))
def test_every_token_proposer_answers_each_request_with_tokens_it_has_and_within_its_limit(method, tokens, limit):
    asked = [Wanted("a", tokens, 0, limit, 0), Wanted("b", tokens[::-1], 0, limit, 0)]
    answers = make_proposer(method).propose(asked)
    assert len(answers) == 2
    for one, drafts in zip(asked, answers, strict=True):
        assert type(drafts) is list
        assert len(drafts) <= one.limit
        assert set(drafts) <= set(tokens)


def test_ngram_proposes_for_each_request_by_itself():
    asked = [Wanted("a", REPEATING, 3, 2, 0), Wanted("b", [1, 2], 1, 4, 0), Wanted("c", REPEATING, 3, 0, 0)]
    assert make_proposer("ngram").propose(asked) == [[6, 7], [], []]
    assert not isinstance(make_proposer("ngram"), Remembers)


@pytest.mark.parametrize(
    "method", ["ngram:", "ngram:x", "ngram:2-", "ngram:-3", "ngram:2-4-6", "ngram:2,4", "ngram: 2", "ngram:٣", "ngram:1e2"]
)
def test_an_ngram_method_that_is_badly_written_is_told_the_forms(method):
    with pytest.raises(ConfigError) as caught:
        make_proposer(method)
    assert str(caught.value) == f"speculative method {method!r} is not one: write {FORMS['ngram']}"


@pytest.mark.parametrize(("method", "lengths"), [("ngram:0", "0 to 0"), ("ngram:4-2", "4 to 2"), ("ngram:0-3", "0 to 3")])
def test_lengths_that_cannot_be_are_refused(method, lengths):
    with pytest.raises(ConfigError, match=f"^n-grams of {lengths} tokens cannot be looked up"):
        make_proposer(method)


def test_suffix_takes_nothing_after_its_name():
    with pytest.raises(ConfigError, match=r"^speculative method 'suffix:24' is not one: write suffix$"):
        make_proposer("suffix:24")


@pytest.mark.parametrize(("method", "rate"), [("synthetic:0.7", 0.7), ("synthetic:0", 0), ("synthetic:1", 1), ("synthetic:.5", 0.5)])
def test_a_synthetic_rate_is_read(method, rate):
    assert synthetic_rate(method) == rate


@pytest.mark.parametrize(
    "method", ["synthetic", "synthetic:", "synthetic:1.1", "synthetic:-0.1", "synthetic:nan", "synthetic:70%", "ngram:0.5"]
)
def test_a_synthetic_method_without_a_rate_is_told_the_form(method):
    with pytest.raises(ConfigError) as caught:
        synthetic_rate(method)
    assert str(caught.value) == f"speculative method {method!r} is not one: write {FORMS['synthetic']}"


def test_a_misspelt_method_is_offered_the_closest_one():
    with pytest.raises(ConfigError, match=r"^unknown speculative method 'sufix': did you mean 'suffix'"):
        make_proposer("sufix")
    with pytest.raises(ConfigError, match=r"^unknown speculative method ''; known: draft, eagle, ngram, suffix, synthetic$"):
        make_proposer("")


@pytest.mark.parametrize("method", ["eagle", "draft:int8", "synthetic:0.7"])
def test_a_method_that_needs_a_model_is_no_proposer_of_tokens_alone(method):
    assert method_name(method) in FORMS
    with pytest.raises(ConfigError, match=r"needs a model; from tokens alone: ngram, suffix$"):
        make_proposer(method)
