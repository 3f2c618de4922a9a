"""Traces: slices, files that round-trip or refuse, and the Perfetto export."""

import gc
import itertools
import json
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import _tracefile
from workbench.config import EngineConfig
from workbench.errors import TraceError
from workbench.events import (
    TRACE_VERSION,
    Arrival,
    BlockEvent,
    Budget,
    Decision,
    Finished,
    KvUsage,
    ModelFacts,
    Reason,
    Sampled,
    Scheduled,
    SpecRound,
    StepRecord,
    StepTiming,
    TokenLogprobs,
    Verdict,
)
from workbench.metrics import measure
from workbench.request import Request, SamplingParams
from workbench.trace import Trace, load_trace


def record(step, start_s=None, ms=10.0, **fields):
    timing = StepTiming(ms * 0.1, 0.0, ms * 0.7, ms * 0.1, ms * 0.1)
    usage = KvUsage(3, 1, 4)
    return StepRecord(step, step * 0.02 if start_s is None else start_s, timing, Budget(64, 5), Budget(4, 1), usage, usage, **fields)


def full_trace():
    requests = [
        Request(
            id="r0",
            prompt_token_ids=(5, 6, 7),
            prompt="Grüße <b>",
            sampling=SamplingParams(stop=("\n",), logit_bias={3: -1.5}, seed=9),
            eos_token_ids=(2,),
            bad_words_ids=((1, 2), (3,)),
        ),
        Request(id="r1", prompt_token_ids=(1,), arrival_step=3, priority=-1, parent="p", index=1),
    ]
    records = [
        record(
            4,
            scheduled=(Scheduled("r0", "prefill", 0, 3, 1), Scheduled("r1", "verify", 4, 7, 0, 2)),
            decisions=(
                Decision("r0", Verdict.SCHEDULED, Reason.FULL, 3),
                Decision("r1", Verdict.DEFERRED, Reason.NO_FREE_BLOCKS, 0, 7, 5, 8, "r0"),
            ),
            block_events=(BlockEvent("cached", 1, "r0", "ab12"),),
            sampled=(Sampled("r0", (11, 12), "é", (TokenLogprobs(11, -0.5, 1, (11, 3), (-0.5, -2.0)),)),),
            spec=(SpecRound("r1", 2, 1, 2, 1),),
            arrived=(Arrival("r0", 0.01),),
            running=("r0", "r1"),
        ),
        record(
            5,
            sampled=(Sampled("r0", (13,), "!"),),
            finished=(Finished("r0", "stop", "\n"),),
            preempted=("r1",),
            held=("r0",),
            waiting=("r1",),
        ),
        record(6, resumed=("r1",), finished=(Finished("r1", "abort"),)),
    ]
    config = EngineConfig(max_num_seqs=4, num_blocks=8, batching="static")
    return Trace(config, ModelFacts(name="tiny", vocab_size=20), requests, records, "reconstructed", {11: "é", 13: "!"})


@pytest.fixture
def saved(tmp_path):
    return full_trace().save(tmp_path / "run.wbt")


# In memory


def test_positions_count_from_zero_and_steps_by_their_number():
    trace = full_trace()
    assert (trace[0].step, trace[-1].step, trace.at(5).step, trace.first_step, len(trace)) == (4, 6, 5, 4, 3)
    assert [entry.step for entry in trace] == [4, 5, 6]


@pytest.mark.parametrize("step", [3, 7, -1])
def test_a_step_that_is_not_there_names_those_that_are(step):
    with pytest.raises(IndexError, match="it has steps 4 to 6"):
        full_trace().at(step)


def test_a_slice_is_a_trace_that_shares_nothing_that_grows():
    trace = full_trace()
    part = trace[1:]
    part.append(record(7))
    part.add_request(Request(id="new", prompt_token_ids=(1,)))
    assert (len(trace), len(part), part.first_step, part.fidelity) == (3, 3, 5, "reconstructed")
    assert "new" not in trace.requests


def test_a_slice_with_a_stride_is_refused():
    with pytest.raises(ValueError, match="consecutive"):
        full_trace()[::2]


def test_texts_join_what_each_step_completed():
    assert full_trace().texts() == {"r0": "é!", "r1": ""}


def test_a_trace_opens_where_torch_is_not_installed(saved):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['numpy'] = None\n"
        "from workbench.trace import load_trace; from workbench.metrics import measure\n"
        f"trace = load_trace({str(saved)!r}); measure(trace); print(trace.steps); trace.to_perfetto({str(saved)!r} + '.json')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "3 steps" in result.stdout


