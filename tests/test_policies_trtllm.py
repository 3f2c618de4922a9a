"""TensorRT-LLM's capacity policies: its own unit cases with their numbers, its reasons, and invariants on random workloads.

The cases are those of ``cpp/tests/unit_tests/batch_manager/capacitySchedulerTest.cpp`` (each test has the name of its case), which
counts iterations of its ``runTest`` loop.  One of its iterations is one of our steps, without any shift: there, too, the chunk that
completes a prompt adds the first token, every other scheduled request adds one, a finished request leaves before the next iteration,
and the KV cache holds all tokens but the last one added.  Its KV cache of n tokens is ours of n / 10 blocks of 10.  Its priorities
(higher is more urgent; 0.5 unless given) are mapped to ours (smaller is more urgent).  The LoRA and PEFT, cross-attention,
disaggregated and draft-token cases are left out, as the features are.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_workloads import TRT, policy_workloads, produced_by, run_checked, scheduler_with, step
from test_scheduler import assert_events_rebuild_the_pool

from workbench import ConfigError, EngineConfig
from workbench.adjust import change_knobs
from workbench.events import Reason, Verdict
from workbench.request import Request


def run_case(scheduler, *, before=lambda step: None):
    """Step to the end; returns who was scheduled in each iteration."""
    iterations = []
    while scheduler.has_unfinished:
        before(scheduler.step)
        iterations.append({row.request_id for row in step(scheduler).scheduled})
    return iterations


def told(record):
    return {decision.request_id: decision for decision in record.decisions}


# -- capacitySchedulerTest.cpp -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", TRT)
def test_simple_should_fit(policy):
    iterations = run_case(scheduler_with([10, 10], num_blocks=20, max_tokens=80, policy=policy))
    assert iterations == [{"r0", "r1"}] * 80


@pytest.mark.parametrize("policy", TRT)
def test_simple_should_fit_in_chunk(policy):
    scheduler = scheduler_with([50, 50], num_blocks=20, max_tokens=40, policy=policy, long_prefill_token_threshold=20)
    records = []
    while scheduler.has_unfinished:
        records.append(step(scheduler))
    assert len(records) == 42
    assert [[(row.start, row.end) for row in record.scheduled] for record in records[:4]] == [
        [(0, 20), (0, 20)],
        [(20, 40), (20, 40)],
        [(40, 50), (40, 50)],
        [(50, 51), (50, 51)],
    ]


def test_simple_doesnt_fit_max_utilization():
    scheduler = scheduler_with([10, 10], num_blocks=10, max_tokens=80, policy="max_utilization", enable_prefix_caching=False)
    iterations = run_case(scheduler)
    assert len(iterations) == 119
    assert iterations == [{"r0", "r1"}] * 41 + [{"r0"}] * 39 + [{"r1"}] * 39


def test_a_paused_request_goes_on_with_its_output_as_prompt():
    scheduler = scheduler_with([10, 10], num_blocks=10, max_tokens=80, policy="max_utilization", enable_prefix_caching=False)
    records = [step(scheduler) for _ in range(81)]
    assert [(row.request_id, row.kind, row.start, row.end) for row in records[80].scheduled] == [("r1", "prefill", 0, 51)]


def test_simple_doesnt_fit_guaranteed_no_evict():
    iterations = run_case(scheduler_with([10, 10], num_blocks=10, max_tokens=80, policy="guaranteed_no_evict"))
    assert iterations == [{"r0"}] * 80 + [{"r1"}] * 80


def test_simple_doesnt_fit_priorities():
    knobs = {"num_blocks": 10, "max_tokens": 80, "enable_prefix_caching": False, "priorities": [5, 4]}  # theirs: 0.5 and 0.6
    iterations = run_case(scheduler_with([10, 10], policy="max_utilization", **knobs))
    assert iterations == [{"r0", "r1"}] * 41 + [{"r1"}] * 39 + [{"r0"}] * 39
    iterations = run_case(scheduler_with([10, 10], policy="guaranteed_no_evict", **knobs))
    assert iterations == [{"r1"}] * 80 + [{"r0"}] * 80


@pytest.mark.parametrize("policy", TRT)
def test_requests_sorted_by_priorities(policy):
    theirs = [0.5, 0.5, 0.6, 0.6, 0.6, 1.0, 0.3, 0.3, 0.3, 0.6, 1.0, 0.5]
    ours = [round(10 - 10 * priority) for priority in theirs]
    scheduler = scheduler_with([10] * 12, num_blocks=100, max_tokens=20, policy=policy, priorities=ours, max_num_seqs=1)
    record = step(scheduler)
    order = [5, 10, 2, 3, 4, 9, 0, 1, 11, 6, 7, 8]
    assert [*record.running, *record.waiting] == [f"r{index}" for index in order]


def test_simple_doesnt_fit_max_utilization_in_chunk():
    """``LlmRequest::pause`` takes back the chunk size that their test sets from outside, so the paused prompt is computed at once."""
    knobs = {"policy": "max_utilization", "enable_prefix_caching": False, "long_prefill_token_threshold": 20}
    scheduler = scheduler_with([30, 30], num_blocks=10, max_tokens=60, **knobs)

    def no_chunks_after_the_pause(at):
        if at == 61:
            change_knobs(scheduler, {"long_prefill_token_threshold": 0})

    iterations = run_case(scheduler, before=no_chunks_after_the_pause)
    assert iterations == [{"r0", "r1"}] * 22 + [{"r0"}] * 39 + [{"r1"}] * 39


def test_simple_doesnt_fit_max_utilization_in_chunked_cache():
    """The first chunk takes the blocks of the whole prompt, so the second request waits although its first chunk would fit."""
    knobs = {"policy": "max_utilization", "enable_prefix_caching": False, "long_prefill_token_threshold": 40}
    iterations = run_case(scheduler_with([70, 70], num_blocks=10, max_tokens=20, **knobs))
    assert iterations == [{"r0"}] * 21 + [{"r1"}] * 21


def test_two_prompts_of_five_in_a_budget_of_twelve():
    """The toy example of TensorRT-LLM's page on the PyTorch scheduler: max_batch_size 4, max_num_tokens 12."""
    knobs = {"block_size": 1, "max_num_seqs": 4, "max_num_batched_tokens": 12, "enable_chunked_prefill": False}
    record = step(scheduler_with([5, 5, 5, 5], num_blocks=100, max_tokens=4, policy="guaranteed_no_evict", **knobs))
    assert (record.tokens.used, record.tokens.limit, record.running) == (10, 12, ("r0", "r1"))
    assert told(record)["r2"].reason is Reason.CHUNKED_PREFILL_OFF
    assert told(record)["r3"].blocker == "r2"


