"""A tape, read back, tells what the records and the moments of its trace tell."""

from __future__ import annotations

import json
import math
import threading
from contextlib import suppress
from itertools import islice

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_workloads import policy_workloads
from render_fixtures import make_trace, scripted_run, speculative_run
from tape_reader import STATES, STATUS, Tape, read_all
from test_moment import CHANGES
from test_rebuild import engine_of
from test_reuse import orders, reset, run_with_changes
from test_scheduler import workloads

from workbench import ConfigError, Engine, RequestError, Trace, load_trace
from workbench.config import EngineConfig
from workbench.events import ModelFacts, Reason, Sampled, TokenLogprobs, Verdict
from workbench.moment import moments
from workbench.moment.reuse import has_order
from workbench.prefix import extend_hashes
from workbench.rebuild import originals
from workbench.render.board import board_of, states_of
from workbench.runners.scripted import ScriptedRunner
from workbench.tape import Packer, Part, meta, snapshot
from workbench.tape.columns import NO_CODE, NO_TOKEN, NONE

EVERY_WORKLOAD = st.one_of(workloads(), policy_workloads())


def packed(trace, *limits, first_step=None):
    """All of a trace, read back from parts of these sizes."""
    packer, tape, sizes = Packer(trace, first_step), Tape(), list(limits)
    while (part := packer.pack(sizes.pop(0) if sizes else 2000)) is not None:
        tape.read(part)
    return tape


def none_or(number):
    return NONE if number is None else number


def assert_tells_the_steps(tape, records):
    assert len(tape.steps) == len(records)
    for step, record in zip(tape.steps, records, strict=True):
        timing, kv = record.timing, record.kv
        assert step["start_s"] == record.start_s
        for phase in ("plan_ms", "prepare_ms", "forward_ms", "sample_ms", "commit_ms", "draft_ms"):
            assert step[phase] == pytest.approx(getattr(timing, phase), rel=1e-6)
        assert (step["token_limit"], step["token_used"]) == (record.tokens.limit, record.tokens.used)
        assert (step["seq_limit"], step["seq_used"]) == (record.seqs.limit, record.seqs.used)
        assert (step["kv_in_use"], step["kv_cached"], step["kv_free"]) == (kv.in_use, kv.cached, kv.free)
        assert step["num_drafts"] == (NO_CODE if record.draft_choice is None else record.draft_choice.num_drafts)
        assert (step["running"], step["waiting"]) == (len(record.running), len(record.waiting))
        assert_tells_the_lanes(tape, step["lanes"], record)
        assert_tells_the_tokens(tape, step, record)
        touched = [(row["block"], row["kind"], row["request"]) for row in step["touches"]]
        kinds = ["allocated", "hit", "shared", "cached", "evicted", "freed"]
        assert [(block, kinds[kind], tape.name(who) if who >= 0 else "") for block, kind, who in touched] == [
            (event.block_id, event.kind, event.request_id) for event in record.block_events
        ]


def assert_tells_the_lanes(tape, lanes, record):
    states, decisions = states_of(record), {decision.request_id: decision for decision in record.decisions}
    rows = {row.request_id: row for row in record.scheduled}
    assert [lane["request"] for lane in lanes] == sorted({lane["request"] for lane in lanes})
    assert {tape.name(lane["request"]): STATES[lane["state"]] for lane in lanes} == states
    for lane in lanes:
        name = tape.name(lane["request"])
        decision, row = decisions.get(name), rows.get(name)
        if decision is None:
            assert (lane["verdict"], lane["reason"], lane["blocker"]) == (NO_CODE, NO_CODE, -1)
        else:
            assert (list(Verdict)[lane["verdict"]], list(Reason)[lane["reason"]]) == (decision.verdict, decision.reason)
            numbers = [lane[field] for field in ("needed", "available", "limit")]
            assert numbers == [none_or(each) for each in (decision.needed, decision.available, decision.limit)]
            assert (tape.name(lane["blocker"]) if lane["blocker"] >= 0 else None) == decision.blocker
        ran = (row.start, row.end, row.num_cached, row.num_drafts) if row else (0, 0, 0, 0)
        assert (lane["start"], lane["end"], lane["cached"], lane["drafts"]) == ran
        assert lane["sampled"] == sum(len(each.token_ids) for each in record.sampled if each.request_id == name)
        assert lane["accepted"] == next((spec.accepted for spec in record.spec if spec.request_id == name), -1)
        ending = next((end.reason for end in record.finished if end.request_id == name), None)
        assert [None, "stop", "length", "abort"][lane["finish"]] == ending


