"""All policies side by side: the lesson that they are there for, and that a run of any of them can be run again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_workloads import EVERY, policy_workloads, produced_by, run_checked, token_of
from test_rebuild import face, timeless
from test_scheduler import assert_events_rebuild_the_pool

from workbench import Engine, load_trace
from workbench.events import Reason, Verdict
from workbench.rebuild import rebuild
from workbench.runners.scripted import ScriptedRunner

# -- one trace, one pool, three behaviours -----------------------------------------------------------------------------


def lesson(policy):
    """Two long answers, then two short ones, the last of which begins like the first; 23 blocks of 8 tokens, where the long want 25."""
    engine = Engine(ScriptedRunner(token_of), block_size=8, num_blocks=23, max_num_seqs=4, policy=policy, debug=True)
    first = list(range(24))
    prompts = [(first, 80, 0), (list(range(100, 116)), 80, 1), (list(range(200, 208)), 8, 2), ([*first, 7, 7], 8, 2)]
    for prompt, max_tokens, arrival in prompts:
        engine.add_request({"prompt_token_ids": prompt, "max_tokens": max_tokens, "arrival_step": arrival})
    while engine.has_unfinished:
        engine.step()
    return list(engine.trace)


def reasons(records, name):
    return {decision.reason for record in records for decision in record.decisions if decision.request_id == name}


def test_one_trace_one_pool_three_behaviours():
    vllm, trtllm, sglang = (lesson(policy) for policy in ("fcfs", "guaranteed_no_evict", "lpm"))
    # vLLM lets everybody in, and takes blocks back when they run out.
    assert [name for record in vllm for name in record.preempted] != []
    assert vllm[1].admitted == ("r1",)
    # TensorRT-LLM lets nobody in whose last token might not fit, and never takes anything back.
    assert [name for record in trtllm for name in record.preempted] == []
    assert Reason.RESERVED_TO_COMPLETION in reasons(trtllm, "r1")
    # SGLang lets in what it guesses to fit, prompts before tokens and known beginnings first, and retracts when it guessed wrong.
    order = [name for record in sglang for name in record.admitted]
    assert order.index("r3") < order.index("r2")
    assert Reason.PREFILL_FIRST in reasons(sglang, "r0")
    assert {d.reason for record in sglang for d in record.decisions if d.verdict is Verdict.PREEMPTED} == {Reason.RETRACTED}
    # What is answered does not depend on any of it; how long it takes does.
    assert produced_by(vllm) == produced_by(trtllm) == produced_by(sglang)
    assert len({len(vllm), len(trtllm), len(sglang)}) == 3


@pytest.mark.parametrize("policy", ["fcfs", "priority", *EVERY])
def test_every_policy_gives_everybody_the_same_tokens(policy):
    assert produced_by(lesson(policy)) == produced_by(lesson("fcfs"))


@settings(max_examples=40, deadline=None)
@given(policy_workloads(EVERY))
def test_a_policy_changes_when_tokens_come_and_never_which(workload):
    knobs, requests = workload
    requests = [{**request, "abort_at": None} for request in requests]
    _, records = run_checked(knobs, requests)
    for name, tokens in produced_by(records).items():
        assert tokens == [token_of(name, place) for place in range(len(tokens))]


# -- run again ---------------------------------------------------------------------------------------------------------


class Sometimes(ScriptedRunner):
    """Fails the first time that it is given one of some steps."""

    def __init__(self, fails=()):
        super().__init__(token_of)
        self.fails = set(fails)

    def execute(self, plan):
        if plan.step in self.fails:
            self.fails.discard(plan.step)
            raise RuntimeError("no luck")
        return super().execute(plan)


def whole_face(scheduler):
    """Everything about a scheduler that shapes its decisions, what its policy remembers and its tree included."""
    planner, tree = scheduler.planner, getattr(scheduler.kv, "tree", None)
    memory = {name: getattr(planner, name, None) for name in ("new_token_ratio", "batch_is_full", "_batch_size")}
    if tree is not None:
        memory["tree"] = sorted((node.serial, node.last_access, node.locks, node.pages, node.values) for node in tree.nodes())
        memory["held"] = {name: node.serial for name, node in scheduler.kv._held.items()}
    return face(scheduler) | memory


def run_to_the_end(knobs, requests, fails):
    """The engine, and the face of its scheduler before every step."""
    engine = Engine(Sometimes(fails), debug=True, **knobs)
    for request in requests:
        engine.add_request({key: value for key, value in request.items() if key != "abort_at"})
    faces = {0: whole_face(engine.scheduler.copy())}
    aborts = {f"r{index}": request["abort_at"] for index, request in enumerate(requests)}
    for _ in range(3000):
        for name, at in aborts.items():
            if at == engine.scheduler.step:
                engine.abort(name)
        if not engine.has_unfinished:
            break
        try:
            engine.step()
        except RuntimeError:
            engine.scheduler.check_integrity()
            continue
        faces[engine.scheduler.step] = whole_face(engine.scheduler)
    assert not engine.has_unfinished
    return engine, faces


FAILS = st.sets(st.integers(0, 25), max_size=3)


@settings(max_examples=60, deadline=None)
@given(policy_workloads(EVERY), FAILS, st.data())
def test_the_scheduler_of_any_step_is_the_one_that_took_it(workload, fails, data):
    knobs, requests = workload
    engine, faces = run_to_the_end(knobs, [{**request, "abort_at": None} for request in requests], fails)
    assert_events_rebuild_the_pool(engine.trace, knobs["num_blocks"])
    at = data.draw(st.integers(0, len(engine.trace)))
    again = rebuild(engine.trace, at)
    again.check_integrity()
    if at == len(engine.trace) or not engine.trace[at].commands:  # else those are done already
        assert whole_face(again) == faces[at]


@settings(max_examples=60, deadline=None)
@given(policy_workloads(EVERY), FAILS, st.data())
def test_going_on_from_any_step_repeats_the_records(workload, fails, data):
    engine, _ = run_to_the_end(*workload, fails)
    trace = engine.trace
    at = data.draw(st.integers(0, len(trace)))
    scheduler, runner = rebuild(trace, at).copy(), Sometimes()
    for record in trace.records[at:]:
        if any(command.kind in ("abort", "abandoned") for command in record.commands) and record.step > at:
            break
        plan = scheduler.plan(record.start_s)
        assert timeless(scheduler.commit(plan, runner.execute(plan))) == timeless(record)


def clockless(record):
    """A record without what the clock says, which goes on in a fork."""
    arrived = tuple(msgspec.structs.replace(arrival, arrival_s=0.0) for arrival in record.arrived)
    commands = tuple(msgspec.structs.replace(command, at_s=0.0) for command in record.commands)
    return msgspec.structs.replace(timeless(record), start_s=0.0, arrived=arrived, commands=commands)


@pytest.mark.parametrize("policy", EVERY)
def test_a_run_of_any_policy_rewinds_and_forks(policy, tmp_path):
    engine = Engine(ScriptedRunner(token_of), block_size=8, num_blocks=12, max_num_seqs=4, policy=policy, debug=True)
    prompts = [{"prompt_token_ids": list(range(100 * i, 100 * i + 20)), "max_tokens": 20, "arrival_step": i} for i in range(4)]
    run = engine.run(prompts)
    loaded = load_trace(run.save(tmp_path / "x.wbt"))
    middle = len(run.trace) // 2
    assert whole_face(rebuild(loaded, middle)) == whole_face(rebuild(engine.trace, middle))
    twin = engine.fork(middle)
    while twin.has_unfinished:
        twin.step()
    assert [clockless(record) for record in twin.trace] == [clockless(record) for record in run.trace]
