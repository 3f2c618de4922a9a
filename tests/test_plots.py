"""Figures say what the records say, nothing else, and nothing less."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from textwrap import wrap

import msgspec
import plotly
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from policy_workloads import policy_workloads
from policy_workloads import run_checked as run_policy
from render_fixtures import make_trace, scripted_run, speculative_run
from test_scheduler import run_checked, workloads

from workbench import ConfigError, Engine, Trace, TraceError, load_trace
from workbench.errors import MissingPackageError, WorkbenchError
from workbench.events import Reason, SpecRound, StepRecord, StepTiming
from workbench.metrics import measure
from workbench.moment import moments
from workbench.plots import Plots, _figure, _stretches, acceptance, batch, kv_cache, latency, queue, timeline
from workbench.plots.acceptance import TITLE_WIDTH, positions
from workbench.render.board import board_of
from workbench.render.palette import LOOKS
from workbench.request import Request
from workbench.runners.scripted import ScriptedRunner

EVERY = (timeline, batch, kv_cache, acceptance, latency, queue)
BY_STEP = (batch, kv_cache, acceptance, latency, queue)
KIND_OF = {look.label: kind for kind, look in LOOKS.items()}


def trace_of(workload):
    engine, _ = run_checked(workload[0], [dict(request) for request in workload[1]])
    return engine.trace


def speculative_trace():
    """Drafts of different lengths, right up to a place that differs from round to round."""
    drafts = {0: [], 1: [7], 2: [7, 0], 3: [7, 7, 7], 4: [7, 7, 0]}
    runner = ScriptedRunner(lambda name, position: 7, drafts=lambda name, known: drafts[len(known) % 5])
    with Engine(runner, num_blocks=64, num_speculative_tokens=3, debug=True) as engine:
        return engine.run([[1, 2, 3], [4] * 9, [5] * 14], max_tokens=40).trace


def alternating_trace(max_tokens):
    """Four requests that verify a draft in every third step or so, and decode in between."""
    runner = ScriptedRunner(lambda name, position: 7, drafts=lambda name, known: [7] * (len(known) % 3 == 0), max_model_len=30_000)
    with Engine(runner, num_blocks=4096, num_speculative_tokens=1, max_num_seqs=4) as engine:
        return engine.run([[index] * 9 for index in range(4)], max_tokens=max_tokens).trace


def preempting_trace():
    return scripted_run([list(range(60)), list(range(100, 160)), list(range(200, 230))], num_blocks=9, max_tokens=40).trace


def layers(fig, panel=1):
    """Values of the stacked layers of a panel, by name."""
    axis = "y" if panel == 1 else f"y{panel}"
    return {one.name: list(one.y) for one in fig.data if one.yaxis == axis and (isinstance(one, go.Bar) or one.stackgroup)}


def named(fig, name, panel=1):
    axis = "y" if panel == 1 else f"y{panel}"
    (found,) = [one for one in fig.data if one.name.startswith(name) and one.yaxis == axis]
    return found


def cells(fig, first_step=0):
    """Every (request, step) that the bars of a timeline cover, with how often and in which states."""
    covered: dict[tuple[str, int], list[str]] = {}
    for bar in fig.data:
        if not isinstance(bar, go.Bar):
            continue
        for name, base, length in zip(bar.y, bar.base, bar.x, strict=True):
            for step in range(round(base + 0.5), round(base + length + 0.5)):
                covered.setdefault((name, step), []).append(KIND_OF[bar.name])
    return covered


def expected_cells(trace):
    """The same, straight from the records."""
    found = {}
    for record in trace:
        for decision in record.decisions:
            if decision.reason is not Reason.NOT_ARRIVED:
                found[decision.request_id, record.step] = ["idle" if decision.request_id in record.running else "waiting"]
        found |= {(name, record.step): ["held"] for name in record.held}
        found |= {(row.request_id, record.step): [row.kind] for row in record.scheduled}
        found |= {(name, record.step): ["preempted"] for name in record.preempted}
    return found


# -- timeline --------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_every_request_has_exactly_one_cell_in_every_step_in_which_it_was_there(workload):
    trace = trace_of(workload)
    assert cells(timeline(trace)) == expected_cells(trace)


@settings(max_examples=15, deadline=None)
@given(policy_workloads())
def test_timelines_of_other_policies_are_as_complete(workload):
    engine, _ = run_policy(*workload)
    assert cells(timeline(engine.trace)) == expected_cells(engine.trace)


def test_a_slice_keeps_the_engines_step_numbers():
    part = preempting_trace()[11:40]
    assert cells(timeline(part)) == expected_cells(part)
    assert list(timeline(part).layout.xaxis.range) == [10.5, 39.5]


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_marks_stand_where_the_records_say(workload):
    trace = trace_of(workload)
    fig = timeline(trace)
    marks = {one.name: sorted(zip(one.x, one.y, strict=True)) for one in fig.data if isinstance(one, go.Scatter)}
    lost = sorted((record.step, name) for record in trace for name in record.preempted)
    found = sorted((record.step, row.request_id) for record in trace for row in record.scheduled if row.num_cached)
    assert marks.get("preempted", []) == lost
    assert marks.get("from prefix cache", []) == found
    seen = {name for name, _ in expected_cells(trace)}
    for reason in ("stop", "length", "abort"):
        ends = [(r.step + 0.5, end.request_id) for r in trace for end in r.finished if end.reason == reason and end.request_id in seen]
        assert marks.get(f"ended: {reason}", []) == sorted(ends)


def test_a_stretch_tells_its_steps_tokens_cache_and_reason():
    fig = timeline(preempting_trace())
    prefill = named(fig, "prefill").hovertext
    assert any("tokens 0 to 60: 60 tokens computed" in text for text in prefill)
    assert any("more from the prefix cache" in text for text in prefill)
    assert any("needs 5 blocks, 2 free" in text for text in named(fig, "waiting").hovertext)
    lost = [one for one in fig.data if one.name == "preempted" and isinstance(one, go.Scatter)]
    assert any("needs 1 block, 0 free, and it is itself the one to give way" in text for text in lost[0].hovertext)


def test_tokens_told_in_all_stretches_together_are_the_tokens_that_were_read():
    trace = speculative_trace()
    told = 0
    for bar in timeline(trace).data:
        if isinstance(bar, go.Bar):
            told += sum(int(text.split(": ")[-1].split(" token")[0].replace(",", "")) for text in bar.hovertext if " computed" in text)
    assert told == sum(record.tokens.used for record in trace)


def test_on_the_clock_a_bar_spans_its_steps_from_start_to_end():
    trace = make_trace(6, drafts_from=20)
    fig = timeline(trace, by="ms")
    starts = {round(record.start_s * 1e3, 3) for record in trace}
    ends = {round(record.end_s * 1e3, 3) for record in trace}
    bars = [one for one in fig.data if isinstance(one, go.Bar)]
    assert {round(base, 3) for bar in bars for base in bar.base} <= starts
    assert {round(base + length, 3) for bar in bars for base, length in zip(bar.base, bar.x, strict=True)} <= ends
    shown = fig.layout.xaxis.range
    assert all(shown[0] <= x <= shown[1] for one in fig.data if isinstance(one, go.Scatter) for x in one.x), "a mark lies outside"
    assert sum(len(bar.x) for bar in bars) == sum(len(list(lane.runs())) for lane in board_of(trace).lanes)


def test_on_the_clock_no_bar_spans_a_pause():
    trace = make_trace(2)
    late = [msgspec.structs.replace(record, start_s=record.start_s + 60.0 * (record.step >= 10)) for record in trace]
    paused = Trace(trace.config, trace.model, trace.requests.values(), late)
    middle = late[9].end_s * 1e3 + 1000
    for bar in timeline(paused, by="ms").data:
        if isinstance(bar, go.Bar):
            assert not any(base < middle < base + length for base, length in zip(bar.base, bar.x, strict=True))
    assert any(bar.x for bar in timeline(paused, by="ms").data)


def test_too_many_stretches_are_folded_and_the_axis_says_so(monkeypatch):
    trace = alternating_trace(40)
    monkeypatch.setattr(_stretches, "MAX_STRETCHES", 12)
    fig = timeline(trace)
    assert sum(len(bar.x) for bar in fig.data if isinstance(bar, go.Bar)) <= 12
    assert "each cell is" in fig.layout.xaxis.title.text
    assert set(cells(fig)) >= set(expected_cells(trace)), "a step in which a request was there has no bar"
    assert all(len(states) == 1 for states in cells(fig).values())


def test_folded_stretches_still_count_every_state(monkeypatch):
    trace = alternating_trace(40)
    monkeypatch.setattr(_stretches, "MAX_STRETCHES", 12)
    board = board_of(trace)
    bars, size = _stretches.stretches(board)
    assert size > 1
    counted = Counter()
    for bar in bars:
        counted.update(kind for kind in bar.lane.kinds[bar.first : bar.end] if kind)
    assert counted == Counter(kind for lane in board.lanes for kind in lane.kinds if kind)


def test_thousands_of_steps_of_alternating_states_stay_few_bars():
    trace = alternating_trace(6000)
    assert len(trace) > 3500
    fig = timeline(trace)
    assert sum(len(bar.x) for bar in fig.data if isinstance(bar, go.Bar)) <= _stretches.MAX_STRETCHES
    assert len(fig.to_json()) < 1_500_000


@pytest.mark.parametrize("fidelity", ["reconstructed", "sampled"])
def test_only_exact_records_are_drawn_as_a_timeline(fidelity):
    trace = make_trace(2)
    trace.fidelity = fidelity
    with pytest.raises(TraceError, match=f"a {fidelity} trace cannot be drawn as a timeline"):
        timeline(trace)
    title = batch(trace).layout.xaxis2.title.text
    assert title != "step"
    assert ("reconstructed" in title) == (fidelity == "reconstructed")


def test_an_unknown_axis_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="by must be 'step' or 'ms', not 'seconds'"):
        timeline(make_trace(2), by="seconds")


# -- batch -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_the_kinds_of_a_step_add_up_to_its_tokens(workload):
    trace = trace_of(workload)
    stacked = layers(batch(trace))
    assert [sum(values) for values in zip(*stacked.values(), strict=True)] == [record.tokens.used for record in trace]
    for label, values in stacked.items():
        kind = KIND_OF[label]
        assert values == [sum(row.num_tokens for row in record.scheduled if row.kind == kind) for record in trace]


def test_the_budget_is_the_limit_of_every_step():
    trace = make_trace(6, budget=96)
    line = named(batch(trace), "token budget")
    assert list(line.y)[1:-1] == [record.tokens.limit for record in trace]
    assert list(line.x)[1:-1] == [record.step for record in trace]


def test_a_budget_far_above_the_tokens_is_named_and_not_drawn_to_scale():
    fig = batch(scripted_run([[1, 2, 3]], max_tokens=4, max_num_batched_tokens=512).trace)
    assert named(fig, "token budget").name == "token budget (512, above what is shown)"
    assert fig.layout.yaxis.range[1] < 10


def test_the_phases_of_a_step_add_up_to_its_duration():
    trace = make_trace(6)
    stacked = layers(batch(trace), panel=2)
    assert list(stacked) == ["plan", "prepare", "forward", "sample", "commit"]
    assert [sum(values) for values in zip(*stacked.values(), strict=True)] == pytest.approx([r.duration_ms for r in trace], abs=1e-3)


def test_proposing_drafts_is_a_phase_where_there_was_any():
    trace = make_trace(6)
    slow = [msgspec.structs.replace(one, timing=msgspec.structs.replace(one.timing, draft_ms=float(one.step))) for one in trace]
    stacked = layers(batch(Trace(trace.config, trace.model, trace.requests.values(), slow)), panel=2)
    assert list(stacked) == ["plan", "prepare", "forward", "sample", "draft", "commit"]
    assert stacked["draft"] == [one.step for one in slow]
    assert [sum(values) for values in zip(*stacked.values(), strict=True)] == pytest.approx([r.duration_ms for r in slow], abs=1e-3)


def test_times_can_be_left_out():
    assert not layers(batch(make_trace(2), times=False), panel=2)


def test_a_step_much_longer_than_the_rest_does_not_flatten_them():
    trace = make_trace(4)
    slow = list(trace)
    slow[5] = msgspec.structs.replace(slow[5], timing=StepTiming(forward_ms=9000.0))
    fig = batch(Trace(trace.config, trace.model, trace.requests.values(), slow))
    assert fig.layout.yaxis2.title.text == "ms (longest: 9,000)"
    assert fig.layout.yaxis2.range[1] < 300


# -- kv_cache --------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_blocks_add_up_to_the_pool_and_empty_slots_are_those_of_the_moments(workload):
    trace = trace_of(workload)
    fig = kv_cache(trace)
    stacked = layers(fig)
    assert list(zip(*stacked.values(), strict=True)) == [(r.kv.in_use, r.kv.cached, r.kv.free) for r in trace]
    assert [told[1] for told in named(fig, "in use").customdata] == [moment.wasted_slots for moment in moments(trace)]


def test_empty_slots_that_a_slice_cannot_know_are_a_question_mark():
    part = preempting_trace()[5:]
    told = [row[1] for row in named(kv_cache(part), "in use").customdata]
    assert told[0] == "?"
    for shown, moment in zip(told, moments(part), strict=True):
        assert shown == ("?" if moment.wasted_slots is None else moment.wasted_slots) or moment.wasted_slots is None


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_every_eviction_and_preemption_is_marked_once(workload):
    trace = trace_of(workload)
    marks = {one.name: one for one in kv_cache(trace).data if one.type == "scatter"}
    evicted = {record.step: sum(event.kind == "evicted" for event in record.block_events) for record in trace}
    evicted = {step: count for step, count in evicted.items() if count}
    shown = marks["eviction"] if evicted else None
    assert evicted == ({step: int(text.split()[0]) for step, text in zip(shown.x, shown.text, strict=True)} if shown else {})
    lost = {record.step: len(record.preempted) for record in trace if record.preempted}
    shown = marks["preemption"] if lost else None
    assert lost == ({step: text.count(" preempted") for step, text in zip(shown.x, shown.text, strict=True)} if shown else {})


# -- acceptance ------------------------------------------------------------------------------------------------------------


def test_bars_are_the_unconditional_rates_of_the_metrics_and_ticks_the_conditional_ones():
    trace = speculative_trace()
    rounds = [one for record in trace for one in record.spec if one.proposed]
    fig, metrics = acceptance(trace), measure(trace)
    bars, ticks = named(fig, "unconditional"), named(fig, "conditional")
    rates = metrics.acceptance_per_position
    assert list(bars.y) == pytest.approx([*rates, *[0.0] * (len(bars.y) - len(rates))])
    assert list(bars.x) == [1, 2, 3]
    for place, share, (accepted, reached, _) in zip(ticks.x, ticks.y, ticks.customdata, strict=True):
        assert accepted == sum(one.accepted >= place for one in rounds)
        assert reached == sum(one.accepted >= place - 1 and one.proposed >= place for one in rounds)
        assert share == accepted / reached
    assert [row[2] for row in bars.customdata] == [sum(one.proposed >= place for one in rounds) for place in (1, 2, 3)]


def test_the_line_ends_at_the_mean_acceptance_length_and_dots_are_those_of_their_steps():
    trace = speculative_trace()
    fig = acceptance(trace)
    assert named(fig, "of all rounds so far", 2).y[-1] == pytest.approx(measure(trace).mean_acceptance_length)
    dots = named(fig, "of a step", 2)
    for step, length in zip(dots.x, dots.y, strict=True):
        rounds = [one for one in trace.at(step).spec if one.proposed]
        assert length == pytest.approx(1 + sum(one.accepted for one in rounds) / len(rounds))
    assert len(dots.x) == sum(any(one.proposed for one in record.spec) for record in trace)


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_acceptance_of_any_workload_agrees_with_the_metrics(workload):
    trace = trace_of(workload)
    fig, metrics = acceptance(trace), measure(trace)
    if metrics.acceptance_rate is None:
        assert "No drafts were verified" in fig.layout.annotations[0].text
    else:
        assert list(named(fig, "unconditional").y)[: len(metrics.acceptance_per_position)] == pytest.approx(metrics.acceptance_per_position)
        assert named(fig, "of all rounds so far", 2).y[-1] == pytest.approx(metrics.mean_acceptance_length)


def test_the_numbers_of_drafts_chosen_stand_over_their_steps_with_the_reason():
    trace = speculative_run().trace
    chosen = named(acceptance(trace), "drafts chosen", 2)
    assert list(chosen.x) == [0, 1, 2, 3, 4]
    assert list(chosen.y) == [0, 0, 0, 0, 4]
    assert chosen.customdata[0] == "no drafts yet: a step without them is measured first"
    assert chosen.customdata[4] == "4 drafts: 4.0 tokens in 40 ms instead of 1 in 20 ms (2.0 times as fast)"
    assert not [one for one in acceptance(speculative_trace()).data if one.name == "drafts chosen"]


def test_a_cell_counts_the_rounds_that_accepted_so_many_of_so_many_drafts():
    trace = speculative_trace()
    rounds = [one for record in trace for one in record.spec if one.proposed]
    cells = named(acceptance(trace), "rounds", 3)
    lengths = sorted({one.proposed for one in rounds})
    assert list(cells.x) == [str(length) for length in lengths]
    for accepted, counts, shares in zip(cells.y, cells.text, cells.z, strict=True):
        for length, count, share in zip(lengths, counts, shares, strict=True):
            of_length = [one.accepted for one in rounds if one.proposed == length]
            assert count == (str(of_length.count(accepted)) if accepted <= length else "")
            assert share == (int(count) / len(of_length) if count else None)


def test_the_title_tells_the_speed_up_measured_and_predicted():
    said = "75 % of the drafts accepted, 4 tokens per verification; 2 times as fast as plain steps, 2.67 predicted"
    assert acceptance(speculative_run().trace).layout.title.text.split("<br>") == wrap(said, TITLE_WIDTH)
    missing = "speed-up – (no step without drafts in this run: compare with a run without speculation)"
    lines = acceptance(speculative_run(plain=False).trace).layout.title.text.split("<br>")
    assert " ".join(lines).endswith(missing)
    assert max(map(len, lines)) <= TITLE_WIDTH


def test_a_round_without_drafts_counts_nowhere():
    assert positions([SpecRound("r0", 2, 1, 2, 1), SpecRound("r1", 3, 3, 4)]) == [(2, 2, 2), (1, 2, 2), (1, 1, 1)]


# -- latency ---------------------------------------------------------------------------------------------------------------


def check_latency(trace):
    fig, metrics = latency(trace), measure(trace)
    firsts, gaps = named(fig, "time to first token"), named(fig, "gap between outputs", 2)
    assert sorted(firsts.y) == pytest.approx(sorted(r.ttft_ms for r in metrics.requests if r.ttft_ms is not None), abs=1e-3)
    for request in metrics.requests:
        own = [gap for name, gap in zip(gaps.text, gaps.y, strict=True) if name == request.request_id]
        assert own == pytest.approx(list(request.itl_ms), abs=1e-3)
    for panel, spread in ((1, metrics.ttft_ms), (2, metrics.itl_ms)):
        if spread.count:
            assert set(named(fig, "p50", panel).y) == {spread.p50}
            assert set(named(fig, "p99", panel).y) == {spread.p99}
    for dots in (firsts, gaps):
        for name, step, count in zip(dots.text, dots.x, dots.customdata, strict=True):
            assert [len(one.token_ids) for one in trace.at(step).sampled if one.request_id == name] == [count]
    return firsts, gaps


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_every_first_token_and_every_gap_is_a_dot_in_its_step(workload):
    trace = trace_of(workload)
    firsts, gaps = check_latency(trace)
    assert sum(firsts.customdata) + sum(gaps.customdata) == sum(len(one.token_ids) for record in trace for one in record.sampled)


def test_in_a_slice_a_first_token_of_before_is_not_there_and_gaps_are():
    part = preempting_trace()[20:60]
    firsts, gaps = check_latency(part)
    assert not firsts.y
    assert len(gaps.y) > 20


def test_output_before_another_prompt_counts_no_more():
    engine = Engine(ScriptedRunner(), num_blocks=32)
    request = engine.add_request([1, 2, 3], max_tokens=12)
    for _ in range(4):
        engine.step()
    engine.edit(request.id, prompt_token_ids=[9, 8, 7, 6])
    while engine.has_unfinished:
        engine.step()
    firsts, gaps = check_latency(engine.trace)
    assert min(firsts.x) >= 4
    assert min(gaps.x) > 4


def test_latencies_that_spread_widely_are_on_a_logarithmic_axis():
    trace = preempting_trace()
    gaps = named(latency(trace), "gap", 2).y
    assert latency(trace).layout.yaxis2.type == ("log" if max(gaps) > 4 * min(gaps) > 0 else None)
    assert latency(make_trace(1)).layout.yaxis.type is None


# -- queue -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(workloads())
def test_everybody_unfinished_is_in_one_layer_of_the_queue(workload):
    trace = trace_of(workload)
    stacked = layers(queue(trace))
    for index, record in enumerate(trace):
        here = {name: values[index] for name, values in stacked.items() if values[index]}
        absent = sum(decision.reason is Reason.NOT_ARRIVED for decision in record.decisions)
        assert sum(here.values()) == len(record.decisions) + len(record.held)
        assert here.get("running", 0) == len(record.running) == record.seqs.used
        assert here.get("done, held by its batch", 0) == len(record.held)
        assert here.get("not arrived", 0) == absent
    assert list(named(queue(trace), "max_num_seqs").y)[1:-1] == [record.seqs.limit for record in trace]


def test_the_longest_wait_is_that_of_the_request_that_came_first():
    trace = make_trace(9, max_seqs=2)
    arrived = {arrival.request_id: arrival.arrival_s for record in trace for arrival in record.arrived}
    assert not any(record.preempted for record in trace)
    expected = [max((record.start_s - arrived[name] for name in record.waiting), default=0.0) * 1e3 for record in trace]
    fig = queue(trace)
    assert list(named(fig, "longest", 2).y) == pytest.approx(expected, abs=1e-3)
    assert max(expected) > 0
    assert all(mean <= longest for mean, longest in zip(named(fig, "mean", 2).y, named(fig, "longest", 2).y, strict=True))


def test_a_preempted_request_waits_from_the_step_that_preempted_it():
    trace = preempting_trace()
    step = next(record.step for record in trace if record.preempted and list(record.waiting) == list(record.preempted))
    longest = named(queue(trace), "longest", 2).y
    assert longest[step] == 0
    assert longest[step + 1] == pytest.approx((trace.at(step + 1).start_s - trace.at(step).start_s) * 1e3, abs=1e-2)


def test_a_wait_that_began_before_a_slice_is_unknown_and_not_zero():
    trace = make_trace(9, max_seqs=2)
    part = trace[30:33]
    assert part[0].waiting
    assert named(queue(part), "longest", 2).y[0] is None


# -- all of them -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", EVERY)
@settings(max_examples=8, deadline=None)
@given(workload=workloads())
def test_every_figure_is_json_without_nan_and_does_not_touch_the_trace(figure, workload):
    trace = trace_of(workload)
    before = trace[:]
    fig = figure(trace)
    assert isinstance(fig, go.Figure)
    json.loads(fig.to_json(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert trace == before


@pytest.mark.parametrize("figure", EVERY)
def test_a_trace_without_steps_gives_a_sentence(figure):
    trace = make_trace(2)
    (note,) = figure(trace[:0]).layout.annotations
    assert note.text.endswith(".")


@pytest.mark.parametrize("figure", EVERY)
@pytest.mark.parametrize("part", [slice(0, 1), slice(7, 8), slice(5, 30)])
def test_single_steps_and_slices_can_be_drawn(figure, part):
    for trace in (make_trace(6, drafts_from=20), preempting_trace(), speculative_trace()):
        assert figure(trace[part]).layout.height > 100


@pytest.mark.parametrize("figure", EVERY)
def test_a_loaded_trace_gives_the_same_figure(figure, tmp_path):
    trace = speculative_trace()
    assert figure(load_trace(trace.save(tmp_path / "x.wbt"))).to_json() == figure(trace).to_json()


@pytest.mark.parametrize("figure", EVERY)
def test_a_run_is_as_good_as_its_trace(figure):
    run = scripted_run([[1, 2, 3]], max_tokens=4)
    assert figure(run).to_json() == figure(run.trace).to_json()


@pytest.mark.parametrize("figure", [*EVERY, Plots])
@pytest.mark.parametrize("junk", [None, 7, "x.wbt", [], {"records": []}])
def test_what_is_no_trace_is_answered_in_one_line(figure, junk):
    with pytest.raises(TypeError, match="takes a run or a trace, not"):
        figure(junk)


@pytest.mark.parametrize("figure", [batch, kv_cache, queue])
def test_long_traces_are_areas_with_the_same_values(figure, monkeypatch):
    trace = make_trace(6, drafts_from=20)
    few = figure(trace)
    monkeypatch.setattr(_figure, "MAX_BARS", 0)
    many = figure(trace)
    assert layers(many) == layers(few)
    assert not any(isinstance(one, go.Bar) for one in many.data)
    assert {one.name: (one.fillpattern.shape or "") for one in many.data if one.stackgroup} == {
        one.name: (one.marker.pattern.shape or "") for one in few.data if isinstance(one, go.Bar)
    }


def test_no_two_states_that_can_meet_look_alike_without_colour():
    trace = scripted_run(
        [{"prompt": list(range(10 + 9 * i)), "max_tokens": 10 + 5 * i, "arrival_step": 4 * i} for i in range(7)],
        batching="static",
        max_num_seqs=3,
    ).trace
    for source in (trace, speculative_trace(), preempting_trace()):
        bars = [one for one in timeline(source).data if isinstance(one, go.Bar)]
        looks = [(one.width, one.marker.pattern.shape) for one in bars]
        assert len(set(looks)) == len(looks) > 1


@pytest.mark.parametrize("figure", EVERY)
def test_the_look_suits_any_background_and_can_be_exchanged(figure):
    fig = figure(speculative_trace())
    look = fig.layout.template.layout
    assert look.paper_bgcolor == look.plot_bgcolor == "rgba(0,0,0,0)"
    assert fig.layout.font.color is fig.layout.paper_bgcolor is None
    assert fig.update_layout(template="plotly_dark").layout.template.layout.paper_bgcolor != "rgba(0,0,0,0)"


HOSTILE = ["<b>bold</b>", "$x^2$ and $y$", "1", "10", "&lt;", "a\x1b[31m", "%{y}", "r" * 300]


def test_names_from_outside_are_shown_and_never_obeyed():
    trace = make_trace(len(HOSTILE), blocks=12)
    text = msgspec.json.encode(trace.records).decode()
    for index, name in enumerate(HOSTILE):
        text = text.replace(json.dumps(f"r{index}"), json.dumps(name))
    records = msgspec.json.decode(text, type=list[StepRecord])
    hostile = Trace(trace.config, trace.model, [Request(id=name, prompt_token_ids=(1,)) for name in HOSTILE], records)
    assert any(record.preempted for record in records)
    for figure in EVERY:
        shown = figure(hostile).to_json()
        assert "<b>bold" not in shown.replace("\\u003c", "<")
        assert "$" not in shown
        assert "\\u001b" not in shown
    axis = timeline(hostile).layout.yaxis
    assert axis.type == "category"
    assert len(set(axis.categoryarray)) == len(HOSTILE)
    assert len(axis.labelalias["r" * 300]) < 30


def test_plots_lists_its_figures_and_draws_what_the_functions_draw():
    trace = speculative_trace()
    plots = Plots(trace)
    for figure in EVERY:
        assert f".{figure.__name__}()" in repr(plots)
        assert f".{figure.__name__}()" in plots._repr_html_()
        method = getattr(plots, figure.__name__)
        assert method().to_json() == figure(trace).to_json()
        assert "x:" in method.__doc__
        assert "y:" in method.__doc__
    assert plots.timeline(by="ms").to_json() == timeline(trace, by="ms").to_json()
    assert plots.batch(times=False).to_json() == batch(trace, times=False).to_json()


LAZY = """
import sys
from workbench import load_trace
from workbench.plots import Plots

plots = Plots(load_trace(sys.argv[1]))
repr(plots)
assert not {"plotly", "numpy"} & set(sys.modules)
plots.queue()
assert "plotly" in sys.modules
assert "torch" not in sys.modules
"""


def test_plotly_is_loaded_by_the_first_figure_and_not_before(tmp_path):
    path = make_trace(2).save(tmp_path / "x.wbt")
    subprocess.run([sys.executable, "-c", LAZY, str(path)], check=True)


@pytest.mark.parametrize("figure", EVERY)
@pytest.mark.parametrize("count", [0, 20])
def test_without_plotly_one_line_says_what_to_install(figure, count, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingPackageError, match=r'not installed: pip install "plotly>=6"') as raised:
        figure(make_trace(2)[:count])
    assert isinstance(raised.value, WorkbenchError | ModuleNotFoundError)
    assert raised.value.name == "plotly"
    assert len(raised.value._render_traceback_()) == 1


def test_an_old_plotly_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr(plotly, "__version__", "5.24.1")
    with pytest.raises(MissingPackageError, match=r"plotly 6 or newer, 5\.24\.1 is installed"):
        queue(make_trace(2))