def assert_tells_the_tokens(tape, step, record):
    told = [(tape.name(row["request"]), row["id"]) for row in step["tokens"]]
    assert told == [(each.request_id, token) for each in record.sampled for token in each.token_ids]
    assert all(row["id"] in tape.vocab for row in step["tokens"])
    for spec in record.spec:
        origins = [row["origin"] for row in step["tokens"] if tape.name(row["request"]) == spec.request_id]
        whole = [1] * spec.accepted + [3 if spec.rejected_at is None else 2]
        assert origins == whole[: len(origins)]  # a stop rule may have ended it before
    verified = {spec.request_id for spec in record.spec}
    assert {row["origin"] for row in step["tokens"] if tape.name(row["request"]) not in verified} <= {0}
    rounds = [(tape.name(row["request"]), row["proposed"], row["accepted"], row["emitted"]) for row in step["rounds"]]
    assert rounds == [(spec.request_id, spec.proposed, spec.accepted, spec.emitted) for spec in record.spec]
    for row, spec in zip(step["rounds"], record.spec, strict=True):
        assert (row["draft_ms"], row["verify_ms"]) == pytest.approx((spec.draft_ms, spec.verify_ms), rel=1e-6)
    assert len(step["drafts"]) == sum(spec.proposed for spec in record.spec)


def assert_tells_the_blocks(tape, trace, first_step=0):
    for seen in moments(trace):
        if seen.step < first_step:
            continue
        position = seen.step - max(first_step, trace.first_step)
        told = tape.blocks(position)
        assert set(told) == {block.block_id for block in seen.blocks}
        for block in seen.blocks:
            cell = told[block.block_id]
            assert (STATUS[cell["status"]], tape.owners(cell), tape.hash(cell)) == (block.status, block.owners, block.hash)
        assert tape.steps[position]["wasted"] == none_or(seen.wasted_slots)


def assert_blocks_hold_the_tokens_that_they_are_said_to(tape, trace, first_step=0):
    """The hash of a block is that of the tokens up to its end, of the request whose tokens it is said to hold."""
    size, known = trace.config.block_size, {name: list(request.prompt_token_ids) for name, request in originals(trace).items()}
    for seen, record in zip(moments(trace), trace.records, strict=True):
        for command in record.commands:
            if command.restarts:
                known[command.request_id] = list(command.after["prompt_token_ids"])
        position = seen.step - max(first_step, trace.first_step)
        tables = {one.request_id: one.block_ids for one in seen.requests}
        for block_id, cell in tape.blocks(position).items() if position >= 0 else ():
            if cell["content"] < 0:
                assert STATUS[cell["status"]] != "in use" or "?" in tape.owners(cell)
                continue
            name, digest = tape.name(cell["content"]), tape.hash(cell)
            if digest and name in known:
                hashes = []
                extend_hashes(hashes, known[name][: (cell["index"] + 1) * size], size)
                assert hashes[cell["index"]][:8].hex() == digest
            elif not digest:  # the cache may have forgotten it after another request took it over from one that is gone
                holders = [name, *tape.owners(cell)]
                assert any(block_id in tables.get(each, ())[cell["index"] :][:1] for each in holders)
        for sampled in record.sampled:
            known.setdefault(sampled.request_id, []).extend(sampled.token_ids)


def assert_tells_the_happenings(tape, records):
    def of(kind, *fields):
        return [(event["step"], *(event[field] for field in fields)) for event in tape.events if event["kind"] == kind]

    numbers = {name: place for place, name in enumerate(each["id"] for each in tape.requests)}
    assert of("arrived", "request", "at_s") == [(r.step, numbers[a.request_id], a.arrival_s) for r in records for a in r.arrived]
    assert of("finished", "request", "reason") == [(r.step, numbers[e.request_id], e.reason) for r in records for e in r.finished]
    assert of("preempted", "request") == [(r.step, numbers[name]) for r in records for name in r.preempted]
    commands = [command for record in records for command in record.commands]
    assert [prompt for _, prompt in of("restart", "prompt")] == [list(c.after["prompt_token_ids"]) for c in commands if c.restarts]
    assert len(of("command", "text")) == sum(len(c.after) if c.kind == "knobs" else 1 for c in commands if c.kind != "add")
    assert [event["step"] for event in tape.events] == sorted(event["step"] for event in tape.events)


