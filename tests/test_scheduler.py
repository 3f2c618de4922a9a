"""Invariants of the scheduler on random workloads, and vLLM's own unit cases with their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import Engine, EngineConfig, RequestError
from workbench.events import Reason, Verdict
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.runners.scripted import ScriptedRunner
from workbench.scheduler import Scheduler, stop_rule
from workbench.state import RequestState


@st.composite
def workloads(draw):
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    num_blocks = draw(st.integers(6, 24))
    knobs = {
        "block_size": block_size,
        "num_blocks": num_blocks,
        "max_num_seqs": draw(st.integers(1, 6)),
        "max_num_batched_tokens": draw(st.integers(1, 40)),
        "long_prefill_token_threshold": draw(st.sampled_from([0, 3, 9])),
        "enable_prefix_caching": draw(st.booleans()),
        "reserve_full_prompt": draw(st.booleans()),
        "policy": draw(st.sampled_from(["fcfs", "priority"])),
        "batching": draw(st.sampled_from(["continuous", "continuous", "static", "dynamic"])),
        "num_speculative_tokens": draw(st.sampled_from([0, 0, 1, 3])),
    }
    knobs["max_num_batched_tokens"] = max(knobs["max_num_batched_tokens"], knobs["num_speculative_tokens"] + 1)
    capacity = block_size * num_blocks
    shared = draw(st.lists(st.integers(0, 3), min_size=1, max_size=capacity))
    requests = []
    for index in range(draw(st.integers(1, 10))):
        keep = draw(st.integers(0, len(shared)))
        prompt = (shared[:keep] + draw(st.lists(st.integers(0, 3), max_size=8)))[: capacity - 1] or [index]
        requests.append(
            {
                "prompt_token_ids": prompt,
                "max_tokens": draw(st.integers(1, 12)),
                "arrival_step": draw(st.integers(0, 20)),
                "priority": draw(st.integers(0, 3)),
                "abort_at": draw(st.one_of(st.none(), st.none(), st.integers(0, 30))),
            }
        )
    return knobs, requests


def run_checked(knobs, requests):
    """Step a workload to its end; every step's record is checked against the invariants and handed back."""
    width = knobs["num_speculative_tokens"]
    drafts = (lambda name, known: [(len(known) + i) % 4 for i in range(width)]) if width else None
    runner = ScriptedRunner(lambda name, position: (position + len(name)) % 4, drafts=drafts)
    engine = Engine(runner, debug=True, **knobs)
    aborts = {}
    for request in requests:
        abort_at = request.pop("abort_at", None)
        added = engine.add_request(request)
        if abort_at is not None:
            aborts.setdefault(abort_at, []).append(added.id)
    records = []
    while engine.has_unfinished:
        for name in aborts.pop(engine.scheduler.step, ()):
            engine.abort(name)
        unfinished = set(engine.scheduler.queues.states)
        record = engine.step()
        assert {decision.request_id for decision in record.decisions} == unfinished
        assert len(record.decisions) == len(unfinished)
        assert sum(row.num_tokens for row in record.scheduled) == record.tokens.used <= record.tokens.limit
        assert len(record.running) <= knobs["max_num_seqs"]
        assert not (record.preempted and record.admitted)
        assert record.kv.total == record.kv_after.total == knobs["num_blocks"]
        by_id = {row.request_id: row.num_tokens for row in record.scheduled}
        assert {d.request_id: d.num_tokens for d in record.decisions if d.num_tokens} == by_id
        records.append(record)
        assert len(records) < 3000, "the workload does not end"
    return engine, records


@settings(max_examples=150, deadline=None)
@given(workloads())
def test_no_workload_breaks_an_invariant(workload):
    knobs, requests = workload
    wanted = {f"r{index}": request["max_tokens"] for index, request in enumerate(requests)}
    lengths = {f"r{index}": len(request["prompt_token_ids"]) for index, request in enumerate(requests)}
    engine, records = run_checked(knobs, requests)
    ends = {end.request_id: end.reason for record in records for end in record.finished}
    assert set(ends) == set(wanted)
    produced = dict.fromkeys(wanted, 0)
    for record in records:
        for sampled in record.sampled:
            produced[sampled.request_id] += len(sampled.token_ids)
    for name, reason in ends.items():
        if reason == "length":
            assert produced[name] == min(wanted[name], engine.max_model_len - lengths[name])
    engine.scheduler._release_batch()
    engine.scheduler.check_integrity()
    assert engine.scheduler.kv.pool.usage.in_use == 0


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_a_workload_run_twice_gives_equal_decisions(workload):
    knobs, requests = workload
    _, first = run_checked(knobs, [dict(request) for request in requests])
    _, second = run_checked(knobs, [dict(request) for request in requests])
    for mine, theirs in zip(first, second, strict=True):
        for field in ("scheduled", "decisions", "block_events", "sampled", "running", "waiting", "kv", "finished", "spec"):
            assert getattr(mine, field) == getattr(theirs, field)


