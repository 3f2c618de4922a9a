"""Counterfactuals: every suggested change does what it says when it is made, one unit less does not, and none is overlooked."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_scheduler import workloads

from workbench import ConfigError, Engine, EngineConfig, RequestError, TraceError
from workbench._knobs import knobs as knobs_of
from workbench._search import smallest
from workbench.adjust import change_knobs, edit_request
from workbench.counterfactual import TRIED, Counterfactual, counterfactuals, counterfactuals_of_step, is_asked, no_single_knob
from workbench.events import Reason, Verdict
from workbench.rebuild import rebuild
from workbench.runners.scripted import ScriptedRunner

POLICIES = next(knob.choices for knob in knobs_of(EngineConfig) if knob.name == "policy")


def engine_of(lengths, *, max_tokens=16, priorities=(), arrivals=(), **knobs) -> Engine:
    engine = Engine(ScriptedRunner(), **{"max_num_seqs": 16, "max_num_batched_tokens": 8192, "num_blocks": 1000, **knobs})
    for index, length in enumerate(lengths):
        own = {"priority": priorities[index]} if priorities else {}
        own |= {"arrival_step": arrivals[index]} if arrivals else {}
        engine.add_request({"prompt_token_ids": range(1000 * index, 1000 * index + length), "max_tokens": max_tokens, **own})
    return engine


def stepped(engine: Engine, steps=1) -> Engine:
    for _ in range(steps):
        engine.step()
    return engine


def suggested(engine: Engine, request_id, step=0) -> dict[str, tuple]:
    return {found.knob: (found.before, found.after) for found in counterfactuals(engine.trace, request_id, step)}


# -- each knob, with its numbers ---------------------------------------------------------------------------------------


def test_a_request_that_lacks_blocks_needs_just_those_that_are_missing():
    engine = stepped(engine_of([96, 100], num_blocks=10))  # 6 of 10 blocks go to r0; r1 takes 7
    found = counterfactuals(engine.trace, "r1", 0)[-1]
    assert (found.knob, found.before, found.after, found.goal) == ("num_blocks", 10, 13, "run")
    assert found.changes == {"num_blocks": 13}
    assert found.one_unit_less == {"num_blocks": 12}
    assert found.sentence == "With 3 more blocks (num_blocks 13 instead of 10) r1 would have run in step 0."


def test_one_behind_a_head_without_blocks_needs_room_for_both():
    engine = stepped(engine_of([96, 100, 33], num_blocks=10))
    assert suggested(engine, "r2")["num_blocks"] == (10, 16)


def test_a_chunk_cut_by_the_budget_needs_the_rest_of_the_prompt():
    engine = stepped(engine_of([96], max_num_batched_tokens=64))
    (found,) = counterfactuals(engine.trace, "r0", 0)
    assert (found.knob, found.before, found.after, found.goal) == ("max_num_batched_tokens", 64, 96, "run in full")
    sentence = "With a token budget of 96 instead of 64 (max_num_batched_tokens) r0's prefill would have run in full in step 0."
    assert found.sentence == sentence


def test_a_waiting_request_needs_one_token_more_than_those_before_it_take():
    engine = stepped(engine_of([64, 50], max_num_batched_tokens=64))
    assert suggested(engine, "r1") == {"max_num_batched_tokens": (64, 65), "long_prefill_token_threshold": (0, 63)}


def test_the_second_in_the_queue_needs_two_places():
    engine = stepped(engine_of([5, 5, 5], max_num_seqs=1))
    (found,) = counterfactuals(engine.trace, "r2", 0)
    assert found.changes == {"max_num_seqs": 3}
    assert found.sentence == "With 2 more places in the batch (max_num_seqs 3 instead of 1) r2 would have run in step 0."


def test_a_chunk_cut_by_the_threshold_needs_a_threshold_as_long_as_itself():
    engine = stepped(engine_of([40, 5], long_prefill_token_threshold=8))
    (found,) = counterfactuals(engine.trace, "r0", 0)
    assert (found.changes, found.one_unit_less) == ({"long_prefill_token_threshold": 40}, {"long_prefill_token_threshold": 39})
    assert "With chunks of at most 40 tokens instead of 8 (long_prefill_token_threshold)" in found.sentence


def test_a_threshold_is_switched_on_no_lower_than_it_takes():
    engine = stepped(engine_of([100, 5], max_num_batched_tokens=64))
    found = {each.knob: each for each in counterfactuals(engine.trace, "r1", 0)}["long_prefill_token_threshold"]
    assert (found.before, found.after) == (0, 63)
    assert found.one_unit_less == {"long_prefill_token_threshold": 64}
    assert "With chunks of at most 63 tokens instead of any number" in found.sentence


def test_shorter_chunks_of_those_ahead_leave_tokens_for_those_behind():
    engine = stepped(engine_of([60, 60, 5], max_num_batched_tokens=64, long_prefill_token_threshold=40))
    assert suggested(engine, "r2") == {"long_prefill_token_threshold": (40, 31), "max_num_batched_tokens": (64, 81)}


def test_shorter_chunks_of_those_ahead_leave_blocks_for_those_behind():
    engine = stepped(engine_of([96, 100], num_blocks=10))
    assert suggested(engine, "r1")["long_prefill_token_threshold"] == (0, 48)  # 3 blocks for r0's chunk, and r1 needs 7 free ones


def test_a_prompt_over_the_rest_of_the_budget_runs_in_chunks():
    engine = stepped(engine_of([40, 40], max_num_batched_tokens=64, enable_chunked_prefill=False))
    found = {each.knob: each for each in counterfactuals(engine.trace, "r1", 0)}
    assert found["enable_chunked_prefill"].changes == {"enable_chunked_prefill": True}
    assert found["enable_chunked_prefill"].one_unit_less == {"enable_chunked_prefill": False}
    assert (found["max_num_batched_tokens"].after, found["long_prefill_token_threshold"].after) == (80, 32)


def test_priority_passes_those_it_has_to_pass():
    engine = stepped(engine_of([5, 5, 5], max_num_seqs=1, policy="priority", priorities=(2, 1, 3)))
    found = {each.knob: each for each in counterfactuals(engine.trace, "r2", 0)}["priority"]
    assert (found.before, found.after) == (3, 0)  # r1 came first, so an equal number is not enough
    assert found.changes == {"edit": {"r2": {"priority": 0}}}
    assert found.one_unit_less == {"edit": {"r2": {"priority": 1}}}
    assert found.sentence == "With priority 0 instead of 3 r2 would have run in step 0."
    assert suggested(engine, "r0")["priority"] == (2, 1)  # r0 came before r1


def test_priority_is_no_suggestion_where_nobody_looks_at_it():
    engine = stepped(engine_of([5, 5], max_num_seqs=1, priorities=(2, 1)))
    assert set(suggested(engine, "r1")) == {"max_num_seqs"}


def test_a_preempted_request_would_have_kept_running():
    engine = stepped(engine_of([31, 17], num_blocks=4, max_tokens=40), 3)
    assert engine.trace[2].preempted == ("r1",)
    (found,) = counterfactuals(engine.trace, "r1", 2)
    assert found.sentence == "With 1 more block (num_blocks 5 instead of 4) r1 would have kept running in step 2."


def test_a_request_that_lacks_blocks_for_all_its_prompt_may_begin_with_some():
    engine = stepped(engine_of([96, 100], num_blocks=10, max_num_batched_tokens=112))
    found = {each.knob: each for each in counterfactuals(engine.trace, "r1", 0)}["reserve_full_prompt"]
    assert (found.changes, found.one_unit_less) == ({"reserve_full_prompt": False}, {"reserve_full_prompt": True})


def test_a_batch_that_waits_to_be_full_starts_when_it_is_smaller():
    engine = stepped(engine_of([5, 5, 5], max_num_seqs=3, batching="static", arrivals=(0, 0, 9)))
    (found,) = counterfactuals(engine.trace, "r1", 0)
    assert found.changes == {"max_num_seqs": 2}
    assert found.one_unit_less == {"max_num_seqs": 3}
    assert found.sentence == "With a batch of 2 requests instead of 3 (max_num_seqs) r1 would have run in step 0."


def test_a_batch_that_waits_by_the_window_starts_with_a_shorter_one():
    engine = stepped(engine_of([5, 5, 5], max_num_seqs=3, batching="dynamic", batch_window_steps=5, arrivals=(0, 0, 9)), 3)
    assert suggested(engine, "r1", 2) == {"batch_window_steps": (5, 2), "max_num_seqs": (3, 2)}


def test_a_request_too_large_for_a_shrunken_pool_needs_a_pool_that_holds_it():
    engine = stepped(engine_of([40, 100], num_blocks=10, max_tokens=4, arrivals=(0, 1)))
    change_knobs(engine.scheduler, {"num_blocks": 5})
    decision = stepped(engine).trace[1].decisions[1]
    assert (decision.verdict, decision.reason) == (Verdict.REJECTED, Reason.NEVER_FITS)
    assert suggested(engine, "r1", 1) == {"num_blocks": (5, 10)}  # 3 are r0's, 7 for r1


def test_the_value_before_is_that_of_the_step_not_that_of_the_end():
    engine = stepped(engine_of([5, 5, 5], max_num_seqs=1))
    engine.change(max_num_seqs=2)
    stepped(engine)
    assert suggested(engine, "r2", 0) == {"max_num_seqs": (1, 3)}
    assert suggested(engine, "r2", 1) == {"max_num_seqs": (2, 3)}


def test_the_pool_that_was_chosen_by_itself_has_its_size_as_value_before():
    engine = Engine(ScriptedRunner(), max_num_batched_tokens=8192, block_size=1)
    for index in range(2):
        engine.add_request(range(1000 * index, 1000 * index + 700))
    assert suggested(stepped(engine), "r1")["num_blocks"] == (1024, 1400)


def test_the_least_intrusive_change_comes_first():
    engine = stepped(engine_of([40, 40], max_num_batched_tokens=64, enable_chunked_prefill=False, policy="priority", priorities=(0, 1)))
    order = [each.knob for each in counterfactuals(engine.trace, "r1", 0)]
    assert order == sorted(order, key=TRIED.index)
    assert (order[0], order[-1]) == ("priority", "max_num_batched_tokens")


# -- nothing to suggest ------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_suggest_for_what_ran_in_full_had_not_come_or_was_over():
    engine = stepped(engine_of([5, 5], max_tokens=1, arrivals=(0, 2)), 3)
    assert counterfactuals(engine.trace, "r0", 0) == ()
    assert counterfactuals(engine.trace, "r1", 0) == ()
    assert counterfactuals(engine.trace, "r0", 2) == ()


def test_where_two_limits_stand_in_the_way_no_single_one_is_named():
    engine = stepped(engine_of([96, 100], num_blocks=10, max_num_seqs=1))
    assert counterfactuals(engine.trace, "r1", 0) == ()
    decision = engine.trace[0].decisions[1]
    told = no_single_knob(decision)
    assert told.startswith("No single knob would have let r1 run: priority, long_prefill_token_threshold, ")
    assert told.endswith(" and num_blocks were tried, each alone.")


# -- faces and bad input -----------------------------------------------------------------------------------------------


def test_it_reads_as_its_sentence_everywhere_and_ids_are_escaped():
    found = Counterfactual("<r1>", 7, "num_blocks", 48, 50, "run")
    assert str(found) == "With 2 more blocks (num_blocks 50 instead of 48) <r1> would have run in step 7."
    assert repr(found) == f"Counterfactual({str(found)!r}, {{'num_blocks': 50}})"
    assert "&lt;r1&gt;" in found._repr_html_()


def test_the_scheduler_that_is_handed_in_is_asked_for_once_and_left_as_it_is():
    engine = stepped(engine_of([96, 100], num_blocks=10))
    before, steps = rebuild(engine.trace, 0), []
    found = counterfactuals(engine.trace, "r1", 0, scheduler_at=lambda step: steps.append(step) or before)
    assert found == counterfactuals(engine.trace, "r1", 0)
    assert (steps, before.step, before.kv.pool.num_blocks, len(before.queues.pending)) == ([0], 0, 10, 2)


def test_an_unknown_request_is_named_with_those_there_are():
    engine = stepped(engine_of([5, 5]))
    with pytest.raises(RequestError, match="no request has the id 'r9': this trace has r0, r1"):
        counterfactuals(engine.trace, "r9", 0)


def test_an_unknown_step_is_refused_with_the_range():
    engine = stepped(engine_of([5, 5]), 2)
    with pytest.raises(IndexError, match="step 2 is not in this trace; it has steps 0 to 1"):
        counterfactuals(engine.trace, "r0", 2)


def test_a_trace_without_its_beginning_cannot_be_asked_unless_somebody_has_the_scheduler():
    engine = stepped(engine_of([5, 5, 5], max_num_seqs=1), 3)
    with pytest.raises(TraceError, match="begins at step 1"):
        counterfactuals(engine.trace[1:], "r2", 2)
    found = counterfactuals(engine.trace[1:], "r2", 2, scheduler_at=engine.scheduler_before)
    assert [each.changes for each in found] == [{"max_num_seqs": 3}]


# -- the search --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 70), st.integers(0, 70), st.lists(st.integers(-3, 80), max_size=3))
def test_the_search_finds_the_boundary_of_what_is_monotonic(boundary, reach, guesses):
    asked = []
    found = smallest(lambda distance: asked.append(distance) or distance > boundary, bool, reach, guesses)
    assert found == (boundary + 1 if boundary < reach else None)
    assert len(asked) == len(set(asked))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=3), st.integers(0, 20))
def test_whatever_the_search_returns_works_and_one_less_does_not(outcomes, guesses, most):
    outcomes[0] = 0
    found = smallest(outcomes.__getitem__, lambda outcome: outcome == 3, len(outcomes) - 1, guesses, most=most)
    if found is not None:
        assert outcomes[found] == 3 != outcomes[found - 1]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 59), st.integers(1, 3))
def test_a_window_is_found_when_everything_else_differs(reach, start, width):
    window = range(start, start + width)
    found = smallest(lambda distance: "in" if distance in window else distance, lambda outcome: outcome == "in", reach, most=99)
    assert found == (start if start <= reach else None)


# -- random workloads --------------------------------------------------------------------------------------------------


@st.composite
def tight_workloads(draw):
    """Workloads of every policy in which something is always short."""
    knobs, requests = draw(workloads())
    knobs["policy"] = draw(st.sampled_from(POLICIES))
    knobs["enable_chunked_prefill"] = draw(st.booleans())
    if knobs["policy"] not in ("fcfs", "priority"):
        knobs.update(batching="continuous", num_speculative_tokens=0, long_prefill_token_threshold=0)
    return knobs, [{key: value for key, value in request.items() if key != "abort_at"} for request in requests]


def run(workload, most_steps=120) -> Engine:
    knobs, requests = workload
    width = knobs["num_speculative_tokens"]
    drafts = (lambda name, known: [(len(known) + i) % 4 for i in range(width)]) if width else None
    try:
        engine = Engine(ScriptedRunner(lambda name, position: (position + len(name)) % 4, drafts=drafts), **knobs)
    except ConfigError:
        assume(False)
    for request in requests:
        try:
            engine.add_request(request)
        except RequestError:  # longer than a budget that it must fit in one piece
            continue
    while engine.has_unfinished and engine.scheduler.step < most_steps:
        engine.step()
    return engine


def held_back(engine: Engine) -> list:
    told = [(record.step, decision) for record in engine.trace for decision in record.decisions]
    return [(step, each) for step, each in told if each.verdict is not Verdict.SCHEDULED and each.reason is not Reason.NOT_ARRIVED]


def runs(record, found: Counterfactual) -> bool:
    verdict = {each.request_id: each.verdict for each in record.decisions}[found.request_id]
    return verdict is Verdict.SCHEDULED or (verdict is Verdict.PARTIAL and found.goal == "run")


@settings(max_examples=60, deadline=None)
@given(tight_workloads(), st.data())
def test_every_change_made_in_a_fork_lets_the_request_run_and_one_unit_less_does_not(workload, data):
    engine = run(workload)
    candidates = held_back(engine)
    assume(candidates)
    for step, decision in data.draw(st.lists(st.sampled_from(candidates), min_size=1, max_size=3)):
        for found in counterfactuals(engine.trace, decision.request_id, step, scheduler_at=engine.scheduler_before):
            assert runs(engine.fork(step, **found.changes).step(), found), found
            assert not runs(engine.fork(step, **found.one_unit_less).step(), found), found


@settings(max_examples=20, deadline=None)
@given(tight_workloads(), st.data())
def test_a_whole_step_is_answered_as_its_requests_one_by_one(workload, data):
    engine = run(workload)
    assume(len(engine.trace))
    step = data.draw(st.integers(0, len(engine.trace) - 1))
    together = counterfactuals_of_step(engine.trace, step)
    for decision in engine.trace[step].decisions:
        assert together.get(decision.request_id, ()) == counterfactuals(engine.trace, decision.request_id, step)


def verdict_with(engine: Engine, step: int, request_id: str, knob: str, value) -> Verdict | None:
    """What the step decides with one value changed; ``None`` for a value that is refused."""
    scheduler = rebuild(engine.trace, step)
    try:
        if knob == "priority":
            edit_request(scheduler, request_id, {knob: value})
        else:
            change_knobs(scheduler, {knob: value})
    except ConfigError:
        return None
    scheduler.plan(engine.trace[step].start_s)
    return scheduler.open_decisions()[request_id].verdict


def scanned(engine: Engine, step: int, decision) -> dict[str, int | bool]:
    """Every knob tried value by value from the nearest on: the plain reference."""
    config, longest = engine.scheduler.config, max(len(request.prompt_token_ids) for request in engine.trace.requests.values()) + 20
    pool, threshold = engine.trace[step].kv.total, config.long_prefill_token_threshold
    priority = engine.trace.requests[decision.request_id].priority
    batch_waits = decision.reason is Reason.BATCH_NOT_FULL
    thresholds = range(1, longest) if threshold else range(longest, 0, -1)
    values = {
        "priority": range(priority - 1, -3, -1) if config.policy == "priority" else (),
        "long_prefill_token_threshold": sorted(thresholds, key=lambda value: (abs(value - threshold), -value)) if threshold else thresholds,
        "enable_chunked_prefill": () if config.enable_chunked_prefill else (True,),
        "batch_window_steps": range(config.batch_window_steps - 1, -1, -1) if batch_waits else (),
        "max_num_seqs": range(config.max_num_seqs - 1, 0, -1) if batch_waits else range(config.max_num_seqs + 1, config.max_num_seqs + 12),
        "max_num_batched_tokens": range(config.max_num_batched_tokens + 1, config.max_num_batched_tokens + 120),
        "reserve_full_prompt": (False,) if config.reserve_full_prompt else (),
        "num_blocks": range(pool + 1, pool + 60),
    }
    goals = (Verdict.SCHEDULED,) if decision.verdict is Verdict.PARTIAL else (Verdict.SCHEDULED, Verdict.PARTIAL)
    found = {}
    for knob, tried in values.items():
        for value in tried:
            if verdict_with(engine, step, decision.request_id, knob, value) in goals:
                found[knob] = value
                break
    return found


@settings(max_examples=8, deadline=None)
@given(tight_workloads(), st.data())
def test_a_scan_of_every_value_finds_the_same_changes(workload, data):
    engine = run(workload, most_steps=30)
    candidates = held_back(engine)
    assume(candidates)
    step, decision = data.draw(st.sampled_from(candidates))
    found = {each.knob: each.after for each in counterfactuals(engine.trace, decision.request_id, step)}
    if not is_asked(decision):
        assert not found
        return
    far = {"num_blocks": engine.trace[step].kv.total + 60, "max_num_batched_tokens": engine.scheduler.config.max_num_batched_tokens + 120}
    assert {knob: after for knob, after in found.items() if after < far.get(knob, 1000)} == scanned(engine, step, decision)