def assert_tells_all(tape, trace, first_step=0):
    records = [record for record in trace.records if record.step >= first_step]
    assert_tells_the_steps(tape, records)
    assert_tells_the_blocks(tape, trace, first_step)


A_CHANGE = st.sampled_from([*CHANGES, reset(False), reset(True)])


@settings(max_examples=100, deadline=None)
@given(EVERY_WORKLOAD, st.lists(st.integers(1, 9), max_size=9))
def test_a_tape_tells_every_step_and_every_block_under_every_policy(workload, limits):
    trace = run_with_changes(workload, {})
    tape = packed(trace, *limits)
    assert_tells_all(tape, trace)
    assert_blocks_hold_the_tokens_that_they_are_said_to(tape, trace)
    assert_tells_the_happenings(tape, trace.records)


@settings(max_examples=100, deadline=None)
@given(
    EVERY_WORKLOAD,
    st.dictionaries(st.integers(0, 25), st.lists(A_CHANGE, max_size=3), max_size=6),
    st.sets(st.integers(0, 25), max_size=2),
)
def test_it_does_so_whatever_is_done_to_the_engine(workload, changes, fails):
    trace = run_with_changes(workload, changes, fails)
    tape = packed(trace, 7)
    assert_tells_all(tape, trace)
    assert_blocks_hold_the_tokens_that_they_are_said_to(tape, trace)
    assert_tells_the_happenings(tape, trace.records)
    found = [planned for planned, _ in islice(orders(trace), 0, None, 2)] if has_order(trace) else []
    for position in range(len(trace)):
        assert tape.queue(position) == (found[position] if position < len(found) else ())


# -- tapes that grow, are taken back, and are joined late --------------------------------------------------------------


def step(engine):
    try:
        engine.step()
    except RuntimeError:
        engine.step()


def add(engine, prompt, max_tokens):
    try:
        engine.add_request({"prompt_token_ids": prompt, "max_tokens": max_tokens})
    except RequestError:
        return


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("pack"), st.integers(1, 8)),
        st.tuples(st.just("rewind"), st.floats(0, 1)),
        st.tuples(st.just("change"), A_CHANGE),
        st.tuples(st.just("add"), st.lists(st.integers(0, 3), min_size=1, max_size=20)),
        st.tuples(st.just("join"), st.integers(1, 30)),
    ),
    max_size=30,
)


def act(engine, kind, value):
    if kind == "step":
        for _ in range(value):
            step(engine)
    elif kind == "rewind":
        engine.rewind(round(value * engine.scheduler.step))
    elif kind == "add":
        add(engine, value, 5)
    elif kind == "change":
        with suppress(ConfigError, RequestError):
            value(engine)


@settings(max_examples=150, deadline=None)
@given(EVERY_WORKLOAD, ACTIONS, st.sets(st.integers(0, 25), max_size=2))
def test_receivers_who_join_at_any_time_agree_while_the_run_grows_and_is_taken_back(workload, actions, fails):
    engine = engine_of(*workload, fails)
    packer, receivers = Packer(engine.trace), [Tape()]

    def pack(limit):
        part = packer.pack(limit)
        for tape in receivers if part is not None else ():
            tape.read(part)
        return part is not None

    for kind, value in [*actions, ("step", 3)]:
        if kind == "pack":
            pack(value)
        elif kind == "join":
            receivers.append(read_all(*packer.parts_from_start(value)))
        else:
            act(engine, kind, value)
    while pack(5):
        pass
    assert packer.pack() is None
    for tape in receivers:
        assert_tells_all(tape, engine.trace)
        assert repr(tape.__dict__) == repr(receivers[0].__dict__)  # a NaN equals nothing
    assert_blocks_hold_the_tokens_that_they_are_said_to(receivers[0], engine.trace)
    fresh = packed(engine.trace)
    assert [plain(fresh, each) for each in range(len(fresh.steps))] == [plain(receivers[0], each) for each in range(len(fresh.steps))]


