"""Suffix drafts: the rule, the memory of finished answers, and that a step done again proposes the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_speculative_suffix_tree import expected

from workbench.errors import IntegrityError
from workbench.speculative.proposer import Remembers, Wanted
from workbench.speculative.suffix import SuffixProposer

TEXT = st.lists(st.integers(0, 2), max_size=14)


def wanted(tokens, limit=8, request_id="r0"):
    return Wanted(request_id, tokens, 0, limit, seed=0)


def drafts(proposer, tokens, limit=8, request_id="r0"):
    (answer,) = proposer.propose([wanted(tokens, limit, request_id)])
    return answer


def by_hand(text, answers, limit, *, max_depth, max_factor, min_probability):
    """The rule of the module, every count made by looking at every place."""
    best = ([], 0.0)
    for texts, own in (([text], True), (answers, False)):
        chosen = ([], 0.0)
        for length in range(1, min(max_depth, len(text)) + 1):
            most = min(limit, int(length * max_factor))
            guess = expected(texts, text, most, min_probability, max_depth).get(length)
            if guess and guess.score >= chosen[1]:
                chosen = guess
        if own or chosen[1] > best[1]:
            best = chosen
    return list(best[0])


@settings(max_examples=200, deadline=None)
@given(
    TEXT,
    st.lists(TEXT, max_size=4),
    st.integers(0, 6),
    st.fixed_dictionaries(
        {
            "max_depth": st.integers(1, 7),
            "max_factor": st.sampled_from([0.0, 1 / 3, 1.0, 2.0]),
            "min_probability": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        }
    ),
)
def test_drafts_are_those_of_counting_by_hand(text, answers, limit, knobs):
    proposer = SuffixProposer(**knobs)
    for step, answer in enumerate(answers):
        proposer.finished(step, f"before-{step}", answer)
    assert drafts(proposer, text, limit) == by_hand(text, answers, limit, **knobs)


def test_what_followed_most_often_is_proposed_not_what_followed_first():
    text = [1, 2, 3, 4, 1, 2, 7, 8, 1, 2, 7, 9, 1, 2]
    assert drafts(SuffixProposer(), text) == [7, 8]


def test_no_more_is_proposed_than_the_match_is_long_and_the_limit_allows():
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]
    assert [drafts(SuffixProposer(), text, limit) for limit in (0, 1, 2, 3, 9)] == [[], [4], [4, 5], [4, 5, 6], [4, 5, 6]]


def test_match_and_drafts_together_stay_within_the_depth():
    text = [*range(100), *range(20)]
    assert drafts(SuffixProposer(), text, 64) == list(range(20, 32))  # 12 matched and 12 drafted are 24, and score best


def test_drafts_stop_where_texts_disagree_too_much():
    text = [5, 6, 1, 2, 5, 6, 1, 3, 5, 6, 1, 4, 5, 6]
    assert drafts(SuffixProposer(min_probability=0.1), text) == [1, 2]
    assert drafts(SuffixProposer(min_probability=0.5), text) == [1]
    assert drafts(SuffixProposer(min_probability=0.9), text) == []


def test_an_earlier_answer_is_drawn_on_where_the_request_itself_says_less():
    proposer = SuffixProposer()
    assert drafts(proposer, [1, 2, 3]) == []
    proposer.finished(4, "earlier", [9, 1, 2, 3, 4, 5, 6])
    assert drafts(proposer, [1, 2, 3]) == [4, 5, 6]
    assert drafts(proposer, [1, 2, 3, 7, 7, 7, 1, 2, 3]) == [4, 5, 6]  # certain there, one of two here
    assert drafts(proposer, [8, 8, 8, 8]) == drafts(SuffixProposer(), [8, 8, 8, 8]) != []


def test_only_the_latest_answers_are_drawn_on():
    proposer = SuffixProposer(max_answers=2)
    for step in range(4):
        proposer.finished(step, f"r{step}", [step, 50 + step, 60 + step])
    assert [drafts(proposer, [step]) for step in range(4)] == [[], [], [52], [53]]
    nothing = SuffixProposer(max_answers=0)
    nothing.finished(0, "r0", [1, 2, 3])
    assert drafts(nothing, [1]) == []


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), TEXT), min_size=1, max_size=10))
def test_what_was_asked_before_changes_no_drafts(calls):
    """Texts grow, shrink and change under the same ids; a proposer that never saw anything says the same."""
    kept = SuffixProposer()
    for request_id, text in calls:
        assert drafts(kept, text, request_id=request_id) == drafts(SuffixProposer(), text)


@given(TEXT, TEXT)
def test_a_text_that_grew_gets_the_drafts_of_one_seen_whole(first, more):
    proposer = SuffixProposer()
    drafts(proposer, first)
    assert drafts(proposer, first + more) == drafts(SuffixProposer(), first + more)


EVENTS = st.lists(st.one_of(st.tuples(st.just("finished"), TEXT), st.tuples(st.just("rewind"), st.integers(0, 12))), max_size=12)


@settings(max_examples=200, deadline=None)
@given(EVENTS, TEXT, st.integers(0, 4))
def test_after_any_rewinds_the_memory_is_that_of_the_steps_that_stand(events, asked, max_answers):
    """Each event is a step; answers pushed out by ones that were undone are back."""
    proposer, step, standing = SuffixProposer(max_answers=max_answers), 0, []
    for kind, value in events:
        if kind == "finished":
            proposer.finished(step, f"r{step}", value)
            standing.append((step, value))
            step += 1
        else:
            step = min(step, value)
            proposer.rewind(step)
            standing = [(at, text) for at, text in standing if at < step]
        fresh = SuffixProposer(max_answers=max_answers)
        for at, text in standing:
            fresh.finished(at, f"r{at}", text)
        assert drafts(proposer, asked) == drafts(fresh, asked)
        assert drafts(proposer.copy(), asked) == drafts(fresh, asked)


def test_a_fork_remembers_for_itself():
    proposer = SuffixProposer(max_depth=9, max_factor=2.0, min_probability=0.2, max_answers=5)
    proposer.finished(0, "r0", [1, 2, 3])
    fork = proposer.copy()
    fork.finished(1, "r1", [1, 7, 1, 7, 1, 7])
    proposer.finished(1, "r1", [1, 8, 1, 8, 1, 8])
    assert (drafts(fork, [1], 1), drafts(proposer, [1], 1)) == ([7], [8])
    fork.rewind(1)
    assert (drafts(fork, [1], 1), drafts(proposer, [1], 1)) == ([2], [8])
    assert (fork.max_depth, fork.max_factor, fork.min_probability, fork.memory.max_answers) == (9, 2.0, 0.2, 5)


def test_a_run_with_a_rewind_in_it_proposes_what_the_straight_run_did():
    """A whole little engine: three requests that answer by a script, one after the other finishing; steps 4 to 8 are done twice."""
    scripts = {name: random.Random(name).choices(range(4), k=6 + 4 * index) for index, name in enumerate("abc")}

    def step(proposer, now):
        live = {name: script[: now + 1] for name, script in scripts.items() if len(script) > now}
        proposed = proposer.propose([wanted(text, 4, name) for name, text in live.items()])
        for name, text in live.items():
            if text == scripts[name]:
                proposer.finished(now, name, text)
        return proposed

    proposer = SuffixProposer()
    straight = [step(proposer, now) for now in range(9)]
    proposer.rewind(4)
    fork = proposer.copy()
    assert [step(proposer, now) for now in range(4, 14)][:5] == straight[4:]
    assert [step(fork, now) for now in range(4, 9)] == straight[4:]
    assert any(any(drafts) for drafts in straight[6:])


def test_answers_come_in_the_order_of_steps():
    proposer = SuffixProposer()
    proposer.finished(5, "r0", [1])
    with pytest.raises(IntegrityError, match="an answer of step 4 came after one of step 5"):
        proposer.finished(4, "r1", [2])


def test_trees_of_requests_that_are_gone_are_let_go():
    proposer = SuffixProposer()
    for index in range(50):
        proposer.propose([wanted([1, 2, 3], request_id=f"r{index}")])
    assert len(proposer._trees) <= 2
    proposer.finished(0, "r49", [1])
    assert "r49" not in proposer._trees


def test_it_says_that_it_remembers():
    assert isinstance(SuffixProposer(), Remembers)
