"""A trace run again: the same scheduler before every step, whatever was done to the engine on the way."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduler import workloads

from workbench import Engine, TraceError, load_trace
from workbench.events import StepTiming
from workbench.rebuild import beginning, originals, rebuild
from workbench.runners.scripted import ScriptedRunner


class Sometimes(ScriptedRunner):
    """Fails the first time that it is given one of some steps."""

    def __init__(self, fails: set[int], width: int) -> None:
        drafts = (lambda name, known: [(len(known) + i) % 4 for i in range(width)]) if width else None
        super().__init__(lambda name, position: (position + len(name)) % 4, drafts=drafts)
        self.fails = set(fails)

    def execute(self, plan):
        if plan.step in self.fails:
            self.fails.discard(plan.step)
            raise RuntimeError("no luck")
        return super().execute(plan)


def engine_of(knobs, requests, fails=()) -> Engine:
    engine = Engine(Sometimes(set(fails), knobs["num_speculative_tokens"]), debug=True, **knobs)
    for request in requests:
        own = {key: value for key, value in request.items() if key != "abort_at"}
        engine.add_request(own)
    return engine


def run_to_the_end(engine: Engine, requests) -> Engine:
    aborts = {f"r{index}": request["abort_at"] for index, request in enumerate(requests) if request["abort_at"] is not None}
    for _ in range(600):
        for name, at in aborts.items():
            if at == engine.scheduler.step:
                engine.abort(name)
        try:
            engine.step()
        except RuntimeError:
            continue
        if not engine.has_unfinished:
            return engine
    raise AssertionError("600 steps were not enough")


def timeless(record):
    """A record without what differs from run to run: milliseconds."""
    return msgspec.structs.replace(record, timing=StepTiming())


def plain(value):
    """A list as it is now."""
    return tuple(value) if isinstance(value, list) else value


def face(scheduler):
    """Everything about a scheduler that shapes its decisions."""
    queues, states = scheduler.queues, scheduler.queues.everyone()
    pool = scheduler.kv.pool
    return {
        "step": scheduler.step,
        "config": scheduler.config,
        "states": [{name: plain(getattr(state, name)) for name in state.__slots__ if name != "block_hashes"} for state in states],
        "queues": [[state.id for state in queue] for queue in (queues.pending, queues.waiting, queues.running, queues.held)],
        "free": pool.free_order(),
        "refs": [pool.refs(block_id) for block_id in range(pool.highest_id + 1)],
        "index": pool.index.blocks(),
        "usage": pool.usage,
    }


@settings(max_examples=60, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3), st.data())
def test_the_scheduler_of_any_step_is_the_one_that_took_it(workload, fails, data):
    knobs, requests = workload
    engine = engine_of(knobs, requests, fails)
    faces = {0: face(engine.scheduler.copy())}
    take = engine.step

    def step():
        record = take()
        faces[engine.scheduler.step] = face(engine.scheduler)
        return record

    engine.step = step
    run_to_the_end(engine, [{**request, "abort_at": None} for request in requests])
    at = data.draw(st.integers(0, len(engine.trace)))
    again = rebuild(engine.trace, at)
    again.check_integrity()
    if at == len(engine.trace) or not engine.trace[at].commands:  # else those are done already
        assert face(again) == faces[at]


@settings(max_examples=60, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3), st.data())
def test_going_on_from_any_step_repeats_the_records(workload, fails, data):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests, fails), requests).trace
    at = data.draw(st.integers(0, len(trace)))
    scheduler, runner = rebuild(trace, at), Sometimes(set(), knobs["num_speculative_tokens"])
    for record in trace.records[at:]:
        if any(command.kind in ("abort", "abandoned") for command in record.commands) and record.step > at:
            break
        plan = scheduler.plan(record.start_s)
        again = scheduler.commit(plan, runner.execute(plan))
        assert timeless(again) == timeless(record)


def test_a_copy_of_a_scheduler_lives_its_own_life():
    engine = Engine(ScriptedRunner(), num_blocks=8, block_size=4)
    engine.add_request(list(range(9)), max_tokens=9)
    engine.step()
    before = face(engine.scheduler)
    twin = engine.scheduler.copy()
    plan = twin.plan(0.0)
    twin.commit(plan, ScriptedRunner().execute(plan))
    twin.abort("r0")
    assert face(engine.scheduler) == before
    assert not twin.has_unfinished
    assert engine.scheduler.has_unfinished


def test_a_saved_trace_can_be_run_again(tmp_path):
    engine = Engine(ScriptedRunner(), num_blocks=8, block_size=4, max_num_seqs=2)
    run = engine.run([list(range(9)), [1, 2], [3, 4, 5]], max_tokens=9)
    loaded = load_trace(run.save(tmp_path / "x.wbt"))
    assert face(rebuild(loaded, 7)) == face(rebuild(engine.trace, 7))


def test_a_step_that_is_not_there_is_refused_with_the_range():
    engine = Engine(ScriptedRunner(), num_blocks=8)
    engine.run([[1, 2, 3]], max_tokens=3)
    with pytest.raises(TraceError, match=r"there is no step 9: the trace has steps 0 to 2, and 3 would be the next"):
        rebuild(engine.trace, 9)


def test_a_trace_without_its_beginning_is_refused():
    engine = Engine(ScriptedRunner(), num_blocks=8)
    engine.run([[1, 2, 3]], max_tokens=3)
    with pytest.raises(TraceError, match="begins at step 1"):
        rebuild(engine.trace[1:], 2)


def test_an_edited_trace_is_refused():
    engine = Engine(ScriptedRunner(), num_blocks=8)
    engine.run([[1, 2, 3]], max_tokens=3)
    row = engine.trace[0].scheduled[0]
    engine.trace.records[0] = msgspec.structs.replace(engine.trace[0], scheduled=(msgspec.structs.replace(row, end=2),))
    with pytest.raises(TraceError, match=r"step 0 of the trace runs r0\[0:2\], but its settings and requests lead to r0\[0:3\]"):
        rebuild(engine.trace, 2)


def test_settings_and_requests_of_the_beginning_are_worked_out_from_the_changes():
    from workbench.adjust import change_knobs, edit_request

    engine = Engine(ScriptedRunner(), num_blocks=8, max_num_seqs=2)
    engine.add_request([1, 2, 3], max_tokens=9)
    engine.step()
    change_knobs(engine.scheduler, {"num_blocks": 6, "max_num_seqs": 5})
    engine.trace.requests["r0"] = edit_request(engine.scheduler, "r0", {"max_tokens": 4, "temperature": 0.5})
    engine.trace.config = engine.scheduler.config
    engine.step()
    first = beginning(engine.trace)
    assert (first.config.max_num_seqs, first.kv.pool.num_blocks) == (2, 8)
    assert originals(engine.trace)["r0"].sampling.max_tokens == 9
    assert face(rebuild(engine.trace, 2)) == face(engine.scheduler)