# -- rules -------------------------------------------------------------------------------------------------------------


def test_prompts_that_are_cut_are_cut_to_whole_blocks_first_come_first_served():
    record = step(scheduler_with([25, 25], num_blocks=20, max_tokens=4, policy="max_utilization", max_num_batched_tokens=44))
    assert [(row.request_id, row.end) for row in record.scheduled] == [("r0", 25), ("r1", 10)]
    assert (told(record)["r1"].verdict, told(record)["r1"].reason) == (Verdict.PARTIAL, Reason.TOKEN_BUDGET)


def test_a_request_waits_for_a_sibling_that_computes_the_same_beginning():
    prompt = list(range(40))
    knobs = {"policy": "guaranteed_no_evict", "max_num_batched_tokens": 20}
    scheduler = scheduler_with([prompt, [*prompt, 99]], num_blocks=20, max_tokens=4, **knobs)
    for _ in range(2):
        decision = told(step(scheduler))["r1"]
        assert (decision.reason, decision.blocker) == (Reason.SIBLING_PREFIX, "r0")
    row = next(row for row in step(scheduler).scheduled if row.request_id == "r1")
    assert (row.num_cached, row.start, row.end) == (40, 40, 41)


def test_static_batch_passes_nobody_over_and_lets_nobody_in_while_one_generates():
    prompt = list(range(30))
    scheduler = scheduler_with([prompt, prompt], num_blocks=20, max_tokens=3, policy="static_batch")
    assert len(step(scheduler).scheduled) == 2
    late = scheduler_with([5, 5, 5], num_blocks=20, max_tokens=3, policy="static_batch")
    step(late)
    decision = told(step(late))["r2"]
    assert (decision.reason, decision.available, decision.limit, decision.blocker) == (Reason.BATCH_RUNNING, 2, 2, "r0")


def test_reserved_blocks_are_told_with_their_numbers():
    record = step(scheduler_with([10, 10, 5], num_blocks=10, max_tokens=80, policy="guaranteed_no_evict", max_num_seqs=4))
    first, second = told(record)["r1"], told(record)["r2"]
    assert (first.reason, first.needed, first.available, first.limit, first.blocker) == (Reason.RESERVED_TO_COMPLETION, 9, 1, 10, "r0")
    assert (second.reason, second.blocker) == (Reason.HEAD_OF_LINE, "r1")