# Files


def test_a_saved_trace_loads_equal(saved):
    assert load_trace(saved) == full_trace()


def test_an_empty_trace_loads_equal(tmp_path):
    trace = Trace(EngineConfig(), ModelFacts(name=""))
    assert load_trace(trace.save(tmp_path / "empty.wbt")) == trace


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
small = st.integers(-(2**31), 2**31)
numbers = st.floats(allow_nan=False)


def some(struct, **fields):
    return st.lists(st.builds(struct, **fields), max_size=3).map(tuple)


records = st.builds(
    StepRecord,
    step=small,
    start_s=numbers,
    timing=st.builds(StepTiming, numbers, numbers, numbers, numbers, numbers),
    tokens=st.builds(Budget, small, small),
    seqs=st.builds(Budget, small, small),
    kv=st.builds(KvUsage, small, small, small),
    kv_after=st.builds(KvUsage, small, small, small),
    scheduled=some(
        Scheduled, request_id=names, kind=st.sampled_from(["prefill", "decode", "verify"]), start=small, end=small, num_cached=small
    ),
    decisions=some(Decision, request_id=names, verdict=st.sampled_from(Verdict), reason=st.sampled_from(Reason), needed=st.none() | small),
    sampled=some(Sampled, request_id=names, token_ids=st.lists(small, max_size=4).map(tuple), text=names),
    finished=some(Finished, request_id=names, reason=st.sampled_from(["stop", "length", "abort"]), stop_reason=st.none() | small | names),
    running=st.lists(names, max_size=3).map(tuple),
)
biases = st.dictionaries(small, st.floats(-100, 100))
requests = st.builds(
    Request,
    id=names,
    prompt_token_ids=st.lists(st.integers(0, 10**6), max_size=5).map(tuple),
    prompt=st.none() | names,
    sampling=st.builds(
        SamplingParams,
        seed=st.none() | small,
        temperature=st.floats(0, 100),
        logit_bias=st.none() | st.dictionaries(small, st.floats(-100, 100)),
    ),
    arrival_s=st.none() | numbers,
    priority=small,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(records, max_size=3), requests=st.lists(requests, max_size=3), texts=st.dictionaries(small, names))
def test_any_trace_comes_back_as_it_was(tmp_path, records, requests, texts):
    trace = Trace(EngineConfig(seed=3), ModelFacts(name="m"), requests, records, "sampled", texts)
    assert load_trace(trace.save(tmp_path / "any.wbt")) == trace


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_corrupt_file_is_a_trace_error_and_never_another_trace(tmp_path, saved, data):
    good = saved.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    junk = data.draw(st.binary(min_size=1, max_size=20))
    bad = {
        "flip": good[:place] + bytes([good[place] ^ junk[0] or good[place] ^ 1]) + good[place + 1 :],
        "cut": good[:place],
        "insert": good[:place] + junk + good[place:],
        "append": good + junk,
    }[damage]
    path = tmp_path / "bad.wbt"
    path.write_bytes(bad)
    if bad != good:
        with pytest.raises(TraceError):
            load_trace(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_a_body_of_any_bytes_under_a_right_checksum_is_a_trace_error(tmp_path, body):
    with pytest.raises(TraceError, match="corrupt"):
        load_trace(forged(tmp_path, body))


def forged(folder, body, *, version=TRACE_VERSION, claims=None, packed=None):
    """A file whose checksum is right, whatever it holds."""
    packed = zlib.compress(body) if packed is None else packed
    head = struct.pack(">8sHQQ", _tracefile.MAGIC, version, len(body) if claims is None else claims, len(packed))
    path = folder / "forged.wbt"
    path.write_bytes(head + _tracefile._digest(head, packed) + packed)
    return path


def test_a_file_from_before_drafting_was_recorded_reads_with_nothing_proposed(tmp_path, saved):
    """Fields are only ever appended: a file of before ends each record after ``proposed``, each timing after ``commit_ms``."""
    body = msgspec.msgpack.decode(_tracefile._unpack(saved.read_bytes()))
    del body[0]["speculative"], body[0]["num_speculative_tokens"]
    names = StepRecord.__struct_fields__
    timing, rounds, choice = names.index("timing"), names.index("spec"), names.index("draft_choice")
    for record in body[5]:
        del record[choice:]
        del record[timing][5:]
        for spec in record[rounds]:
            del spec[5:]
    old = load_trace(forged(tmp_path, msgspec.msgpack.encode(body)))
    assert list(old) == list(full_trace())
    assert [(one.timing.draft_ms, one.draft_choice, one.draft_problem) for one in old] == [(0.0, None, "")] * 3
    assert old[0].spec == (SpecRound("r1", 2, 1, 2, 1, 0.0, 0.0),)
    assert measure(old).draft_ms == 0.0


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "not a trace"), (b"PK\x03\x04 zip", "not a trace"), (_tracefile.MAGIC, "cut short: 8 bytes")]
)
def test_a_foreign_or_headless_file_says_so(tmp_path, content, message):
    path = tmp_path / "x.wbt"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message):
        load_trace(path)