def plain(tape, position):
    """A position without the numbers of things, which depend on what a packer saw before."""
    lanes = [{**lane, "request": tape.requests[lane["request"]], "blocker": 0} for lane in tape.steps[position]["lanes"]]
    blocks = tape.blocks(position)
    cells = {block: (tape.owners(cell), tape.hash(cell), cell["status"], cell["index"]) for block, cell in blocks.items()}
    return sorted(lanes, key=lambda lane: lane["request"]["id"]), cells, tape.queue(position)


def test_a_thread_may_append_while_another_packs():
    whole = scripted_run([list(range(9 + i)) for i in range(6)], num_blocks=20, block_size=4, max_num_seqs=4, max_tokens=60).trace
    growing = Trace(whole.config, whole.model, whole.requests.values())
    packer, tape = Packer(growing), Tape()

    def run():
        for record in whole.records:
            growing.append(record)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() or len(tape.steps) < len(whole):
        part = packer.pack(limit=50)
        if part is not None:
            tape.read(part)
    thread.join()
    assert_tells_all(tape, whole)


def test_a_thread_may_take_steps_back_while_another_packs():
    engine = Engine(ScriptedRunner(lambda name, position: position % 50), num_blocks=20, block_size=4, max_num_seqs=4)
    for i in range(6):
        engine.add_request(list(range(9 + i)), max_tokens=60)
    packer, tape = Packer(engine.trace), Tape()

    def run():
        for back in (0.9, 0.5, 0.2, 0.95, 0.4):
            for _ in range(60):
                engine.step()
            engine.rewind(round(back * engine.scheduler.step))
            engine.change(max_num_seqs=4 + round(4 * back))
        for _ in range(20):
            engine.step()

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        part = packer.pack(limit=7)
        if part is not None:
            tape.read(part)
    thread.join()
    while (part := packer.pack()) is not None:
        tape.read(part)
    assert_tells_all(tape, engine.trace)


def test_the_same_id_means_another_request_after_going_back():
    engine = Engine(ScriptedRunner(), num_blocks=8, block_size=4)
    packer, tape = Packer(engine.trace), Tape()
    engine.add_request([1, 2, 3], max_tokens=9)
    engine.step()
    engine.step()
    engine.add_request([4, 5, 6], max_tokens=3)
    engine.step()
    tape.read(packer.pack())
    engine.rewind(1)
    tape.read(packer.pack())
    assert len(tape.steps) == 1
    engine.add_request([7, 8], max_tokens=2)
    engine.step()
    tape.read(packer.pack())
    assert [(each["id"], each["prompt"]) for each in tape.requests] == [("r0", [1, 2, 3]), ("r1", [4, 5, 6]), ("r1", [7, 8])]
    assert [lane["request"] for lane in tape.steps[1]["lanes"]] == [0, 2]


def test_nothing_new_is_no_part_and_a_run_taken_back_is_one_without_steps():
    engine = Engine(ScriptedRunner(), num_blocks=8, block_size=4)
    packer = Packer(engine.trace)
    assert packer.pack() is None
    engine.add_request([1, 2, 3], max_tokens=9)
    assert packer.pack() is None
    for _ in range(4):
        engine.step()
    assert (packer.pack(3).header["count"], packer.pack(3).header["count"], packer.pack(3)) == (3, 1, None)
    engine.rewind(2)
    part = packer.pack()
    assert (part.header["at"], part.header["count"], part.header["events"]) == (2, 0, [])
    assert packer.pack() is None


def test_steps_from_a_given_end_on_are_not_packed():
    trace = scripted_run([[1, 2, 3]], max_tokens=9).trace
    packer = Packer(trace)
    assert packer.pack(end_step=4).header["count"] == 4
    assert packer.pack(end_step=4) is None
    assert packer.pack(limit=2, end_step=8).header["count"] == 2


# -- beginnings --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(EVERY_WORKLOAD, st.floats(0, 1))
def test_steps_before_the_first_are_hidden_but_their_blocks_are_followed(workload, share):
    trace = run_with_changes(workload, {})
    first = round(share * (len(trace) - 1))
    tape = packed(trace, 3, first_step=first)
    assert_tells_all(tape, trace, first)
    assert_blocks_hold_the_tokens_that_they_are_said_to(tape, trace, first)


