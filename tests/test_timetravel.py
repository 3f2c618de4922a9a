"""Going back and forking: exact in every way, whatever happened on the way, and harmless to the original."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rebuild import Sometimes, engine_of, face, run_to_the_end, timeless
from test_scheduler import workloads

from workbench import ConfigError, Engine, EngineClosedError, RequestError, TraceError, load_trace, why
from workbench.events import Finished, StepRecord
from workbench.history import KEYFRAME_STEPS
from workbench.moment import moment
from workbench.runners.base import Forkable, HoldsBlocks
from workbench.runners.scripted import ScriptedRunner

# -- a runner whose tokens depend on what its blocks hold ----------------------------------------------------------------


class Saved(list):
    """Contents of some blocks."""

    @property
    def nbytes(self) -> int:
        return 100 * len(self)


class Remembering:
    """A model in miniature: each slot keeps its token, and the next token is a function of all the slots that a request can read.

    A block that was not put back, or put back wrongly, changes the tokens.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.facts = ScriptedRunner().facts
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.slots = [[None] * block_size for _ in range(num_blocks + 1)]
        self.num_executed = 0

    def execute(self, plan):
        from workbench.plan import StepOutput

        self.num_executed += 1
        tokens = []
        for row in plan.rows:  # all rows write first: a prefix found in this very step is there for its reader
            for position in range(row.start, row.end):
                self.slots[row.block_ids[position // self.block_size]][position % self.block_size] = row.token_ids[position]
        for row in plan.rows:
            read = [self.slots[row.block_ids[p // self.block_size]][p % self.block_size] for p in range(row.end)]
            assert None not in read, "a slot is read that nobody wrote"
            tokens.append([hash(tuple(read)) % 5] if row.samples else [])
        return StepOutput(tokens)

    def fork(self, num_blocks):
        return Remembering(num_blocks, self.block_size)

    block_bytes = 100

    def read_blocks(self, block_ids):
        return Saved([list(self.slots[block_id]) for block_id in block_ids])

    def write_blocks(self, block_ids, saved, rows=None):
        chosen = saved if rows is None else [saved[row] for row in rows]
        for block_id, content in zip(block_ids, chosen, strict=True):
            self.slots[block_id] = list(content)

    def close(self):
        pass


def remembering(knobs, requests, **more) -> Engine:
    knobs = {**knobs, "num_speculative_tokens": 0, **more}
    engine = Engine(Remembering(knobs["num_blocks"], knobs["block_size"]), debug=True, **knobs)
    for request in requests:
        engine.add_request({key: value for key, value in request.items() if key != "abort_at"})
    return engine


def rest(engine: Engine) -> list[StepRecord]:
    """Step to the end."""
    records = []
    while engine.has_unfinished:
        records.append(timeless(engine.step()))
        assert len(records) < 5000
    return records


def same(mine: list[StepRecord], theirs: list[StepRecord]) -> None:
    """Equal in every field but the clock."""
    assert [without_clock(record) for record in mine] == [without_clock(record) for record in theirs]


def without_clock(record: StepRecord) -> StepRecord:
    arrived = tuple(msgspec.structs.replace(arrival, arrival_s=0.0) for arrival in record.arrived)
    commands = tuple(msgspec.structs.replace(command, at_s=0.0) for command in record.commands)
    return msgspec.structs.replace(timeless(record), start_s=0.0, arrived=arrived, commands=commands)


def test_the_runners_of_ours_can_be_forked_and_the_remembering_one_holds_blocks():
    assert isinstance(ScriptedRunner(), Forkable)
    assert isinstance(Remembering(1, 1), Forkable)
    assert isinstance(Remembering(1, 1), HoldsBlocks)
    assert not isinstance(ScriptedRunner(), HoldsBlocks)


# -- exactness -----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(workloads(), st.data())
def test_a_rewound_engine_repeats_what_it_did(workload, data):
    engine = remembering(*workload)
    first = rest(engine)
    at = data.draw(st.integers(0, len(first)))
    engine.rewind(at)
    assert len(engine.trace) == at
    same(rest(engine), first[at:])


@settings(max_examples=80, deadline=None)
@given(workloads(), st.sampled_from([0, 100, 500]), st.data())
def test_beyond_the_undo_memory_steps_are_computed_again_and_it_is_as_exact(workload, budget, data):
    engine = remembering(*workload, undo_memory_bytes=budget)
    first = rest(engine)
    at = data.draw(st.integers(0, len(first)))
    restored = engine.rewind(at)
    if restored.steps_recomputed:
        assert restored.steps_recomputed == at
        assert f"{at} steps were computed again" in str(restored)
    same(rest(engine), first[at:])


@settings(max_examples=80, deadline=None)
@given(workloads(), st.sampled_from([0, 300, 1 << 20]), st.data())
def test_a_fork_repeats_what_the_original_did_and_leaves_it_alone(workload, budget, data):
    engine = remembering(*workload, undo_memory_bytes=budget)
    stop = data.draw(st.integers(0, 40))
    for _ in range(stop):
        if engine.has_unfinished:
            engine.step()
    at = data.draw(st.integers(0, len(engine.trace)))
    before, slots = face(engine.scheduler), [list(block) for block in engine.runner.slots]
    twin = engine.fork(at)
    forked = rest(twin)
    assert face(engine.scheduler) == before
    assert engine.runner.slots == slots
    rest(engine)
    same(forked, engine.trace.records[at:])


@settings(max_examples=100, deadline=None)
@given(workloads(), st.data())
def test_any_walk_through_time_ends_where_the_straight_way_ends(workload, data):
    straight = rest(remembering(*workload))
    engine = remembering(*workload, undo_memory_bytes=data.draw(st.sampled_from([0, 400, 2_000, 1 << 20])))
    for _ in range(data.draw(st.integers(1, 6))):
        for _ in range(data.draw(st.integers(0, 12))):
            if engine.has_unfinished:
                engine.step()
        move = data.draw(st.sampled_from(["rewind", "fork", "park", "reload"]))
        at = data.draw(st.integers(0, len(engine.trace)))
        if move == "rewind":
            engine.rewind(at)
        elif move == "fork":
            engine = engine.fork(at)
        elif move == "park":
            engine.park()
        elif engine.trace.records:
            engine = Engine.from_trace(engine.trace, Remembering(engine.runner.num_blocks, engine.config.block_size))
    rest(engine)
    same(engine.trace.records, straight)


@settings(max_examples=60, deadline=None)
@given(workloads(), st.data())
def test_no_walk_with_changing_pools_reads_a_block_that_nobody_wrote(workload, data):
    engine = remembering(*workload, undo_memory_bytes=data.draw(st.sampled_from([0, 400, 2_000, 1 << 20])))
    for _ in range(data.draw(st.integers(1, 6))):
        for _ in range(data.draw(st.integers(0, 12))):
            if engine.has_unfinished:
                engine.step()
        at = data.draw(st.integers(0, len(engine.trace)))
        if data.draw(st.booleans()):
            engine.rewind(at)
        else:
            least = max(engine.scheduler_before(at).kv.pool.usage.in_use, 1)
            engine = engine.fork(at, num_blocks=data.draw(st.integers(least, 40)))
    rest(engine)


@settings(max_examples=40, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3), st.data())
def test_failed_steps_and_aborts_on_the_way_do_no_harm(workload, fails, data):
    knobs, requests = workload
    engine = run_to_the_end(engine_of(knobs, requests, fails), requests)
    records = engine.trace.records
    at = data.draw(st.integers(0, len(records)))
    engine.rewind(at)
    for record in records[at:]:
        if record.step > at:
            for command in record.commands:
                if command.kind == "abort":
                    engine.abort(command.request_id)
        if any(command.kind == "abandoned" for command in record.commands) and record.step > at:
            return  # it does not fail again
        same([engine.step()], [record])


@settings(max_examples=60, deadline=None)
@given(workloads(), st.integers(1, 40), st.data())
def test_a_fork_with_another_pool_breaks_no_invariant(workload, num_blocks, data):
    engine = remembering(*workload)
    rest(engine)
    at = data.draw(st.integers(0, len(engine.trace)))
    if engine.scheduler_before(at).kv.pool.usage.in_use > num_blocks:
        with pytest.raises(ConfigError, match="blocks are in use"):
            engine.fork(at, num_blocks=num_blocks)
        return
    twin = engine.fork(at, num_blocks=num_blocks)
    assert twin.num_blocks == num_blocks
    rest(twin)
    ends = {end.request_id for record in twin.trace.records for end in record.finished}
    assert ends == set(twin.trace.requests)


def test_a_fork_at_the_beginning_with_another_pool_is_a_fresh_run_with_it():
    requests = [{"prompt_token_ids": [index] * 9, "max_tokens": 6} for index in range(6)]
    knobs = {"block_size": 2, "num_blocks": 16, "max_num_seqs": 4, "max_num_batched_tokens": 20, "num_speculative_tokens": 0}
    for other in (10, 30):
        engine = remembering(knobs, requests)
        rest(engine)
        twin = engine.fork(0, num_blocks=other)
        fresh = remembering({**knobs, "num_blocks": other}, requests)
        mine, theirs = rest(twin), rest(fresh)
        assert without_commands(mine) == without_commands(theirs)


def without_commands(records):
    return [
        msgspec.structs.replace(without_clock(record), commands=(), block_events=tuple(e for e in record.block_events if e.request_id))
        for record in records
    ]


# -- what goes along ------------------------------------------------------------------------------------------------------


def scripted(**knobs) -> Engine:
    return Engine(ScriptedRunner(lambda name, position: position), **{"num_blocks": 32, "block_size": 4, "debug": True, **knobs})


def test_settings_go_back_as_well():
    engine = scripted(max_num_seqs=1)
    engine.add_request([1] * 5, max_tokens=20)
    engine.step()
    engine.change(max_num_seqs=7)
    engine.step()
    assert (engine.config.max_num_seqs, engine.trace.config.max_num_seqs) == (7, 7)
    engine.rewind(0)
    assert (engine.config.max_num_seqs, engine.trace.config.max_num_seqs) == (1, 1)


def test_a_change_is_recorded_with_the_step_that_it_preceded():
    engine = scripted(max_num_seqs=1)
    engine.add_request([1] * 5, max_tokens=20)
    engine.step()
    engine.change(max_num_seqs=7)
    [command] = engine.step().commands
    assert (command.kind, command.before, command.after) == ("knobs", {"max_num_seqs": 1}, {"max_num_seqs": 7})


def test_requests_added_later_are_gone():
    engine = scripted()
    engine.add_request([1] * 5, max_tokens=20)
    engine.step()
    engine.add_request([2] * 5, max_tokens=20)
    engine.step()
    engine.rewind(1)
    assert list(engine.trace.requests) == ["r0", "r1"], "it came in before step 1"
    engine.rewind(0)
    assert list(engine.trace.requests) == ["r0"]
    assert engine.add_request([3] * 5).id == "r1"


def test_an_edit_is_undone():
    engine = scripted()
    engine.add_request([1] * 5, max_tokens=20)
    engine.step()
    engine.edit("r0", max_tokens=3)
    engine.step()
    assert engine.trace.requests["r0"].sampling.max_tokens == 3
    engine.rewind(0)
    assert engine.trace.requests["r0"].sampling.max_tokens == 20
    assert len(rest(engine)) == 20


def test_the_clock_goes_back():
    engine = scripted()
    engine.add_request([1] * 5, max_tokens=20)
    starts = [engine.step().start_s for _ in range(5)]
    engine.rewind(2)
    assert engine.clock_s == starts[2]
    assert engine.step().start_s == starts[2]


def test_a_fork_shares_the_records_before_it_and_none_after():
    engine = scripted()
    run = engine.run([[1] * 5, [2] * 5], max_tokens=8)
    branch = run.fork(3)
    assert branch.status == "paused"
    assert [record.step for record in branch.trace] == [0, 1, 2]
    branch.resume()
    assert branch.trace[2] is run.trace[2]
    assert branch.trace[3] is not run.trace[3]
    assert branch.outputs[0].token_ids == run.outputs[0].token_ids


def test_keyframes_are_thinned_and_still_exact():
    engine = Engine(ScriptedRunner(lambda name, position: position % 7, max_model_len=12_000), num_blocks=4096, block_size=4)
    engine.add_request([1] * 5, max_tokens=70 * KEYFRAME_STEPS)
    records = rest(engine)
    assert len(records) == 70 * KEYFRAME_STEPS
    for at in (4_000, 3_999, 129, 1):
        twin = engine.fork(at)
        same([twin.step()], [records[at]])
    engine.rewind(2_500)
    same([engine.step()], [records[2_500]])


# -- changes at a fork ------------------------------------------------------------------------------------------------------


def test_sampling_of_one_request_changes_and_its_output_so_far_stays():
    run = scripted().run([[1] * 5, [2] * 5], max_tokens=8)
    branch = run.fork(4, edit={"r1": {"max_tokens": 5}}).resume()
    assert [len(output.token_ids) for output in branch.outputs] == [8, 5]
    assert branch.requests[1].sampling.max_tokens == 5
    assert run.requests[1].sampling.max_tokens == 8


def test_another_prompt_starts_a_request_afresh():
    run = scripted().run([[1] * 5, [2] * 5], max_tokens=8)
    branch = run.fork(4, edit={"r1": {"prompt_token_ids": [3] * 9}}).resume()
    assert branch.outputs[1].token_ids == tuple(range(8))
    assert branch.trace.at(4).commands[0].after["prompt_token_ids"] == (3,) * 9
    rows = [row for row in branch.trace.at(4).scheduled if row.request_id == "r1"]
    assert [(row.kind, row.start, row.end) for row in rows] == [("prefill", 0, 9)]


def test_requests_are_added_and_aborted_in_a_fork_only():
    run = scripted().run([[1] * 5, [2] * 5], max_tokens=8)
    branch = run.fork(2, add=[[7, 7, 7]], abort="r0").resume()
    assert branch.trace.at(2).finished == (Finished("r0", "abort"),)
    assert [request.id for request in branch.requests] == ["r0", "r1", "r2"]
    assert branch.outputs[2].finish_reason == "length"
    assert len(run.trace.requests) == 2


def test_a_request_that_fits_no_more_is_rejected_for_good():
    run = scripted(num_blocks=12, max_num_seqs=1).run([[1] * 5, [2] * 30, [3] * 5], max_tokens=8)
    branch = run.fork(1, num_blocks=6).resume()
    decision = next(d for record in branch.trace for d in record.decisions if d.verdict == "rejected")
    assert (decision.request_id, decision.reason, decision.needed, decision.available) == ("r1", "never_fits", 8, 6)
    assert [output.finish_reason for output in branch.outputs] == ["length", "abort", "length"]


# -- refusals -----------------------------------------------------------------------------------------------------------------


def finished_run():
    return scripted().run([[1] * 5, [2] * 5], max_tokens=8)


@pytest.mark.parametrize("step", [-1, 9, 1000])
def test_a_step_that_does_not_exist_is_refused(step):
    run = finished_run()
    with pytest.raises(TraceError, match=r"there is no step -?\d+ .*: it has steps 0 to 7, and 8 would be the next"):
        run.fork(step)
    with pytest.raises(TraceError, match="there is no step"):
        run.rewind(step)
    assert run.status == "finished"


@pytest.mark.parametrize("knob", [{"block_size": 8}, {"model": "other"}, {"dtype": "float32"}, {"max_model_len": 99}])
def test_a_knob_that_cannot_change_is_refused_with_those_that_can(knob):
    with pytest.raises(ConfigError, match=r"cannot change in mid-run: start a new run with it\. These can: num_blocks, "):
        finished_run().fork(2, **knob)


def test_an_unknown_knob_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'num_blocks'"):
        finished_run().fork(2, num_block=4)


def test_a_pool_smaller_than_what_is_in_use_is_refused():
    run = finished_run()
    with pytest.raises(ConfigError, match="num_blocks cannot become 2: 4 blocks are in use at this step; keep at least 4"):
        run.fork(2, num_blocks=2)


def test_a_pool_is_changed_by_a_fork_not_in_a_running_engine():
    with pytest.raises(ConfigError, match="num_blocks cannot change while an engine runs: fork the run to change it"):
        scripted().change(num_blocks=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edit": {"r9": {"max_tokens": 3}}}, "no unfinished request has the id 'r9' before step 2; unfinished: r0, r1"),
        ({"abort": ["r9"]}, "no unfinished request has the id 'r9' before step 2; unfinished: r0, r1"),
        ({"edit": {"r1": {"max_token": 3}}}, "did you mean 'max_tokens'"),
        ({"edit": {"r1": {"max_tokens": 2}}}, "has 2 output tokens already: max_tokens must be at least 3"),
        ({"edit": {"r1": {"temperature": -1}}}, "temperature must be at least 0"),
        ({"edit": {"r1": {"prompt_token_ids": [1] * 500}}}, "raise num_blocks or shorten the prompt"),
        ({"edit": {"r1": {"prompt_token_ids": [-4]}}}, "token id -4"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be at least 1"),
    ],
)
def test_a_refused_change_leaves_no_trace(changes, message):
    run = finished_run()
    before = face(run.engine.scheduler)
    with pytest.raises((RequestError, ConfigError), match=message):
        run.fork(2, **changes)
    assert face(run.engine.scheduler) == before
    assert len(run.trace) == 8


@pytest.mark.parametrize("step", ["x", 2.5, True])
@pytest.mark.parametrize("verb", ["fork", "rewind"])
def test_a_step_is_a_whole_number(verb, step):
    with pytest.raises(TraceError, match="a step is given by its number, a whole one, not"):
        getattr(finished_run(), verb)(step)
    with pytest.raises(TraceError, match="a step is given by its number"):
        finished_run().why("r0", step=step)


@pytest.mark.parametrize("edit", [{"r0": 3}, ["r0"], 5])
def test_what_is_no_edit_is_answered_with_an_example(edit):
    with pytest.raises(RequestError, match="edit maps the id of a request to the fields to change, as in "):
        finished_run().fork(2, edit=edit)


def test_what_is_no_prompt_is_named():
    with pytest.raises(RequestError, match="prompts are text, token ids, chat messages, or a list of them, not int"):
        finished_run().fork(2, add=5)


def test_a_runner_that_cannot_be_forked_is_named():
    class Plain:
        facts = ScriptedRunner().facts

        def execute(self, plan):
            return ScriptedRunner().execute(plan)

        def close(self):
            pass

    engine = Engine(Plain(), num_blocks=8)
    engine.run([[1, 2]], max_tokens=3)
    with pytest.raises(ConfigError, match=r"Plain cannot be forked: give it a method fork\(num_blocks\)"):
        engine.fork(1)
    engine.rewind(1)  # it keeps nothing: going back needs no twin
    assert engine.step().step == 1


def test_a_closed_engine_goes_nowhere():
    engine = scripted()
    run = engine.run([[1, 2]], max_tokens=3)
    engine.close()
    with pytest.raises(EngineClosedError):
        run.fork(1)
    with pytest.raises(EngineClosedError):
        run.rewind(1)


def test_the_future_of_another_run_is_not_taken_for_ones_own():
    engine = scripted()
    first = engine.run([[1] * 5], max_tokens=4)
    second = engine.run([[2] * 5], max_tokens=9)
    first.rewind(2).resume()
    engine.run([[3] * 5], max_tokens=20)
    assert len(second.trace) == 9, "a result is safe"
    with pytest.raises(TraceError, match="went another way"):
        second.fork(8)


# -- runs: pause, step, resume ------------------------------------------------------------------------------------------------


def test_a_paused_run_is_stepped_and_resumed():
    run = scripted().run([[1] * 5], max_tokens=6, paused=True)
    assert (run.status, len(run.trace), run.wait()) == ("paused", 0, False)
    assert run.step().step == 0
    assert repr(run) == "<Run paused before step 1: 1 requests, 1 steps on scripted>"
    run.resume()
    assert (run.status, len(run.trace), run.wait()) == ("finished", 6, True)


def test_stepping_a_run_to_its_end_finishes_it():
    run = scripted().run([[1] * 5], max_tokens=3, paused=True)
    for _ in range(3):
        run.step()
    assert run.status == "finished"
    with pytest.raises(RequestError, match="is over"):
        run.step()


def test_a_run_is_paused_in_mid_flight_taken_back_and_resumed():
    engine = Engine(ScriptedRunner(lambda name, position: position, max_model_len=9_000), num_blocks=4096, block_size=4)
    run = engine.run([[1] * 5], max_tokens=5_000, background=True)
    while len(run.trace) < 20:
        pass
    run.pause()
    assert run.status == "paused"
    steps = len(run.trace)
    run.rewind(10)
    assert 10 == len(run.trace) < steps
    run.resume()
    assert run.outputs[0].token_ids == tuple(range(5_000))


def test_a_running_run_is_forked_between_two_steps():
    engine = Engine(ScriptedRunner(lambda name, position: position, max_model_len=9_000), num_blocks=4096, block_size=4)
    run = engine.run([[1] * 5], max_tokens=3_000, background=True)
    while len(run.trace) < 20:
        pass
    branch = run.fork(10, edit={"r0": {"max_tokens": 30}}).resume()
    run.wait()
    assert (len(branch.outputs[0].token_ids), len(run.outputs[0].token_ids)) == (30, 3_000)


def test_a_stopped_run_goes_on_after_a_rewind():
    engine = Engine(ScriptedRunner(lambda name, position: position, max_model_len=9_000), num_blocks=4096, block_size=4)
    run = engine.run([[1] * 5], max_tokens=2_000, background=True)
    while len(run.trace) < 20:
        pass
    run.stop()
    assert run.wait()
    assert (run.status, run.outputs[0].finish_reason) == ("stopped", "abort")
    run.rewind(5).resume()
    assert (run.status, run.outputs[0].token_ids) == ("finished", tuple(range(2_000)))


def test_a_paused_run_can_be_stopped():
    run = scripted().run([[1] * 5], max_tokens=3, paused=True)
    run.step()
    run.stop()
    assert (run.status, run.outputs[0].finish_reason, run.wait()) == ("stopped", "abort", True)


def test_an_engine_whose_run_is_paused_is_free():
    engine = scripted()
    run = engine.run([[1] * 5], max_tokens=30, paused=True)
    run.step()
    assert engine.active_run is None
    engine.add_request([2] * 5, max_tokens=2)
    assert len(engine.step().scheduled) == 2
    run.resume()
    assert run.status == "finished"


def test_an_interrupt_while_steps_are_computed_again_leaves_the_engine_as_it_was():
    knobs = {"num_blocks": 6, "block_size": 2, "max_num_seqs": 2, "num_speculative_tokens": 0}
    engine = remembering(knobs, [{"prompt_token_ids": [1, 2, 3, index], "max_tokens": 4} for index in range(5)], undo_memory_bytes=0)
    straight = rest(engine)

    class Interrupted(Remembering):
        def execute(self, plan):
            if plan.step == 3:
                raise KeyboardInterrupt
            return super().execute(plan)

    engine.runner.fork = lambda num_blocks: Interrupted(num_blocks, 2)
    before = face(engine.scheduler)
    with pytest.raises(KeyboardInterrupt):
        engine.rewind(len(straight) - 2)
    assert face(engine.scheduler) == before
    assert len(engine.trace) == len(straight)
    del engine.runner.fork
    engine.rewind(len(straight) - 2)
    same(rest(engine), straight[-2:])


def test_a_step_whose_old_blocks_cannot_be_kept_fails_alone():
    knobs = {"num_blocks": 4, "block_size": 2, "max_num_seqs": 1, "enable_prefix_caching": False, "num_speculative_tokens": 0}
    engine = remembering(knobs, [{"prompt_token_ids": [1, 2, 3], "max_tokens": 3}, {"prompt_token_ids": [3, 2, 1], "max_tokens": 3}])
    for _ in range(3):
        engine.step()

    def no_memory(block_ids):
        raise MemoryError("no memory for a copy")

    engine.runner.read_blocks = no_memory
    with pytest.raises(MemoryError):
        engine.step()
    del engine.runner.read_blocks
    assert [record.sampled != () for record in rest(engine)] == [True, True, True]


def test_a_step_that_failed_is_part_of_the_past():
    knobs = {"num_blocks": 8, "block_size": 2, "num_speculative_tokens": 0}
    engine = engine_of(knobs, [{"prompt_token_ids": [1, 2, 3], "max_tokens": 5}], {2})
    engine.step()
    engine.step()
    with pytest.raises(RuntimeError):
        engine.step()
    records = rest(engine)
    twin = engine.fork(3)
    same(rest(twin), records[1:])
    assert isinstance(engine.runner, Sometimes)


@settings(max_examples=40, deadline=None)
@given(workloads(), st.data())
def test_an_engine_that_gave_its_cache_back_computes_it_again_when_it_is_needed(workload, data):
    straight = rest(remembering(*workload))
    engine = remembering(*workload)
    for _ in range(data.draw(st.integers(0, len(straight)))):
        engine.step()
    at = len(engine.trace)
    engine.park()
    engine.runner.slots = []
    if data.draw(st.booleans()):
        twin = engine.fork(at)
        same(rest(twin), straight[at:])
    same(rest(engine), straight[at:])
    if at < len(straight):
        assert str(engine.last_restored).startswith(f"back at step {at}") or at == 0


@settings(max_examples=40, deadline=None)
@given(workloads(), st.data())
def test_an_engine_is_put_behind_a_saved_trace(tmp_path_factory, workload, data):
    engine = remembering(*workload)
    straight = rest(engine)
    at = data.draw(st.integers(1, len(straight)))
    engine.rewind(at)
    loaded = load_trace(engine.trace.save(tmp_path_factory.mktemp("trace") / "x.wbt"))
    again = Engine.from_trace(loaded, Remembering(engine.runner.num_blocks, engine.config.block_size))
    assert again.last_run.status == ("paused" if again.has_unfinished else "finished")
    earlier = data.draw(st.integers(0, at))
    same(rest(again.fork(earlier)), straight[earlier:])
    same(rest(again), straight[at:])


def test_a_trace_without_steps_has_no_engine_behind_it():
    with pytest.raises(TraceError, match="has no steps"):
        Engine.from_trace(scripted().trace, ScriptedRunner())


def test_a_request_that_came_in_after_the_last_step_is_there_again():
    engine = scripted()
    engine.add_request([1] * 5, max_tokens=3)
    engine.step()
    engine.add_request([2] * 5, max_tokens=3)
    again = Engine.from_trace(engine.trace, ScriptedRunner())
    assert again.unfinished == {"r0", "r1"}
    assert [row.request_id for row in again.step().scheduled] == ["r0", "r1"]


# -- why, asked of a run -------------------------------------------------------------------------------------------------------


def crowded() -> Engine:
    return Engine(ScriptedRunner(lambda name, position: position), num_blocks=40, block_size=4, max_num_seqs=3)


PROMPTS = [[1] * 9, [2] * 14, [1] * 9 + [3], [4] * 20, [5] * 3]


def test_a_run_says_why_and_tries_what_it_suggests():
    run = crowded().run(PROMPTS, max_tokens=9)
    asked = run.why("r3", step=2)
    assert asked.sentence == "r3 was not admitted in step 2: 3 requests run and max_num_seqs is 3; it is 1st in the queue."
    tried = run.what_if(asked)
    assert tried.counterfactual == asked.counterfactuals[0]
    assert tried.branch.trace.at(2).decisions[3].num_tokens > 0
    assert "They part in step 2: r3 runs" in repr(tried)
    assert len(run.trace) == 18, "the original is as it was"


def test_a_decision_of_a_record_is_tried_in_the_first_step_that_has_it_or_in_the_one_named():
    run = crowded().run(PROMPTS, max_tokens=9)
    decision = next(decision for decision in run.trace.at(5).decisions if decision.request_id == "r4")
    assert decision in run.trace.at(0).decisions
    assert run.what_if(decision).counterfactual.step == 0
    assert run.what_if(decision, step=5).counterfactual.step == 5
    with pytest.raises(RequestError, match="is not one of this run's"):
        run.what_if(msgspec.structs.replace(decision, needed=77))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: run.what_if(run.why("r0", step=0)), "r0 ran in full in step 0: there is nothing to change"),
        (lambda run: run.what_if("r0"), "what_if takes a decision, an explanation or a counterfactual, not str"),
        (lambda run: run.why(), "why needs a request, a step, or both"),
        (lambda run: run.why("r9"), "r9"),
        (lambda run: run.why("r9", step=2), "r9"),
    ],
)
def test_a_question_without_an_answer_says_what_to_ask(ask, message):
    with pytest.raises(RequestError, match=message):
        ask(crowded().run(PROMPTS, max_tokens=9))


def test_a_run_whose_engine_is_gone_still_says_why():
    engine = crowded()
    first, second = engine.run(PROMPTS, max_tokens=9), engine.run(PROMPTS, max_tokens=9)
    told = [first.why("r3", step=2), second.why("r8", step=20)]
    engine.close()
    assert first.why("r3", step=2) == told[0]
    later = second.why("r8", step=20)
    assert (later.sentence, later.tried, told[1].tried) == (told[1].sentence, False, True), "what lacks its beginning is not run again"


def test_the_life_of_a_request_is_told_by_run_and_trace_alike():
    run = crowded().run(PROMPTS, max_tokens=9)
    assert repr(run.why("r2")) == repr(why(run.trace, "r2")) == repr(run.why(run.requests[2]))
    assert repr(run.at(5)) == repr(moment(run.trace, 5))
    assert run.prefix_story("r2").hits == 2
    assert run.definitions()["TTFT from arrival, mean"]
