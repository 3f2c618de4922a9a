"""The suffix tree against counting by hand: what it holds, what is taken out again, what it guesses."""

from __future__ import annotations

from fractions import Fraction
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.speculative.suffix_tree import Guess, SuffixTree

TOKENS = st.integers(0, 2)
TEXT = st.lists(TOKENS, max_size=14)


def occurrences(texts, run):
    return sum(text[start : start + len(run)] == run for text in texts for start in range(len(text) - len(run) + 1))


def followed(texts, run, most, min_probability, max_depth):
    """The same rule as ``follow``, each count made by looking at every place."""
    tokens, score, probability = [], 0.0, 1.0
    while len(tokens) < min(most, max_depth - len(run)):
        so_far = run + tokens
        counts = {token: occurrences(texts, [*so_far, token]) for text in texts for token in text}
        token = min(counts, key=lambda token: (-counts[token], token), default=None)
        if token is None or not counts[token]:
            break
        probability *= counts[token] / occurrences(texts, so_far)
        if probability < min_probability:
            break
        tokens.append(token)
        score += probability
    return Guess(tokens, score)


def expected(texts, text, most, min_probability, max_depth):
    """Every suffix of ``text`` that occurs, with its continuation."""
    suffixes = [text[len(text) - length :] for length in range(1, min(max_depth, len(text)) + 1)]
    return {len(run): followed(texts, run, most, min_probability, max_depth) for run in suffixes if occurrences(texts, run)}


def found(tree, matches, most, min_probability):
    return {match.length: tree.follow(match, most, min_probability) for match in matches}


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, max_size=5), TEXT, st.integers(1, 7), st.integers(0, 8), st.sampled_from([0.0, 0.1, 0.4, 1.0]))
def test_guesses_about_any_text_are_those_of_counting_by_hand(texts, text, max_depth, most, min_probability):
    tree = SuffixTree(max_depth)
    for one in texts:
        tree.add(one)
    assert found(tree, tree.matches(text), most, min_probability) == expected(texts, text, most, min_probability, max_depth)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, max_size=3), st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 7))
def test_guesses_about_a_growing_text_are_those_of_counting_by_hand(before, pieces, max_depth):
    tree, text = SuffixTree(max_depth), []
    for one in before:
        tree.add(one)
    tree.add([])
    for piece in pieces:
        tree.extend(piece)
        text = text + piece
        texts = [*before, text]
        twice = {
            length: guess
            for length, guess in expected(texts, text, 8, 0.1, max_depth).items()
            if occurrences(texts, text[len(text) - length :]) > 1
        }
        assert found(tree, tree.own_matches(), 8, 0.1) == twice


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_texts_taken_out_leave_no_trace(data, max_depth):
    tree, held = SuffixTree(max_depth), []
    for _ in range(data.draw(st.integers(1, 8))):
        if held and data.draw(st.booleans()):
            tree.remove(held.pop(data.draw(st.integers(0, len(held) - 1))))
        else:
            held.append(data.draw(TEXT))
            tree.add(held[-1])
    asked = data.draw(TEXT)
    assert found(tree, tree.matches(asked), 8, 0.1) == expected(held, asked, 8, 0.1, max_depth)
    for text in held:
        tree.remove(text)
    assert not list(tree.matches(asked))
    assert not tree._root.children


@given(st.lists(TEXT, max_size=5), TEXT, st.integers(1, 7))
def test_match_and_guess_together_are_a_run_of_some_text_and_no_longer_than_the_depth(texts, asked, max_depth):
    tree = SuffixTree(max_depth)
    for text in texts:
        tree.add(text)
    for match in tree.matches(asked):
        tokens = tree.follow(match, 10, 0.0).token_ids
        assert match.length + len(tokens) <= max_depth
        assert occurrences(texts, asked[len(asked) - match.length :] + tokens)


def test_the_score_is_the_number_of_drafts_that_may_be_expected_to_be_right():
    tree = SuffixTree(8)
    tree.add([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 4])
    (one, *_) = tree.matches([1])
    tokens, score = tree.follow(one, 3, 0.1)
    assert tokens == [2, 3, 8]  # 2 always follows 1; 3 follows 1 2 two times of three; 8 and 9 are as frequent
    assert score == pytest.approx(float(1 + Fraction(2, 3) + Fraction(2, 3) * Fraction(1, 2)))


def test_the_most_repetitive_text_takes_time_in_proportion_to_its_length():
    """One token over and over unfolds every node: with steps per token that grew with the text, this would take minutes."""
    began = perf_counter()
    SuffixTree(24).extend([1] * 50_000)
    assert perf_counter() - began < 20
