"""The state at a step, worked out from records alone, against the real scheduler at the same instant."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_fixtures import ONERROR, SCRIPT, make_trace, scripted_run
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import ConfigError, Engine, RequestError, Trace, TraceError, load_trace
from workbench.adjust import apply, change_knobs, edit_request
from workbench.config import EngineConfig
from workbench.errors import WorkbenchError
from workbench.events import ModelFacts, StepRecord
from workbench.moment import moment, moments
from workbench.rebuild import beginning, originals, rebuild, recorded_output
from workbench.runners.scripted import ScriptedRunner
from workbench.state import Status

OTHER_POLICIES = ["guaranteed_no_evict", "max_utilization", "static_batch", "lpm"]


def assert_is_the_planned_state(seen, scheduler):
    """``scheduler`` has planned the step of ``seen`` and not committed it."""
    pool, queues = scheduler.kv.pool, scheduler.queues
    assert (seen.running, seen.waiting) == (tuple(s.id for s in queues.running), tuple(s.id for s in queues.waiting))
    assert (seen.held, set(seen.pending)) == (tuple(s.id for s in queues.held), {s.id for s in queues.pending})
    assert seen.kv == pool.usage
    assert not seen.unknown
    for state in queues.everyone():
        one = seen.request(state.id)
        assert one.block_ids == tuple(state.block_ids)
        assert one.status == state.status
        assert one.decision == scheduler.open_decisions().get(state.id)
    assert {block.block_id for block in seen.blocks} == set(range(1, pool.highest_id + 1)) - set(pool._retired)
    content = pool.index.blocks()
    for block in seen.blocks:
        assert block.refs == pool.refs(block.block_id)
        assert (block.status == "in use") == (block.refs > 0)
        assert (block.status == "cached") == (block.refs == 0 and block.block_id in content)
        if scheduler.config.policy in ("fcfs", "priority") or not block.refs:  # others make content findable once it is computed
            assert block.hash == (content[block.block_id][:8].hex() if block.block_id in content else "")


def assert_is_the_committed_state(seen, scheduler):
    for state in scheduler.queues.everyone():
        one = seen.request(state.id)
        assert (one.num_prompt_tokens, one.num_tokens) == (state.num_prompt_tokens, state.num_tokens)
        assert one.num_output_tokens == state.num_output_tokens
        if state.status is not Status.HELD:  # a replay has no accepted drafts beyond the token that ended a request
            assert one.num_computed_tokens == state.num_computed_tokens


def assert_every_moment_is_the_schedulers(trace):
    """Replays the whole trace beside its moments; the reference is the scheduler that takes the same decisions again."""
    scheduler, requests = beginning(trace), originals(trace)
    for seen, record in zip(moments(trace), trace.records, strict=True):
        for command in record.commands:
            apply(scheduler, command, requests)
        plan = scheduler.plan(record.start_s)
        assert_is_the_planned_state(seen, scheduler)
        scheduler.commit(plan, recorded_output(record, plan))
        assert_is_the_committed_state(seen, scheduler)


@settings(max_examples=100, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3))
def test_every_moment_equals_the_scheduler_between_plan_and_commit(workload, fails):
    knobs, requests = workload
    assert_every_moment_is_the_schedulers(run_to_the_end(engine_of(knobs, requests, fails), requests).trace)


@settings(max_examples=60, deadline=None)
@given(workloads(), st.sampled_from(OTHER_POLICIES), st.sets(st.integers(0, 25), max_size=2))
def test_the_other_engines_policies_leave_equal_moments(workload, policy, fails):
    knobs, requests = workload
    knobs = {**knobs, "policy": policy, "batching": "continuous", "num_speculative_tokens": 0, "reserve_full_prompt": True}
    try:
        engine = engine_of(knobs, requests, fails)
    except WorkbenchError:  # a knob or a prompt that this policy has no place for
        return
    assert_every_moment_is_the_schedulers(run_to_the_end(engine, requests).trace)


@settings(max_examples=25, deadline=None)
@given(workloads(), st.data())
def test_one_moment_equals_the_rebuilt_scheduler_with_its_step_planned(workload, data):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace
    at = data.draw(st.integers(0, len(trace) - 1))
    scheduler = rebuild(trace, at)
    scheduler.plan(trace[at].start_s)
    assert_is_the_planned_state(moment(trace, at), scheduler)


def changed_in_mid_run(changes):
    """A trace of which some steps were preceded by other knobs; ``changes`` by step."""
    requests = [{"prompt_token_ids": list(range(i, i + 9)), "max_tokens": 9, "arrival_step": 2 * i, "abort_at": None} for i in range(6)]
    knobs = {"num_blocks": 12, "block_size": 4, "max_num_seqs": 4, "max_num_batched_tokens": 24, "num_speculative_tokens": 0}
    engine = engine_of(knobs, requests)
    while engine.has_unfinished:
        for change in changes.get(engine.scheduler.step, ()):
            try:
                change(engine)
            except (ConfigError, RequestError):
                continue
        engine.trace.config = engine.scheduler.config
        engine.step()
    return engine.trace


def resize(num_blocks):
    return lambda engine: change_knobs(engine.scheduler, {"num_blocks": num_blocks})


def restart(name):
    def change(engine):
        engine.trace.requests[name] = edit_request(engine.scheduler, name, {"prompt_token_ids": (7, 7, 7, 7, 7)})

    return change


def other(**knobs):
    return lambda engine: change_knobs(engine.scheduler, knobs)


CHANGES = [resize(6), resize(9), resize(10), resize(14), resize(20), restart("r1"), restart("r3"), other(enable_prefix_caching=False)]
CHANGES += [other(enable_prefix_caching=True), other(max_num_seqs=2), lambda engine: engine.abort("r2"), lambda engine: engine.abort("r4")]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 25), st.lists(st.sampled_from(CHANGES), max_size=3), max_size=8))
def test_pools_that_grow_and_shrink_restarts_and_aborts_do_not_confuse_it(changes):
    assert_every_moment_is_the_schedulers(changed_in_mid_run(changes))


def test_ids_that_a_smaller_pool_gave_up_are_not_shown():
    trace = changed_in_mid_run({0: [resize(6)], 12: [resize(9)]})
    assert [block.block_id for block in moment(trace, 3).blocks] == [1, 2, 3, 4, 5, 6]
    assert [block.block_id for block in moment(trace, 12).blocks] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_moment_of_a_loaded_trace_is_the_same(tmp_path):
    run = scripted_run([list(range(9)), [1, 2], [3, 4, 5]], num_blocks=8, block_size=4, max_num_seqs=2, max_tokens=9)
    assert moment(load_trace(run.save(tmp_path / "x.wbt")), 7) == moment(run.trace, 7)


def test_a_moment_says_what_each_block_went_through_in_its_step():
    run = scripted_run([list(range(9)), list(range(9))], num_blocks=8, block_size=4, max_num_seqs=1, max_tokens=3)
    first, last, second = moment(run.trace, 0), moment(run.trace, 2), moment(run.trace, 3)
    assert first.block(1).touched == ("allocated", "cached")
    assert first.block(3).touched == ("allocated",)
    assert (last.block(1).status, last.block(1).touched) == ("in use", ("freed",))
    assert second.block(1).touched == ("hit",)
    assert second.block(1).owners == ("r1",)


def test_text_and_tokens_are_those_after_the_commit_and_tables_those_after_planning():
    run = scripted_run([list(range(9))], num_blocks=8, block_size=4, max_tokens=3)
    seen = [moment(run.trace, step).request("r0") for step in range(3)]
    assert [(one.num_computed_tokens, one.num_tokens, one.num_output_tokens) for one in seen] == [(9, 10, 1), (10, 11, 2), (11, 12, 3)]
    assert [one.block_ids for one in seen] == [(1, 2, 3)] * 3
    assert [one.finish_reason for one in seen] == [None, None, "length"]
    assert moment(run.trace, 0).wasted_slots == 3
    assert moment(run.trace, 0).fragmentation == 3 / 12


def test_the_text_is_what_came_so_far():
    trace = make_trace(2)
    assert moment(trace, 6).request("r0").text == trace[:7].texts()["r0"] != ""


@settings(max_examples=40, deadline=None)
@given(workloads(), st.data())
def test_a_slice_says_nothing_that_the_whole_trace_denies(workload, data):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace
    begin = data.draw(st.integers(0, len(trace) - 1))
    for cut in moments(trace[begin:]):
        whole = moment(trace, cut.step)
        assert (cut.kv, cut.running, cut.waiting, cut.pending) == (whole.kv, whole.running, whole.waiting, whole.pending)
        for mine, real in zip(cut.requests, whole.requests, strict=True):
            assert (mine.request_id, mine.decision, mine.finish_reason) == (real.request_id, real.decision, real.finish_reason)
            assert mine.block_ids in (None, real.block_ids)
            for field in ("num_prompt_tokens", "num_tokens", "num_computed_tokens", "num_output_tokens"):
                assert getattr(mine, field) in (None, getattr(real, field))
            assert real.text.endswith(mine.text)
            assert not mine.text_complete or mine.text == real.text
        for block in cut.blocks:
            real_block = whole.block(block.block_id)
            assert block.status in ("unknown", real_block.status)
            assert "?" in block.owners or block.status != "in use" or set(block.owners) <= set(real_block.owners)
            assert block.hash in ("", real_block.hash)


def test_a_slice_names_what_it_does_not_hold():
    run = scripted_run([list(range(9)), list(range(20, 29))], num_blocks=8, block_size=4, max_num_seqs=2, max_tokens=9)
    seen = moment(run.trace[3:], 4)
    assert seen.unknown == (
        "which blocks are 4 more in use: what happened to them lies before step 3, where this trace begins",
        "what r0, r1 did before step 3, where this trace begins",
    )
    assert seen.request("r0").block_ids is None
    assert seen.request("r0").num_tokens == moment(run.trace, 4).request("r0").num_tokens
    assert seen.wasted_slots is None
    assert "unknown" in repr(seen)
    assert "Unknown: " in seen._repr_html_()


def test_a_second_run_of_an_engine_knows_its_own_requests_and_says_which_blocks_are_older():
    with Engine(ScriptedRunner(), num_blocks=16, block_size=4) as engine:
        engine.run([list(range(9))], max_tokens=3)
        run = engine.run([list(range(9))], max_tokens=3)
    seen = moment(run.trace, run.trace.first_step)
    assert seen.request("r1").block_ids == moment(engine.trace, seen.step).request("r1").block_ids
    assert seen.request("r1").text_complete
    assert not seen.unknown or seen.kv.cached


@pytest.mark.parametrize("step", [-1, 99, "3", 1.0, None])
def test_a_step_that_is_not_there_is_refused_with_the_range(step):
    with pytest.raises(TraceError, match=r"there is no step .*: the trace has steps 0 to \d+"):
        moment(make_trace(2), step)


def test_an_empty_trace_has_no_moment():
    trace = Trace(EngineConfig(), ModelFacts(name="x"))
    with pytest.raises(TraceError, match="this trace has no steps"):
        moment(trace, 0)
    assert list(moments(trace)) == []


def test_unknown_requests_and_blocks_are_refused_by_name():
    seen = moment(scripted_run([[1, 2, 3]], num_blocks=8, max_tokens=3).trace, 1)
    with pytest.raises(RequestError, match="request 'r9' is in no queue at step 1; there are: r0"):
        seen.request("r9")
    with pytest.raises(TraceError, match="the pool has no block 9 at step 1: it has 8"):
        seen.block(9)


def test_text_shows_queues_tables_and_a_character_per_block():
    run = scripted_run([list(range(9)), list(range(9)), list(range(50, 62))], num_blocks=9, block_size=4, max_num_seqs=3, max_tokens=6)
    lines = repr(moment(run.trace, 1)).splitlines()
    assert lines[0].startswith("Step 1: 3 running, 0 waiting · 9 blocks × 4 tokens: 8 in use, 0 cached, 1 free; ")
    assert lines[1].split() == ["request", "status", "prompt", "output", "computed", "blocks", "this", "step", "text", "so", "far"]
    assert [line.split()[0] for line in lines[2:5]] == ["r0", "r1", "r2"]
    assert len(lines[-2].split()[1]) == 9
    assert "0 r0 · 1 r1 · 2 r2" in lines[-1]


def hostile_trace():
    trace = make_trace(3)
    names = {"r0": SCRIPT, "r1": ONERROR, "r2": "\x1b[31m"}
    raw = msgspec.json.encode(trace.records).decode()
    for old, new in names.items():
        raw = raw.replace(f'"{old}"', msgspec.json.encode(new).decode())
    records = msgspec.json.decode(raw, type=list[StepRecord])
    requests = [msgspec.structs.replace(request, id=names[request.id]) for request in trace.requests.values()]
    return Trace(trace.config, trace.model, requests, records)


@pytest.mark.parametrize("step", [0, 5, 20])
def test_html_escapes_everything_and_has_no_script(step):
    html = moment(hostile_trace(), step)._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "http" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "\x1b" not in repr(moment(hostile_trace(), step))


def test_html_of_a_large_pool_and_many_requests_stays_small():
    run = scripted_run([list(range(i, i + 30)) for i in range(90)], num_blocks=5000, block_size=4, max_num_seqs=90, max_tokens=4)
    assert len(moment(run.trace, 2)._repr_html_()) < 90_000
    assert len(repr(moment(run.trace, 2)).splitlines()) < 110