def test_a_truncated_file_says_how_much_is_missing(saved):
    size = saved.stat().st_size - _tracefile._BODY_AT  # of what follows the header
    saved.write_bytes(saved.read_bytes()[:-7])
    with pytest.raises(TraceError, match=f"run.wbt: cut short: {size - 7:,} of {size:,} bytes"):
        load_trace(saved)


def test_a_missing_file_and_a_folder_are_trace_errors(tmp_path):
    with pytest.raises(TraceError, match=r"cannot read .*No such file"):
        load_trace(tmp_path / "none.wbt")
    with pytest.raises(TraceError, match="cannot read"):
        load_trace(tmp_path)


def test_a_newer_version_asks_for_an_upgrade_before_anything_else_is_read(tmp_path):
    with pytest.raises(TraceError, match=f"version {TRACE_VERSION + 1} is newer than version {TRACE_VERSION}.*upgrade"):
        load_trace(forged(tmp_path, b"a format of the future", version=TRACE_VERSION + 1))


def test_version_zero_never_existed(tmp_path):
    with pytest.raises(TraceError, match="version 0"):
        load_trace(forged(tmp_path, b"", version=0))


@pytest.mark.parametrize("claims", [10, 2**40])
def test_a_small_file_cannot_unfold_into_a_huge_one(tmp_path, claims):
    path = forged(tmp_path, b"", packed=zlib.compress(b"\0" * 5_000_000, 9), claims=claims)
    tracemalloc.start()
    try:
        with pytest.raises(TraceError, match=r"corrupt|refused"):
            load_trace(path)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("header", [b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 100_000])
def test_lengths_inside_the_body_are_not_believed(tmp_path, header):
    body = msgspec.msgpack.encode([{}, {"name": "m"}, "exact", [], {}])[1:]
    with pytest.raises(TraceError, match="corrupt"):
        load_trace(forged(tmp_path, b"\x96" + body + header + b"\x01" * 50))


def test_settings_in_a_file_are_checked_like_typed_ones(tmp_path):
    body = msgspec.msgpack.encode([{"max_num_seqs": -1}, {"name": "m"}, "exact", [], {}, []])
    with pytest.raises(TraceError, match="max_num_seqs must be at least 1"):
        load_trace(forged(tmp_path, body))


def test_a_knob_that_a_later_version_added_is_passed_over(tmp_path):
    body = msgspec.msgpack.encode([{"num_blocks": 9, "knob_of_2031": 1}, {"name": "m"}, "exact", [], {}, []])
    assert load_trace(forged(tmp_path, body)).config.num_blocks == 9


def test_the_form_of_a_request_in_a_file_has_every_field_of_a_request():
    assert _tracefile._Request.__struct_fields__ == Request.__struct_fields__


def test_loading_leaves_the_collector_as_it_was(saved):
    load_trace(saved)
    assert gc.isenabled()
    gc.disable()
    try:
        load_trace(saved)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_saving_replaces_an_old_file_whole_and_leaves_nothing_beside_it(tmp_path, saved):
    Trace(EngineConfig(), ModelFacts(name="second")).save(saved)
    assert load_trace(saved).model.name == "second"
    assert list(tmp_path.iterdir()) == [saved]


def test_a_failed_save_keeps_the_old_file(saved, monkeypatch):
    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_tracefile.os, "replace", full_disk)
    with pytest.raises(TraceError, match=r"cannot write .*No space left"):
        Trace(EngineConfig(), ModelFacts(name="second")).save(saved)
    assert load_trace(saved) == full_trace()
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_into_a_folder_that_is_not_there_is_a_trace_error(tmp_path):
    with pytest.raises(TraceError, match=r"cannot write .*No such file"):
        full_trace().save(tmp_path / "no" / "run.wbt")


def test_text_that_no_file_can_hold_is_a_trace_error(tmp_path):
    trace = Trace(EngineConfig(), ModelFacts(name="m"), [Request(id="r0", prompt_token_ids=(1,), prompt="\ud800")])
    with pytest.raises(TraceError, match="cannot save"):
        trace.save(tmp_path / "x.wbt")