def test_a_pause_is_told_with_its_numbers():
    scheduler = scheduler_with([10, 10], num_blocks=10, max_tokens=80, policy="max_utilization", enable_prefix_caching=False)
    decision = told([step(scheduler) for _ in range(42)][-1])["r1"]
    assert (decision.verdict, decision.reason, decision.blocker) == (Verdict.PREEMPTED, Reason.PREEMPTED_FOR, "r0")
    assert (decision.needed, decision.available) == (1, 0)


def test_a_pause_for_one_more_urgent_that_arrives_later():
    scheduler = scheduler_with([30], num_blocks=6, max_tokens=9, policy="max_utilization", max_num_seqs=1, priorities=[1])
    step(scheduler)
    scheduler.add(Request(id="r1", prompt_token_ids=tuple(range(50, 80))))
    record = step(scheduler)
    assert record.preempted == ("r0",)
    assert record.admitted == ("r1",)
    assert (told(record)["r0"].reason, told(record)["r0"].blocker) == (Reason.PLACE_TAKEN, "r1")


def test_a_run_that_was_over_committed_by_another_policy_pauses_where_it_must():
    scheduler = scheduler_with([10, 10], num_blocks=10, max_tokens=80, policy="fcfs", enable_prefix_caching=False)
    for _ in range(5):
        step(scheduler)
    change_knobs(scheduler, {"policy": "guaranteed_no_evict"})
    iterations = run_case(scheduler)
    assert iterations[:36] == [{"r0", "r1"}] * 36
    assert iterations[36:75] == [{"r0"}] * 39


def test_what_can_never_be_given_its_blocks_is_refused_after_the_pool_shrank():
    scheduler = scheduler_with([10, 10], num_blocks=10, max_tokens=80, policy="guaranteed_no_evict")
    change_knobs(scheduler, {"num_blocks": 8})
    record = step(scheduler)
    assert {(d.verdict, d.reason, d.needed, d.limit) for d in record.decisions} == {(Verdict.REJECTED, Reason.NEVER_FITS, 9, 8)}
    assert not scheduler.has_unfinished


# -- random workloads --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(policy_workloads(TRT))
def test_no_workload_breaks_an_invariant_and_every_one_ends(workload):
    knobs, requests = workload
    engine, records = run_checked(knobs, requests)
    ends = {end.request_id: end.reason for record in records for end in record.finished}
    outputs = produced_by(records)
    for index, request in enumerate(requests):
        room = engine.max_model_len - len(request["prompt_token_ids"])
        if ends[f"r{index}"] == "length":
            assert len(outputs[f"r{index}"]) == min(request["max_tokens"], room)
    assert engine.scheduler.kv.pool.usage.in_use == 0
    assert_events_rebuild_the_pool(records, knobs["num_blocks"])


@settings(max_examples=60, deadline=None)
@given(policy_workloads(("guaranteed_no_evict", "static_batch")))
def test_nobody_is_ever_preempted_by_a_policy_that_reserves(workload):
    _, records = run_checked(*workload)
    assert not [record.preempted for record in records if record.preempted]


@settings(max_examples=60, deadline=None)
@given(policy_workloads(("static_batch",)))
def test_no_prompt_is_computed_while_somebody_generates_in_a_static_batch(workload):
    _, records = run_checked(*workload)
    for record in records:
        assert len({row.kind for row in record.scheduled}) <= 1


# -- settings that make no sense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", TRT)
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"batching": "static"}, "plans its own batches, so batching cannot be static"),
        ({"num_speculative_tokens": 2}, "verifies no drafts, but num_speculative_tokens is 2"),
        ({"block_size": 32, "max_num_batched_tokens": 31}, "whole blocks of 32 tokens, but max_num_batched_tokens is 31"),
        ({"long_prefill_token_threshold": 15}, "one of at least block_size \\(16\\)"),
        ({"long_prefill_token_threshold": 64, "enable_chunked_prefill": False}, "with enable_chunked_prefill"),
    ],
)
def test_settings_that_the_policies_cannot_follow_are_refused(policy, knobs, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(policy=policy, **knobs)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(TRT), st.sampled_from(TRT))
def test_the_policies_take_over_from_each_other_in_mid_run(before, after):
    scheduler = scheduler_with([10, 10, 10], num_blocks=10, max_tokens=30, policy=before)
    for _ in range(7):
        step(scheduler)
    change_knobs(scheduler, {"policy": after})
    run_case(scheduler)
    assert not scheduler.has_unfinished
