"""Static, dynamic and continuous batching on the LLM Inference Handbook's own six requests.

The handbook (bentoml/llm-inference-handbook, ``BatchingSimulator``) gives the arrivals and lengths; the figures below are
worked out by hand from the definitions, in units of one step.
"""

from __future__ import annotations

import pytest

from workbench import Engine
from workbench.events import Reason
from workbench.runners.scripted import ScriptedRunner

ARRIVALS = (0, 1, 7, 8, 9, 10)
LENGTHS = (3, 8, 2, 5, 2, 4)


def answered_after(batching: str, slots: int):
    engine = Engine(ScriptedRunner(), num_blocks=64, batching=batching, max_num_seqs=slots, batch_window_steps=4, debug=True)
    prompts = [{"prompt_token_ids": [1], "arrival_step": a, "max_tokens": n} for a, n in zip(ARRIVALS, LENGTHS, strict=True)]
    run = engine.run(prompts)
    answered = {}
    for record in run.trace:
        for name in (*record.held, *(end.request_id for end in record.finished)):
            answered[name] = record.step + 1
    return run, [answered[f"r{i}"] for i in range(6)]


@pytest.mark.parametrize(
    ("batching", "slots", "mean", "makespan"),
    [
        ("static", 3, 70 / 6, 20),
        ("dynamic", 3, 61 / 6, 21),
        ("continuous", 3, 4.0, 14),
        ("continuous", 2, 26 / 6, 15),
        ("continuous", 1, 9.0, 24),
    ],
)
def test_mean_latency_and_makespan_are_those_worked_out_by_hand(batching, slots, mean, makespan):
    _, ends = answered_after(batching, slots)
    assert sum(end - arrival for end, arrival in zip(ends, ARRIVALS, strict=True)) / 6 == pytest.approx(mean)
    assert max(ends) == makespan


@pytest.mark.parametrize(("batching", "parts"), [("static", (31, 24, 15)), ("dynamic", (26, 24, 11)), ("continuous", (0, 24, 0))])
def test_latency_splits_into_waiting_running_and_held(batching, parts):
    run, _ = answered_after(batching, 3)
    ran = sum(len(record.scheduled) for record in run.trace)
    held = sum(len(record.held) for record in run.trace)
    waited = sum(decision.verdict == "deferred" and decision.reason != Reason.NOT_ARRIVED for r in run.trace for decision in r.decisions)
    assert (waited, ran, held) == parts


def test_a_static_batch_waits_until_it_is_full_and_says_so():
    run, _ = answered_after("static", 3)
    first = run.trace[0].decisions[0]
    assert (first.reason, first.needed, first.available) == (Reason.BATCH_NOT_FULL, 3, 1)


def test_a_newcomer_behind_a_running_batch_is_told_so():
    run, _ = answered_after("static", 3)
    told = {decision.reason for record in run.trace[8:15] for decision in record.decisions if decision.request_id == "r3"}
    assert Reason.BATCH_RUNNING in told


def test_the_last_static_batch_starts_although_it_is_not_full():
    engine = Engine(ScriptedRunner(), num_blocks=64, batching="static", max_num_seqs=4)
    assert len(engine.run([[1], [2]], max_tokens=2).trace) == 2