def test_a_thousand_full_steps_are_small(tmp_path):
    """A tenth of what benchmarks/trace_size.py measures: 16 rows, decisions and tokens in every step."""
    steps = []
    for step in range(1000):
        rows = tuple(Scheduled(f"r{i}", "decode", 60 + step, 61 + step) for i in range(16))
        decisions = tuple(Decision(f"r{i}", Verdict.SCHEDULED, Reason.FULL, 1) for i in range(16))
        sampled = tuple(Sampled(f"r{i}", (hash((step, i)) % 49_152,), f" w{hash((step, i)) % 997}") for i in range(16))
        steps.append(record(step, ms=10 + step % 7 / 3, scheduled=rows, decisions=decisions, sampled=sampled))
    path = Trace(EngineConfig(), ModelFacts(name="m"), (), steps).save(tmp_path / "long.wbt")
    assert path.stat().st_size < 500_000


# Perfetto


def events_of(trace, tmp_path):
    return json.loads(trace.to_perfetto(tmp_path / "p.json").read_text())["traceEvents"]


def test_perfetto_slices_of_one_track_never_overlap(tmp_path):
    hasty = [record(step, start_s=step * 0.0004, ms=0.7, scheduled=(Scheduled("r0", "decode", step, step + 1),)) for step in range(50)]
    ends = {}
    for event in events_of(Trace(EngineConfig(), ModelFacts(name="m"), (), hasty), tmp_path):
        if event["ph"] == "X":
            assert event["ts"] >= ends.get(event["tid"], 0)
            assert event["dur"] > 0
            ends[event["tid"]] = event["ts"] + event["dur"]
    assert len(ends) == 3


def test_proposing_drafts_is_a_phase_of_its_own_in_perfetto(tmp_path):
    made = msgspec.structs.replace(record(0), timing=StepTiming(1.0, 0, 20.0, 2.0, 0.5, 4.0))
    events = events_of(Trace(EngineConfig(), ModelFacts(name="m"), (), [made]), tmp_path)
    phases = [(event["name"], event["ts"], event["dur"]) for event in events if event["ph"] == "X" and event["tid"] == 2]
    start = round(made.start_s * 1e6)
    assert [(name, at - start, length) for name, at, length in phases] == [
        ("plan", 0, 1000), ("forward", 1000, 20000), ("sample", 21000, 2000), ("draft", 23000, 4000), ("commit", 27000, 500),
    ]  # fmt: skip


def test_perfetto_times_are_whole_microseconds(tmp_path):
    for event in events_of(full_trace(), tmp_path):
        assert isinstance(event.get("ts", 0), int)
        assert isinstance(event.get("dur", 0), int)


def test_perfetto_has_a_named_track_for_each_request_and_counters_for_blocks_and_tokens(tmp_path):
    events = events_of(full_trace(), tmp_path)
    tracks = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    assert list(tracks) == ["steps", "phases", "r0", "r1"]
    assert len(set(tracks.values())) == 4
    assert {event["name"] for event in events if event["ph"] == "C"} == {"KV blocks", "tokens", "requests"}
    first = next(event for event in events if event["name"] == "KV blocks")
    assert first["args"] == {"in_use": 3, "cached": 1, "free": 4}
    assert {(event["name"], event["tid"]) for event in events if event["ph"] == "i"} == {
        ("arrived", tracks["r0"]),
        ("finished", tracks["r0"]),
        ("preempted", tracks["r1"]),
        ("finished", tracks["r1"]),
    }


def test_perfetto_of_an_empty_trace_is_valid(tmp_path):
    events = events_of(Trace(EngineConfig(), ModelFacts(name="m")), tmp_path)
    assert {event["ph"] for event in events} == {"M"}


def test_a_trace_can_be_read_while_another_thread_adds_to_it():
    trace = full_trace()
    stop = threading.Event()

    def add():
        for number in itertools.count(100):
            if stop.is_set():
                return
            trace.add_request(Request(id=f"r{number}", prompt_token_ids=(1,)))
            trace.append(record(number))
            if len(trace) > 2_000:
                stop.wait()

    writer = threading.Thread(target=add)
    writer.start()
    try:
        for _ in range(30):
            assert measure(trace).num_steps >= 3
            assert len(trace[:]) >= 3
            assert trace.texts()["r0"] == "é!"
    finally:
        stop.set()
        writer.join()
