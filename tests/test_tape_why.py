"""Why a step is what it is, as it travels to a screen."""

from __future__ import annotations

import json
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_workloads import policy_workloads
from render_fixtures import scripted_run
from test_moment import CHANGES
from test_reuse import run_with_changes
from test_scheduler import workloads

from workbench import Engine, TraceError
from workbench.explain import explain_step
from workbench.rebuild import rebuild
from workbench.runners.scripted import ScriptedRunner
from workbench.tape import why_payload, whys


def row_of(payload, name):
    return next(row for row in payload["rows"] if row["request"] == name)


@pytest.fixture(scope="module")
def crowded():
    """Two places, ten blocks: everybody waits, is cut short or is preempted at some time."""
    prompts = [list(range(40)), list(range(50, 62)), list(range(70, 90)), [1, 2]]
    return scripted_run(prompts, num_blocks=15, block_size=4, max_num_seqs=2, max_num_batched_tokens=24, max_tokens=20)


def test_a_payload_is_the_explanation_of_the_step_as_json(crowded):
    told = explain_step(crowded.trace, 3)
    payload = json.loads(json.dumps(why_payload(crowded.trace, 3)))
    assert (payload["step"], payload["summary"], payload["commands"]) == (3, told.summary, list(told.commands))
    for row, one in zip(payload["rows"], told.explanations, strict=True):
        assert (row["request"], row["verdict"], row["sentence"], row["tried"]) == (
            one.request_id,
            one.decision.verdict.value,
            one.sentence,
            one.tried,
        )
        assert row["more"] == [*one.chain, *[text for text in (one.prefix, one.afterwards) if text]]
        assert [change["fork"] for change in row["changes"]] == [found.changes for found in one.counterfactuals]


def test_labels_say_in_a_word_or_three_what_a_request_did(crowded):
    labels = {row["label"] for payload in whys(crowded.trace, 0, 99, 9.0) for row in payload["rows"]}
    assert {"chunk 24 of 40", "prefill 16", "decode", "waiting"} <= labels
    assert max(len(label.split()) for label in labels) <= 4


def test_labels_of_drafts_of_preemptions_and_of_those_still_to_come():
    runner = ScriptedRunner(lambda name, position: position % 4, drafts=lambda name, known: [0, 1, 2])
    with Engine(runner, num_blocks=6, block_size=4, num_speculative_tokens=3, max_num_batched_tokens=18, max_num_seqs=4) as engine:
        trace = engine.run([[1, 2, 3], [1, 2], {"prompt_token_ids": [3], "arrival_step": 9}], max_tokens=9).trace
    labels = {row["label"] for payload in whys(trace, 0, 99, 9.0) for row in payload["rows"]}
    assert {"verify 3", "preempted", "not arrived"} <= labels


def test_a_suggestion_says_knob_value_and_effect_and_its_fork_does_it(crowded):
    payload = why_payload(crowded.trace, 0)
    cut = row_of(payload, "r0")
    assert cut["changes"][0] == {"label": "max_num_batched_tokens 40 → run in full", "fork": {"max_num_batched_tokens": 40}}
    with Engine.from_trace(crowded.trace, ScriptedRunner()) as engine:
        branch = engine.last_run.fork(0, **cut["changes"][0]["fork"])
    assert branch.step().scheduled[0].num_tokens == 40
    waiting = row_of(payload, "r2")["changes"]
    assert all(change["label"].endswith("→ run it") for change in waiting)


def test_values_of_suggestions_read_like_text():
    from workbench.findings.why import CounterfactualData
    from workbench.tape.why import _change

    def label(knob, before, after):
        return _change(CounterfactualData("r0", 1, knob, before, after, "run"))

    assert label("priority", 0, -1) == "priority −1 → run it"
    assert label("enable_chunked_prefill", False, True) == "enable_chunked_prefill on → run it"
    assert label("num_blocks", 9000, 12000) == "num_blocks 12,000 → run it"


def test_without_counterfactuals_nothing_is_planned_again(crowded):
    payload = why_payload(crowded.trace, 0, counterfactuals=False)
    assert not any(row["tried"] or row["changes"] for row in payload["rows"])
    cut = crowded.trace[2:]  # cannot be run again
    assert not any(row["tried"] for row in why_payload(cut, 3)["rows"])


def test_the_way_back_that_is_given_is_used(crowded):
    asked = []

    def scheduler_at(step):
        asked.append(step)
        return rebuild(crowded.trace, step)

    assert why_payload(crowded.trace, 5, scheduler_at) == why_payload(crowded.trace, 5)
    assert set(asked) == {5}


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(workloads(), policy_workloads()),
    st.dictionaries(st.integers(0, 25), st.lists(st.sampled_from(CHANGES), max_size=3), max_size=4),
    st.integers(0, 20),
)
def test_all_steps_at_once_are_what_each_is_alone(workload, changes, begin):
    trace = run_with_changes(workload, changes)[begin:]
    told = whys(trace, begin + 2, begin + 30, 60.0)
    assert [payload["step"] for payload in told] == [record.step for record in trace.records[2:30]]
    for payload in told:
        assert payload == why_payload(trace, payload["step"], counterfactuals=False)


def test_the_time_budget_ends_it_early():
    trace = scripted_run([list(range(9))] * 3, max_tokens=200).trace
    began = perf_counter()
    assert whys(trace, 0, 999, 0.0) == []
    assert perf_counter() - began < 5
    assert len(whys(trace, 0, 999, 60.0)) == len(trace)


@pytest.mark.parametrize(
    ("step", "error"), [(-1, IndexError), (999, IndexError), ("3", TraceError), (None, TraceError), (True, TraceError)]
)
def test_a_step_that_is_not_there_is_refused(crowded, step, error):
    with pytest.raises(error, match="step"):
        why_payload(crowded.trace, step)
