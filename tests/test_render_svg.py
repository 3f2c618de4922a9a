from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
from render_fixtures import ONERROR, SCRIPT, make_trace, scripted_run, speculative_run

from workbench.config import EngineConfig
from workbench.events import Budget, KvUsage, ModelFacts, StepRecord, StepTiming
from workbench.render.svg import kv_svg, picture_svg, timeline_svg
from workbench.request import Request
from workbench.trace import Trace

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def counted(svg: str, what: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in parsed(svg).iter():
        if node.get(what):
            found[node.get("data-kind")] += int(node.get(what))
    return found


def empty_trace() -> Trace:
    return Trace(EngineConfig(), ModelFacts(name="smollm2"))


def traces() -> dict[str, Trace]:
    return {
        "small": make_trace(5),
        "speculative": make_trace(6, 40, drafts_from=12),
        "preempting": make_trace(8, 40, max_seqs=8, blocks=24),
        "long": make_trace(8, 300, max_seqs=4, blocks=120),
        "real": scripted_run([list(range(30 + i)) for i in range(6)], max_num_seqs=3, num_blocks=9, max_tokens=20).trace,
        "empty": empty_trace(),
    }


@pytest.mark.parametrize("name", traces())
@pytest.mark.parametrize("draw", [timeline_svg, kv_svg, picture_svg])
def test_every_picture_is_well_formed_xml_with_a_role_and_a_title(draw, name):
    root = parsed(draw(traces()[name]))
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text


@pytest.mark.parametrize("name", ["small", "speculative", "preempting", "long", "real"])
def test_cells_by_kind_equal_the_rows_of_the_records(name):
    trace = traces()[name]
    cells = counted(timeline_svg(trace), "data-steps")
    if len(trace) <= 376:  # one step per column: nothing is folded away
        for kind in ("prefill", "decode", "verify"):
            assert cells[kind] == sum(row.kind == kind for record in trace for row in record.scheduled)
    assert cells["preempted"] == sum(len(record.preempted) for record in trace)


@pytest.mark.parametrize("name", ["small", "speculative", "long", "real"])
def test_bars_carry_the_tokens_of_the_records(name):
    trace = traces()[name]
    tokens = counted(timeline_svg(trace), "data-tokens")
    for kind in ("prefill", "decode", "verify"):
        assert tokens[kind] == sum(row.num_tokens for record in trace for row in record.scheduled if row.kind == kind)
    assert tokens["cache"] == sum(row.num_cached for record in trace for row in record.scheduled)


def test_the_kv_strip_states_the_high_water_mark_and_its_step():
    trace = make_trace(6)
    peak = max(trace, key=lambda record: record.kv.in_use)
    assert f"high water {peak.kv.in_use} of {peak.kv.total} blocks" in kv_svg(trace)
    assert f"at step {peak.step}" in kv_svg(trace)


def test_evictions_and_preemptions_are_counted_under_the_strip():
    run = scripted_run([list(range(60)), list(range(100, 160))], num_blocks=9, max_tokens=30)
    evicted = sum(event.kind == "evicted" for record in run.trace for event in record.block_events)
    assert evicted > 1
    assert f"{evicted} evictions" in kv_svg(run.trace)
    assert "1 preemption" in kv_svg(run.trace)


def test_a_waiting_request_says_why_when_pointed_at():
    run = scripted_run([[1] * 40, [2] * 40, [3] * 40], max_num_seqs=2, max_tokens=5)
    assert "2 requests run already (max_num_seqs)" in timeline_svg(run.trace)


def test_a_long_run_says_how_many_steps_a_column_holds():
    trace = make_trace(8, 300, max_seqs=4, blocks=120)
    k = -(-len(trace) // 376)
    assert k > 1
    assert f"each column is {k} steps" in timeline_svg(trace)
    assert f"each column is {k} steps" in kv_svg(trace)


def test_a_short_run_does_not_speak_of_columns():
    assert "each column" not in timeline_svg(make_trace(5))


def test_surplus_requests_are_counted_not_drawn():
    svg = timeline_svg(make_trace(45, 4, max_seqs=16, blocks=400))
    assert "… and 13 more requests" in svg
    assert ">r31<" in svg
    assert ">r32<" not in svg


def test_a_budget_far_above_the_steps_is_named_but_not_drawn_to_scale():
    trace = make_trace(3)
    trace.records = [replaced(record, tokens=Budget(8192, record.tokens.used)) for record in trace.records]
    assert "the token budget of a step, 8,192, is far above this scale" in timeline_svg(trace)


def test_a_step_that_dwarfs_the_others_is_cut_and_numbered():
    trace = make_trace(3)
    trace.records[0] = replaced(trace.records[0], timing=StepTiming(forward_ms=4000.0))
    assert "4 s" in timeline_svg(trace)
    assert "beyond the scale" in timeline_svg(trace)


def test_the_time_of_proposing_drafts_is_stacked_where_there_was_any():
    titles = re.findall(r"<title>([^<]*ms in all)</title>", timeline_svg(speculative_run().trace))
    assert titles == ["forward: 170 ms in all", "sample: 0 ms in all", "propose drafts: 20 ms in all"]
    assert "propose drafts" not in timeline_svg(make_trace(3))


def test_steps_that_run_nothing_and_take_no_time_can_be_drawn():
    nothing = StepRecord(0, 0.0, StepTiming(), Budget(64, 0), Budget(4, 0), KvUsage(0, 0, 0), KvUsage(0, 0, 0))
    trace = Trace(EngineConfig(), ModelFacts(name="idle"), (), [nothing, replaced(nothing, step=1)])
    parsed(picture_svg(trace))


def test_a_trace_without_steps_says_so():
    assert "no step was recorded" in timeline_svg(empty_trace())
    assert "no step was recorded" in kv_svg(empty_trace())


def test_the_same_trace_is_drawn_the_same():
    assert picture_svg(make_trace(6)) == picture_svg(make_trace(6))


def test_ids_do_not_depend_on_times_so_that_a_rerun_changes_none():
    fast, slow = make_trace(5), make_trace(5)
    slow.records = [replaced(record, timing=StepTiming(forward_ms=9.0 + record.step)) for record in slow.records]
    assert ids(timeline_svg(fast)) == ids(timeline_svg(slow)) != []


def test_two_different_runs_share_no_id():
    assert not set(ids(timeline_svg(make_trace(5)))) & set(ids(timeline_svg(make_trace(6))))


def test_every_pattern_that_is_used_is_defined_in_the_same_picture():
    svg = picture_svg(make_trace(8, 40, max_seqs=8, blocks=24))
    assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(ids(svg))


@pytest.mark.parametrize("hostile", [SCRIPT, ONERROR, "a&b]]>", "\x00\x1b\ud800", "-->"])
def test_names_from_outside_are_escaped(hostile):
    trace = make_trace(2, name=hostile)
    renamed = {"r0": hostile, "r1": "r1" + hostile}
    requests = [Request(id=renamed[name], prompt_token_ids=(1, 2)) for name in trace.requests]
    records = [rename(record, renamed) for record in trace.records]
    root = parsed(picture_svg(Trace(trace.config, trace.model, requests, records)))
    names = {node.tag.removeprefix(SVG) for node in root.iter()}
    assert names <= {"svg", "title", "desc", "style", "defs", "pattern", "path", "text", "g", "rect"}
    assert not [key for node in root.iter() for key in node.attrib if key.lower().startswith("on") or "href" in key]


@pytest.mark.parametrize("name", ["small", "speculative", "preempting"])
def test_nothing_is_loaded_from_outside(name):
    svg = picture_svg(traces()[name])
    assert set(re.findall(r"https?://[^\s\"']+", svg)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in svg


def test_fills_and_strokes_are_plain_attributes_so_that_a_picture_survives_without_its_style():
    for node in parsed(timeline_svg(make_trace(6))).iter(f"{SVG}path"):
        assert node.get("fill") or node.get("stroke")
    assert all(node.get("fill") for node in parsed(timeline_svg(make_trace(6))).iter(f"{SVG}text"))


def test_a_thousand_steps_of_sixteen_requests_are_drawn_at_once():
    trace = make_trace(16, 400, max_seqs=6, blocks=200)
    assert len(trace) > 1000
    began = time.process_time()
    timeline_svg(trace), kv_svg(trace)
    assert time.process_time() - began < 0.6  # 0.1 s alone on two slow cores


def ids(svg: str) -> list[str]:
    return re.findall(r' id="([^"]+)"', svg)


def replaced(record: StepRecord, **changes: object) -> StepRecord:
    import msgspec

    return msgspec.structs.replace(record, **changes)


def rename(record: StepRecord, names: dict[str, str]) -> StepRecord:
    def renamed(entries):
        return tuple(replaced(entry, request_id=names[entry.request_id]) for entry in entries)

    return replaced(
        record,
        scheduled=renamed(record.scheduled),
        decisions=renamed(record.decisions),
        sampled=renamed(record.sampled),
        finished=renamed(record.finished),
        running=tuple(names[name] for name in record.running),
        waiting=tuple(names[name] for name in record.waiting),
    )