def assert_events_rebuild_the_pool(records, num_blocks):
    refs = [0] * (num_blocks + 1)
    content = {}
    for record in records:
        for event in record.block_events:
            if event.kind in ("allocated", "hit", "shared"):
                refs[event.block_id] += 1
            elif event.kind == "freed":
                refs[event.block_id] -= 1
            elif event.kind == "cached":
                content[event.block_id] = event.hash
            else:
                assert content.pop(event.block_id) == event.hash
        assert sum(count > 0 for count in refs) == record.kv_after.in_use
        assert sum(refs[block] == 0 for block in content) == record.kv_after.cached


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_block_events_alone_rebuild_the_pool(workload):
    knobs, requests = workload
    _, records = run_checked(knobs, requests)
    assert_events_rebuild_the_pool(records, knobs["num_blocks"])


class Stumbling(ScriptedRunner):
    """Fails a few times, before it computes anything (forever would leave no progress: what was computed is lost)."""

    calls = 0

    def execute(self, plan):
        self.calls += 1
        if self.calls in (2, 3, 7, 12, 20):
            raise RuntimeError("stumbled")
        return super().execute(plan)


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_failed_steps_leave_a_pool_that_events_rebuild_and_lose_no_output(workload):
    knobs, requests = workload
    engine = Engine(Stumbling(lambda name, position: position), debug=True, **{**knobs, "num_speculative_tokens": 0})
    for request in requests:
        engine.add_request({key: value for key, value in request.items() if key != "abort_at"})
    for _ in range(3000):
        if not engine.has_unfinished:
            break
        try:
            engine.step()
        except RuntimeError:
            engine.scheduler.check_integrity()
    assert not engine.has_unfinished
    outputs = {}
    for record in engine.trace:
        for sampled in record.sampled:
            outputs.setdefault(sampled.request_id, []).extend(sampled.token_ids)
    assert all(tokens == list(range(len(tokens))) for tokens in outputs.values())
    assert_events_rebuild_the_pool(engine.trace, knobs["num_blocks"])


# -- vLLM's unit cases (tests/v1/core/test_scheduler.py) ---------------------------------------------------------------


def scheduler_with(lengths, *, num_blocks=10000, max_tokens=16, **knobs):
    config = EngineConfig(**{"max_num_seqs": 16, "max_num_batched_tokens": 8192, **knobs})
    scheduler = Scheduler(config, num_blocks=num_blocks, max_model_len=8192)
    for index, length in enumerate(lengths):
        prompt = tuple(range(1000 * index, 1000 * index + length))
        scheduler.add(Request(id=f"r{index}", prompt_token_ids=prompt, sampling=SamplingParams(max_tokens=max_tokens)))
    return scheduler


def step(scheduler, token=7):
    plan = scheduler.plan()
    scheduler.commit(plan, StepOutput([[token] if row.samples else [] for row in plan.rows]))
    return [row.num_tokens for row in plan.rows]


def test_schedule_concurrent_partial_requests():
    scheduler = scheduler_with([800, 800, 800], max_num_batched_tokens=1024, long_prefill_token_threshold=400)
    assert [step(scheduler), step(scheduler), step(scheduler)] == [[400, 400, 224], [400, 400, 224], [1, 1, 352]]


@pytest.mark.parametrize(("chunked", "scheduled"), [(True, 2), (False, 1)])
def test_schedule_order(chunked, scheduled):
    scheduler = scheduler_with([800, 800, 10, 10], max_num_seqs=3, max_num_batched_tokens=1024, enable_chunked_prefill=chunked)
    assert len(step(scheduler)) == scheduled


