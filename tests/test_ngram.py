"""Drafts by look-up: vLLM's unit cases, its recorded answers, and a plain reference."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.speculative.ngram import earlier_match, propose

RECORDED = Path(__file__).parent / "data" / "vllm-0.32.0-ngram" / "cases.jsonl.gz"


def look_up(tokens, min_n, max_n, k, max_model_len=1024):
    return propose(tokens, min_n=min_n, max_n=max_n, k=k, max_model_len=max_model_len)


@pytest.mark.parametrize(
    ("tokens", "n", "k", "drafts"),
    [
        ([1, 2, 3, 4, 1, 2, 3], (2, 2), 3, [4, 1, 2]),
        ([1, 3, 6, 2, 3, 4, 1, 2, 3], (1, 1), 2, [6, 2]),  # the earliest match wins
        ([2, 3, 4, 5, 1, 2, 3, 4, 1, 2, 3, 4], (3, 4), 2, [1, 2]),  # the longer n wins
        ([1, 2, 3, 100, 1, 2, 3, 200, 1, 2, 3, 300, 1, 2, 3], (3, 3), 2, [100, 1]),
        ([1, 2, 3, 4, 5], (2, 2), 2, []),
        ([1, 2, 3, 4, 1, 2, 3], (4, 4), 2, []),
    ],
)
def test_the_cases_of_vllm_hold(tokens, n, k, drafts):
    """vLLM tests/v1/spec_decode/test_ngram.py@016e8ede: test_find_longest_matched_ngram_and_propose_tokens, test_ngram_proposer."""
    assert look_up(tokens, *n, k) == drafts


def test_every_recorded_answer_of_vllm_is_ours():
    with gzip.open(RECORDED, "rt") as lines:
        cases = [json.loads(line) for line in lines]
    assert len(cases) == 2000
    for case in cases:
        drafts = case.pop("drafts")
        assert propose(case.pop("token_ids"), **case) == drafts


def plain(tokens, min_n, max_n, k, max_model_len):
    """Try every n and every place."""
    for n in range(min(max_n, len(tokens)), min_n - 1, -1):
        for start in range(len(tokens) - n):
            if tokens[start : start + n] == tokens[-n:]:
                return tokens[start + n : start + n + max(0, min(k, max_model_len - len(tokens)))]
    return []


@settings(max_examples=300)
@given(st.data())
def test_it_finds_what_trying_every_place_finds(data):
    tokens = data.draw(st.lists(st.integers(0, data.draw(st.integers(0, 3))), max_size=40))
    min_n = data.draw(st.integers(1, 5))
    arguments = (min_n, data.draw(st.integers(min_n, 8)), data.draw(st.integers(0, 6)), data.draw(st.integers(0, 60)))
    assert look_up(tokens, *arguments) == plain(tokens, *arguments)


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 8))
def test_a_match_is_the_end_again_and_no_longer_than_asked(tokens, max_n):
    length, end = earlier_match(tokens, max_n)
    assert 0 <= length <= max_n
    assert end < len(tokens) or not tokens
    assert tokens[end - length : end] == tokens[len(tokens) - length :]


def test_a_match_may_overlap_the_end():
    assert look_up([7, 7, 7, 7], 2, 2, 3) == [7, 7]


def test_no_more_is_proposed_than_the_model_has_room_for():
    tokens = [1, 2, 3, 4, 1, 2, 3]
    assert [look_up(tokens, 2, 2, 3, limit) for limit in (6, 7, 8, 9, 10)] == [[], [], [4], [4, 1], [4, 1, 2]]


@pytest.mark.parametrize("tokens", [[], [1]])
def test_too_few_tokens_give_no_drafts(tokens):
    assert look_up(tokens, 1, 3, 4) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 3, 1), "n-grams of 0 to 3"), ((3, 2, 1), "n-grams of 3 to 2"), ((1, 2, -1), "k must be at least 0 drafts, not -1")],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        look_up([1, 2], *arguments)


def test_time_grows_with_the_length_not_with_its_square():
    """Nearly equal tokens are the worst case of trying every place: minutes here, where one pass takes a fraction of a second."""
    tokens = [1] * 100_000 + [2] + [1] * 999
    began = perf_counter()
    assert look_up(tokens, 1000, 1000, 3, 10**6) == []
    assert perf_counter() - began < 5
