"""SGLang's scheduler: the order of who waits, its budgets and its guess, retraction, and invariants on random workloads.

Tests with a name in their docstring follow ``test/registered/unit/managers/test_schedule_policy.py`` of SGLang.  Its cases of
dfs-weight, lof, random and routing keys are left out, as the policies are; priorities order the queue without a prefix cache, smaller
first (its ``schedule_low_priority_values_first``).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from policy_workloads import policy_workloads, produced_by, run_checked, scheduler_with, step
from test_scheduler import assert_events_rebuild_the_pool

from workbench import ConfigError, EngineConfig
from workbench.adjust import change_knobs, reset_prefix_cache
from workbench.events import Reason, Verdict
from workbench.kv_radix import RadixKvCache
from workbench.policies.sglang import INITIAL_RATIO, LEAST_RATIO, LONG_QUEUE, RATIO_DECAY, LpmPlanner, order_waiting
from workbench.queues import WaitingQueue
from workbench.request import Request, SamplingParams
from workbench.state import RequestState


def lpm(prompts, *, num_blocks=1000, max_tokens=16, **knobs):
    return scheduler_with(prompts, num_blocks=num_blocks, max_tokens=max_tokens, **{"policy": "lpm", "block_size": 1, **knobs})


def told(record):
    return {decision.request_id: decision for decision in record.decisions}


def queue_of(prompts, priorities=None):
    waiting = WaitingQueue("lpm")
    for index, prompt in enumerate(prompts):
        priority = priorities[index] if priorities else 0
        request = Request(id=f"r{index}", prompt_token_ids=tuple(prompt), sampling=SamplingParams(max_tokens=4), priority=priority)
        waiting.arrive(RequestState(request, index, 10000))
    return waiting


def cache_of(*sequences, enabled=True):
    """A cache of pages of one token that knows these sequences."""
    kv = RadixKvCache(1000, 1, enable_prefix_caching=enabled)
    for index, tokens in enumerate(sequences):
        state = RequestState(Request(id=f"old{index}", prompt_token_ids=tuple(tokens)), 0, 10000)
        kv.allocate(state, len(tokens))
        kv.register(state, len(tokens))
        kv.free(state)
    return kv


def ids(waiting):
    return [state.id for state in waiting]


# -- TestSchedulePolicy ------------------------------------------------------------------------------------------------


def test_the_longest_known_beginning_goes_first():
    """``TestSortByLongestPrefix.test_longer_prefix_first``: 5, 10 and 2 known tokens."""
    kv = cache_of(range(5), range(100, 110), range(200, 202))
    waiting = queue_of([[*range(5), 999], [*range(100, 110), 999], [*range(200, 202), 999]])
    assert order_waiting(waiting, kv) == {}
    assert ids(waiting) == ["r1", "r0", "r2"]


def test_short_is_behind_long():
    """``TestCalcPriority.test_lpm_small_queue_returns_true_and_sorts_by_prefix``."""
    waiting = queue_of([[1, 7], [1, 2, 3, 4, 5, 7]])
    order_waiting(waiting, cache_of([1, 2, 3, 4, 5]))
    assert ids(waiting) == ["r1", "r0"]


def test_whoever_waits_for_a_sibling_goes_last_even_with_a_longer_beginning():
    """``test_deprioritized_goes_to_end_even_with_longer_prefix``."""
    long = list(range(100, 140))
    waiting = queue_of([long, [*long, 1], [1, 2, 3], [4, 5]])
    assert order_waiting(waiting, cache_of(long[:8], [1, 2])) == {"r1": "r0"}
    assert ids(waiting) == ["r0", "r2", "r3", "r1"]


def test_equal_requests_keep_their_order():
    """``test_all_deprioritized_stable_order_preserved``."""
    same = list(range(40))
    waiting = queue_of([same, same, same])
    assert order_waiting(waiting, cache_of()) == {"r1": "r0", "r2": "r0"}
    assert ids(waiting) == ["r0", "r1", "r2"]


@pytest.mark.parametrize(("shared", "known", "waits"), [(31, 0, False), (32, 0, True), (40, 32, True), (40, 33, False)])
def test_one_waits_for_a_sibling_from_32_common_tokens_on_unless_the_cache_knows_more(shared, known, waits):
    common = list(range(shared))
    waiting = queue_of([[*common, 500], [*common, 600]])
    assert ("r1" in order_waiting(waiting, cache_of(common[:known]))) is waits


@pytest.mark.parametrize(("length", "sorts"), [(LONG_QUEUE, True), (LONG_QUEUE + 1, False)])
def test_a_long_queue_is_not_sorted(length, sorts):
    """``TestDetermineActivePolicy.test_lpm_at_boundary_stays_lpm`` and ``test_lpm_over_boundary_falls_back_to_fcfs``."""
    waiting = queue_of([[index, 7] for index in range(length - 1)] + [[5000, 5001, 7]])
    order_waiting(waiting, cache_of([5000, 5001]))
    assert (ids(waiting)[0] == f"r{length - 1}") is sorts


def test_without_a_cache_it_is_first_come_first_served():
    """``test_lpm_with_disabled_cache_falls_back_to_fcfs`` and ``test_fcfs_without_priority_leaves_order_unchanged``."""
    waiting = queue_of([[1, 7], [1, 2, 3, 4, 5, 7]])
    assert order_waiting(waiting, cache_of([1, 2, 3, 4, 5], enabled=False)) == {}
    assert ids(waiting) == ["r0", "r1"]


def test_without_a_cache_priorities_come_first():
    """``TestCalcPriority.test_fcfs_with_priority_low_first_sorts_by_priority``: 3, 1, 2 become 1, 2, 3."""
    waiting = queue_of([[1], [2], [3]], priorities=[3, 1, 2])
    order_waiting(waiting, cache_of(enabled=False))
    assert [state.request.priority for state in waiting] == [1, 2, 3]


# -- prompts first -----------------------------------------------------------------------------------------------------


def test_nobody_decodes_in_a_step_that_computes_a_prompt():
    scheduler = lpm([5], max_num_seqs=4)
    step(scheduler)
    scheduler.add(Request(id="late", prompt_token_ids=(7, 8, 9)))
    record = step(scheduler)
    assert [row.request_id for row in record.scheduled] == ["late"]
    assert (told(record)["r0"].reason, told(record)["r0"].blocker) == (Reason.PREFILL_FIRST, "late")
    assert [row.request_id for row in step(scheduler).scheduled] == ["r0", "late"]


def test_a_prompt_longer_than_the_budget_is_cut_to_whole_blocks_and_keeps_everybody_else_waiting():
    scheduler = lpm([30, 3], block_size=4, num_blocks=100, max_num_batched_tokens=14, max_num_seqs=4)
    sizes = [[(row.request_id, row.num_tokens) for row in step(scheduler).scheduled] for _ in range(4)]
    assert sizes == [[("r0", 12)], [("r0", 12)], [("r0", 6), ("r1", 3)], [("r0", 1), ("r1", 1)]]


def test_a_whole_prompt_needs_room_in_the_step_when_chunks_are_off():
    scheduler = lpm([9, 4], enable_chunked_prefill=False, max_num_batched_tokens=12, max_num_seqs=4)
    record = step(scheduler)
    assert (told(record)["r1"].reason, told(record)["r1"].needed) == (Reason.CHUNKED_PREFILL_OFF, 4)


def test_siblings_are_told_whom_they_wait_for():
    prompt = list(range(40))
    scheduler = lpm([prompt, [*prompt, 1], [*prompt, 2]], max_num_batched_tokens=40, max_num_seqs=4)
    record = step(scheduler)
    assert {(told(record)[name].reason, told(record)[name].blocker) for name in ("r1", "r2")} == {(Reason.SIBLING_PREFIX, "r0")}
    assert [(row.request_id, row.num_cached) for row in step(scheduler).scheduled] == [("r1", 40), ("r2", 40)]


def test_outputs_are_found_only_after_their_request_has_ended():
    scheduler = lpm([[1, 2]], max_tokens=4)
    for _ in range(3):
        step(scheduler)
    assert scheduler.kv.tree.total_tokens == 2
    step(scheduler)
    assert scheduler.kv.tree.total_tokens == 5  # all but the last token, which was never computed


# -- the guess ---------------------------------------------------------------------------------------------------------


def test_the_guess_falls_with_every_step_of_decoding_down_to_its_least_and_starts_anew_when_idle():
    scheduler = lpm([2], max_tokens=900)
    step(scheduler)
    assert scheduler.planner.new_token_ratio == INITIAL_RATIO
    step(scheduler)
    assert scheduler.planner.new_token_ratio == pytest.approx(INITIAL_RATIO - RATIO_DECAY)
    for _ in range(700):
        step(scheduler)
    assert scheduler.planner.new_token_ratio == pytest.approx(LEAST_RATIO)
    scheduler.abort("r0")
    step(scheduler)
    assert scheduler.planner.new_token_ratio == INITIAL_RATIO


def test_who_does_not_fit_the_guess_waits_until_one_has_left():
    scheduler = lpm([40, 40], num_blocks=100, max_tokens=40, max_num_seqs=4)
    decision = told(step(scheduler))["r1"]
    assert (decision.reason, decision.needed, decision.available, decision.limit) == (Reason.MEMORY_ESTIMATE, 81, 19, 100)
    assert told(step(scheduler))["r1"].reason is Reason.UNTIL_ONE_FINISHES
    for _ in range(38):
        record = step(scheduler)
    assert [end.request_id for end in record.finished] == ["r0"]
    assert step(scheduler).admitted == ("r1",)


def test_a_request_that_may_fill_the_pool_is_let_in_when_it_is_alone():
    scheduler = lpm([10], num_blocks=20, max_tokens=10)
    while scheduler.has_unfinished:
        record = step(scheduler)
    assert record.finished[0].reason == "length"


def until_somebody_is_retracted():
    """The second is let in because the first is guessed to write 0.7 of the 59 tokens left to it; both write all of theirs."""
    scheduler = lpm([10], num_blocks=113, max_tokens=60, max_num_seqs=4)
    step(scheduler)
    prompt = tuple(range(500, 510))
    scheduler.add(Request(id="late", prompt_token_ids=prompt, sampling=SamplingParams(max_tokens=50)))
    assert step(scheduler).admitted == ("late",)
    while not (record := step(scheduler)).preempted:
        pass
    return scheduler, record


def test_when_decoding_runs_out_of_blocks_the_one_with_the_fewest_outputs_is_retracted():
    scheduler, record = until_somebody_is_retracted()
    decision = told(record)["late"]
    assert (decision.verdict, decision.reason, decision.blocker) == (Verdict.PREEMPTED, Reason.RETRACTED, None)
    assert (decision.needed, decision.available) == (2, 1)
    assert [row.request_id for row in record.scheduled] == list(record.running) == ["r0"]
    assert scheduler.kv.find_prefix(scheduler.queues.waiting.head) != []  # its prompt is still known, its output is not
    assert len(scheduler.kv.find_prefix(scheduler.queues.waiting.head)) == 10


def test_after_a_retraction_the_guess_is_what_the_rest_has_written_and_20_more_of_what_it_may():
    scheduler, _ = until_somebody_is_retracted()
    had = scheduler.queues.states["r0"].num_output_tokens - 1
    assert scheduler.planner.new_token_ratio == min(1.0, (had + 20) / (60 + 1))


def test_among_equals_the_longest_prompt_goes_first_then_the_last_that_came():
    for prompts, gone in (([10, 12, 11], "r1"), ([12, 12, 12], "r2")):
        scheduler = lpm(prompts, num_blocks=100, max_tokens=20, max_num_seqs=4)
        for _ in range(3):
            step(scheduler)
        change_knobs(scheduler, {"num_blocks": scheduler.kv.pool.usage.in_use + 2})
        assert step(scheduler).preempted == (gone,)


def test_one_that_is_alone_and_does_not_fit_a_smaller_pool_is_ended():
    scheduler = lpm([10], num_blocks=30, max_tokens=20)
    step(scheduler)
    change_knobs(scheduler, {"num_blocks": 12})
    records = []
    while scheduler.has_unfinished:
        records.append(step(scheduler))
    assert (records[-1].decisions[0].verdict, records[-1].decisions[0].reason) == (Verdict.REJECTED, Reason.NEVER_FITS)
    assert scheduler.kv.pool.usage.in_use == 0


# -- changes between steps ---------------------------------------------------------------------------------------------


def test_a_copy_goes_on_with_the_same_guess_and_the_same_tree():
    scheduler = lpm([40, 40], num_blocks=100, max_tokens=40, max_num_seqs=4)
    for _ in range(5):
        step(scheduler)
    twin = scheduler.copy()
    assert isinstance(twin.planner, LpmPlanner)
    assert (twin.planner.new_token_ratio, twin.planner.batch_is_full) == (scheduler.planner.new_token_ratio, True)
    for _ in range(60):
        mine, theirs = step(scheduler), step(twin)
        assert (mine.scheduled, mine.decisions, mine.block_events) == (theirs.scheduled, theirs.decisions, theirs.block_events)


def test_a_larger_pool_opens_a_full_batch():
    scheduler = lpm([40, 40], num_blocks=100, max_tokens=40, max_num_seqs=4)
    step(scheduler)
    change_knobs(scheduler, {"num_blocks": 200})
    assert step(scheduler).admitted == ("r1",)


def test_a_policy_with_another_cache_cannot_take_over():
    for before, after in (("lpm", "fcfs"), ("max_utilization", "lpm")):
        scheduler = scheduler_with([10], num_blocks=20, max_tokens=9, policy=before)
        with pytest.raises(ConfigError, match=f"from {before} to {after}"):
            change_knobs(scheduler, {"policy": after})


def test_the_cache_can_be_emptied_while_requests_run():
    scheduler = lpm([10, 12], max_num_seqs=4)
    step(scheduler)
    assert not reset_prefix_cache(scheduler)
    assert reset_prefix_cache(scheduler, reset_running_requests=True)
    assert scheduler.kv.tree.total_tokens == 0
    assert {row.start for row in step(scheduler).scheduled} == {0}


# -- random workloads --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(policy_workloads(("lpm",)))
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
@given(policy_workloads(("lpm",)))
def test_a_step_is_all_prompts_or_all_decoding_and_hashes_stay_unique(workload):
    knobs, requests = workload
    _, records = run_checked(knobs, requests)
    content = {}
    for record in records:
        kinds = {row.kind for row in record.scheduled}
        assert kinds != {"prefill", "decode"} or any(row.kind == "decode" and row.request_id in record.resumed for row in record.scheduled)
        for event in record.block_events:
            if event.kind == "cached":
                assert event.hash not in content.values()
                content[event.block_id] = event.hash
            elif event.kind == "evicted":
                del content[event.block_id]


# -- settings that make no sense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"batching": "dynamic"}, "plans its own batches, so batching cannot be dynamic"),
        ({"num_speculative_tokens": 2}, "verifies no drafts, but num_speculative_tokens is 2"),
        ({"block_size": 32, "max_num_batched_tokens": 31}, "whole blocks of 32 tokens, but max_num_batched_tokens is 31"),
        ({"long_prefill_token_threshold": 64}, "knows no such long_prefill_token_threshold as 64, only none"),
        ({"max_num_seqs": 300}, "decodes all 300 requests of max_num_seqs in one step, but max_num_batched_tokens is 256"),
    ],
)
def test_settings_that_the_policy_cannot_follow_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(policy="lpm", **knobs)