@settings(max_examples=40, deadline=None)
@given(EVERY_WORKLOAD, st.floats(0, 1))
def test_a_trace_without_its_beginning_says_what_is_unknown(workload, share):
    trace = run_with_changes(workload, {})
    cut = trace[round(share * (len(trace) - 1)) :]
    tape = packed(cut, 3)
    assert_tells_all(tape, cut)
    assert has_order(cut) or not any(cell["order"] != NONE for step in tape.steps for cell in step["cells"])


def test_a_second_run_of_an_engine_begins_with_what_the_first_left():
    with Engine(ScriptedRunner(), num_blocks=16, block_size=4) as engine:
        engine.run([list(range(9)), [7, 7]], max_tokens=3)
        run = engine.run([list(range(9))], max_tokens=3)
        packer, tape = Packer(engine.trace, run.first_step), Tape()
        tape.read(packer.pack())
    assert len(tape.steps) == len(run.trace)
    assert [each["id"] for each in tape.requests] == ["r2", "r0", "r1"]  # its own, and those whose blocks are still cached
    assert tape.name(tape.blocks(0)[1]["content"]) == "r0"
    assert tape.owners(tape.blocks(0)[1]) == ("r2",)


def test_a_run_that_has_not_begun_on_a_used_engine_has_no_part():
    with Engine(ScriptedRunner(), num_blocks=16, block_size=4) as engine:
        engine.run([[1, 2, 3]], max_tokens=3)
        run = engine.run([[4, 5]], max_tokens=2, paused=True)
        packer = Packer(engine.trace, run.first_step)
        assert packer.pack() is None
        run.step()
        assert packer.pack().header["at"] == 0
        run.stop()


# -- what comes out ----------------------------------------------------------------------------------------------------


class Watched(ScriptedRunner):
    """Notes the drafts that it is given, by step."""

    def execute(self, plan):
        self.given = {**getattr(self, "given", {}), plan.step: [row.draft_token_ids for row in plan.rows if row.samples]}
        return super().execute(plan)