def test_preempt_during_execution():
    scheduler = scheduler_with([80, 80], num_blocks=10, max_num_batched_tokens=100, enable_prefix_caching=False)
    for _ in range(3):
        step(scheduler)
    assert [state.id for state in scheduler.queues.running] == ["r0"]
    assert scheduler.queues.waiting.head.id == "r1"


def test_no_spec_tokens_scheduled_for_prefill_chunks():
    scheduler = scheduler_with([80], max_num_batched_tokens=50, num_speculative_tokens=3)
    sizes = []
    for _ in range(2):
        plan = scheduler.plan()
        sizes.append(plan.num_tokens)
        scheduler.commit(plan, StepOutput([[7] if row.samples else [] for row in plan.rows], proposed=[[1, 2, 3]] * len(plan.rows)))
    assert sizes == [50, 30]


def state_with(tokens, **sampling):
    request = Request(id="r", prompt_token_ids=(1, 2), sampling=SamplingParams(**{"max_tokens": 10, **sampling}), eos_token_ids=(50256,))
    state = RequestState(request, 0, 100)
    state.token_ids += tokens
    return state


@pytest.mark.parametrize(
    ("tokens", "sampling", "rule"),
    [
        ([10, 50256], {}, ("stop", None)),
        ([10, 42], {"stop_token_ids": (42, 43)}, ("stop", 42)),
        ([10, 11], {"max_tokens": 2}, ("length", None)),
        ([10, 50256], {"ignore_eos": True}, None),
        ([10, 50256], {"min_tokens": 3}, None),
        ([10, 11], {}, None),
        ([10, 50256], {"max_tokens": 2}, ("stop", None)),
    ],
)
def test_stop_via_update_from_output(tokens, sampling, rule):
    assert stop_rule(state_with(tokens, **sampling), tokens[-1]) == rule


# -- reasons -----------------------------------------------------------------------------------------------------------


def decisions(scheduler):
    plan = scheduler.plan()
    return {d.request_id: d for d in scheduler.commit(plan, StepOutput([[7] if row.samples else [] for row in plan.rows])).decisions}


def test_a_request_that_lacks_blocks_says_how_many_and_who_holds_most():
    told = decisions(scheduler_with([96, 100], num_blocks=10))["r1"]
    assert (told.verdict, told.reason) == (Verdict.DEFERRED, Reason.NO_FREE_BLOCKS)
    assert (told.needed, told.available, told.limit, told.blocker) == (7, 4, 10, "r0")


def test_those_behind_a_blocked_head_name_it():
    told = decisions(scheduler_with([96, 100, 5], num_blocks=10))["r2"]
    assert (told.reason, told.blocker) == (Reason.HEAD_OF_LINE, "r1")


def test_a_preempted_request_names_for_whom():
    scheduler = scheduler_with([16, 16], num_blocks=3)
    step(scheduler)
    told = decisions(scheduler)
    assert (told["r1"].verdict, told["r1"].blocker) == (Verdict.PREEMPTED, "r1")  # the last in line has to go, itself here
    assert (told["r1"].needed, told["r1"].available) == (1, 0)


def test_a_victim_of_another_names_it():
    scheduler = scheduler_with([31, 17], num_blocks=4, max_tokens=40)
    told = [decisions(scheduler) for _ in range(4)]
    victims = [(step, d) for step, by_id in enumerate(told) for d in by_id.values() if d.verdict is Verdict.PREEMPTED]
    step_number, decision = victims[0]
    assert (step_number, decision.request_id, decision.blocker, decision.needed) == (2, "r1", "r0", 1)


def test_a_chunk_cut_by_the_budget_gives_the_numbers():
    told = decisions(scheduler_with([100], max_num_batched_tokens=30))["r0"]
    assert (told.verdict, told.reason, told.num_tokens, told.needed, told.limit) == (Verdict.PARTIAL, Reason.TOKEN_BUDGET, 30, 100, 30)


def test_a_request_that_has_not_arrived_says_when_it_will():
    scheduler = scheduler_with([5])
    scheduler.add(Request(id="later", prompt_token_ids=(1,), arrival_step=9))
    told = decisions(scheduler)["later"]
    assert (told.reason, told.needed) == (Reason.NOT_ARRIVED, 9)


def test_adding_an_impossible_request_changes_nothing():
    scheduler = scheduler_with([], num_blocks=2)
    with pytest.raises(RequestError):
        scheduler.add(Request(id="big", prompt_token_ids=tuple(range(64))))
    assert not scheduler.has_unfinished