def guess(name, known):
    return [(len(known) + i + len(known) // 5) % 4 for i in range(3)]


@pytest.mark.parametrize("num_blocks", [6, 9, 40])
def test_drafts_are_those_that_were_verified(num_blocks):
    runner = Watched(lambda name, position: position % 4, drafts=guess)
    with Engine(runner, num_blocks=num_blocks, block_size=4, num_speculative_tokens=3, max_num_batched_tokens=18, max_num_seqs=4) as engine:
        trace = engine.run([[1, 2, 3], [1, 2], [3], [2, 2, 2]], max_tokens=16).trace
    told, given = [], []
    for step in packed(trace).steps:
        told.append([draft["id"] for draft in step["drafts"]])
    for record in trace.records:
        given.append([NO_TOKEN if token < 0 else token for drafts in runner.given[record.step] for token in drafts])
    assert told == given
    assert any(told)
    assert num_blocks > 6 or any(record.preempted for record in trace.records)


def test_times_and_choices_of_drafting_are_told():
    trace = speculative_run().trace
    tape = packed(trace)
    assert_tells_the_steps(tape, trace.records)
    assert [step["num_drafts"] for step in tape.steps] == [0, 0, 0, 0, 4, NO_CODE]
    assert [(row["draft_ms"], row["verify_ms"]) for step in tape.steps for row in step["rounds"]] == [(10, 30)] * 2
    assert meta(trace, 0)["speculation"] == "eagle, auto, at most 6 drafts"
    assert meta(make_trace(1), 0)["speculation"] == ""


def test_alternatives_and_log_probabilities_belong_to_their_tokens():
    trace = scripted_run([[1, 2, 3]], max_tokens=2).trace
    scores = TokenLogprobs(5, -0.5, 2, (4, 5), (-0.25, -0.5))
    record = msgspec.structs.replace(trace[0], sampled=(Sampled("r0", (5, 6), "", (scores,)),))
    tape = packed(Trace(trace.config, trace.model, trace.requests.values(), [record]))
    first, second = tape.steps[0]["tokens"]
    assert (first["logprob"], first["rank"], first["tops"]) == (-0.5, 2, 2)
    assert (second["rank"], second["tops"], math.isnan(second["logprob"])) == (0, 0, True)
    assert [(top["id"], top["logprob"]) for top in tape.steps[0]["tops"]] == [(4, -0.25), (5, -0.5)]
    assert {4, 5, 6} <= set(tape.vocab)


def test_texts_come_from_the_trace_then_from_the_tokenizer_then_from_the_id():
    trace = scripted_run([[1, 2, 3]], max_tokens=2).trace
    trace.token_texts = {1: "one"}
    assert packed(trace).vocab[1] == "one"
    assert packed(trace).vocab[2] == "⟨2⟩"
    packer = Packer(trace, text_of=lambda token: f"<{token}>")
    assert read_all(packer.pack()).vocab == {0: "<0>", 1: "one", 2: "<2>", 3: "<3>"}


def test_a_number_too_large_for_its_column_becomes_the_largest():
    run = scripted_run([[1, 2, 3]], max_tokens=2, max_num_batched_tokens=2**40)
    assert packed(run.trace).steps[0]["token_limit"] == 2**32 - 1


def test_a_command_is_told_in_the_words_of_the_explanation():
    engine = Engine(ScriptedRunner(), num_blocks=8, block_size=4)
    engine.add_request([1, 2, 3], max_tokens=9)
    engine.step()
    engine.change(max_num_seqs=4, max_num_batched_tokens=64)
    engine.step()
    assert [event["text"] for event in packed(engine.trace).events if event["kind"] == "command"] == [
        "max_num_seqs went from 16 to 4 before the step.",
        "max_num_batched_tokens went from 256 to 64 before the step.",
    ]


# -- a whole frame -----------------------------------------------------------------------------------------------------


def test_a_snapshot_is_json_and_buffers_that_hold_the_whole_trace(tmp_path):
    run = scripted_run([list(range(9)), [1, 2], [3, 4, 5]], num_blocks=8, block_size=4, max_num_seqs=2, max_tokens=9)
    frame, buffers = snapshot(load_trace(run.save(tmp_path / "x.wbt")), name="x", limit=5)
    frame = json.loads(json.dumps(frame))
    assert [part["tape"]["buffer"] for part in frame["parts"]] == list(range(len(buffers)))
    assert sum(part["tape"]["count"] for part in frame["parts"]) == len(run.trace)
    assert all(len(buffer) % 8 == 0 for buffer in buffers)
    assert_tells_all(read_all(*(Part(part["tape"], buffers[part["tape"]["buffer"]]) for part in frame["parts"])), run.trace)
    assert frame["runs"][0]["name"] == "x"


def test_an_empty_trace_is_a_frame_without_steps():
    frame, buffers = snapshot(Trace(EngineConfig(), ModelFacts(name="x")))
    assert buffers == []
    assert [("tape" in part, part["status"]["state"]) for part in frame["parts"]] == [(False, "finished")]
    assert Packer(Trace(EngineConfig(), ModelFacts(name="x"))).parts_from_start()[0].header["count"] == 0


def test_meta_names_every_code_and_every_knob_with_its_value():
    trace = scripted_run([[1, 2, 3]], max_tokens=2, max_num_seqs=7).trace
    told = json.loads(json.dumps(meta(trace, 0)))
    assert told["reasons"] == [reason.value for reason in Reason]
    assert told["reason_words"].keys() == set(told["reasons"])
    knobs = {knob["name"]: knob for knob in told["knobs"]}
    assert knobs.keys() == set(EngineConfig.__struct_fields__)
    assert (knobs["max_num_seqs"]["value"], knobs["max_num_seqs"]["type"], knobs["max_num_seqs"]["live"]) == (7, "int", True)
    assert knobs["policy"]["choices"][0] == "fcfs"
    assert told["config"]["block_size"] == told["block_size"] == 16
    assert told["has_order"]


@pytest.mark.parametrize("reason", list(Reason))
def test_the_words_for_a_reason_need_no_more_than_the_four_numbers(reason):
    words = meta(scripted_run([[1]], max_tokens=1).trace, 0)["reason_words"][reason.value]
    assert "{" not in words.format(needed=2, available=1, limit=3, blocker="r0")


def test_an_imitated_trace_that_contradicts_itself_is_packed_all_the_same():
    trace = make_trace(5, drafts_from=9)
    tape = packed(trace, 11)
    assert_tells_the_steps(tape, trace.records)
    board = board_of(trace)
    for lane in board.lanes:
        told = [{tape.name(row["request"]): STATES[row["state"]] for row in step["lanes"]}.get(lane.request_id, "") for step in tape.steps]
        assert told == lane.kinds
