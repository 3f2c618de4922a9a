"""Competing definitions of the metrics, against the handbook's presets, plain sums, and vLLM's window."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_fixtures import make_run, make_trace
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import ConfigError, Trace
from workbench.config import EngineConfig
from workbench.definitions import HitRateWindow, Slo, definitions, request_times
from workbench.events import Arrival, Budget, Finished, KvUsage, ModelFacts, Sampled, Scheduled, StepRecord, StepTiming
from workbench.metrics import RequestMetrics, measure
from workbench.request import Request

PRESETS = json.loads((Path(__file__).parent / "data/handbook/metrics_presets.json").read_text())


def preset(name):
    rows = PRESETS[name]["rows"]
    return [request_times(f"r{i}", ttft_ms=ttft, e2e_ms=e2e, num_output_tokens=n) for i, (ttft, e2e, n) in enumerate(rows)]


@pytest.mark.parametrize("name", PRESETS)
def test_the_handbooks_presets_come_out_by_every_formula(name):
    expected, found = PRESETS[name]["expected"], definitions(preset(name), Slo(**PRESETS[name]["slo"]))
    assert round(found["TPOT per request, mean"].value, 3) == expected["tpot"]
    assert round(found["ITL per output token"].value, 3) == expected["itl_printed"]
    assert round(found["ITL per gap, mean"].value, 3) == expected["itl_per_gap"]
    assert round(found["ITL per token after the first"].value, 3) == expected["itl_per_gap"]
    assert found["goodput, requests"].value == expected["met"]
    assert found["goodput as a share of completed"].value == expected["met"] / 6


def test_mean_and_median_ttft_of_the_tail_preset_tell_different_stories():
    found = definitions(preset("Tail latency"))
    assert round(found["TTFT from arrival, mean"].value) == 299
    assert 42 <= found["TTFT from arrival, median"].value <= 45


def test_the_order_of_the_three_means_flips_between_presets():
    def order(name):
        found = definitions(preset(name))
        names = ("TPOT per request, mean", "ITL per output token", "ITL per gap, mean")
        return tuple(sorted(names, key=lambda one: found[one].value))

    assert len({order("Mixed workload"), order("Tail latency"), order("Streaming app")}) == 3


def preset_trace(name):
    """A preset as step records: one request after another, a step of one token each."""
    records, requests, clock = [], [], 0.0

    def step(request_id, ms, **more):
        nonlocal clock
        usage = KvUsage(0, 0, 1)
        record = StepRecord(
            len(records), clock, StepTiming(forward_ms=ms), Budget(1, 1), Budget(1, 1), usage, usage,
            scheduled=(Scheduled(request_id, "decode", 0, 1),), sampled=(Sampled(request_id, (0,)),), **more,
        )  # fmt: skip
        records.append(record)
        clock = record.end_s

    for i, (ttft, e2e, tokens) in enumerate(PRESETS[name]["rows"]):
        requests.append(Request(id=f"r{i}", prompt_token_ids=(1,)))
        step(f"r{i}", ttft, arrived=(Arrival(f"r{i}", clock),))
        for left in range(tokens - 1, 0, -1):
            step(f"r{i}", (e2e - ttft) / (tokens - 1), finished=() if left > 1 else (Finished(f"r{i}", "length"),))
    return Trace(EngineConfig(), ModelFacts(name="preset"), requests, records)


@pytest.mark.parametrize("name", PRESETS)
def test_a_trace_with_the_presets_times_gives_the_presets_figures(name):
    slo = Slo(**{key: limit + 1e-6 for key, limit in PRESETS[name]["slo"].items()})  # a sum of milliseconds may round up
    plain, traced = definitions(preset(name), slo), definitions(preset_trace(name), slo)
    for row in plain:
        if not row.name.startswith(("TTFT from schedule", "goodput as a rate")):  # plain numbers: all arrive at once, unscheduled
            assert traced[row.name].value == pytest.approx(row.value), row.name


def test_ttft_from_schedule_leaves_the_queue_out():
    requests = [request_times(f"r{i}", ttft_ms=100 * i + 20, e2e_ms=900, num_output_tokens=9, queue_ms=100 * i) for i in range(3)]
    found = definitions(requests)
    assert found["TTFT from arrival, mean"].value == 120
    assert found["TTFT from schedule, mean"].value == 20
    assert found["TTFT from schedule, median"].value == 20


def test_a_step_that_emits_several_tokens_is_one_gap_but_several_tokens():
    one = request_times("r0", ttft_ms=10, e2e_ms=70, num_output_tokens=7, itl_ms=(20.0, 40.0))
    found = definitions([one])
    assert found["ITL per gap, mean"].value == 30
    assert found["ITL per token after the first"].value == 10
    assert found["TPOT per request, mean"].value == 10


def test_goodput_is_a_rate_and_two_shares():
    good = request_times("r0", ttft_ms=10, e2e_ms=1000, num_output_tokens=9)
    slow = request_times("r1", ttft_ms=500, e2e_ms=2000, num_output_tokens=9)
    aborted = RequestMetrics(request_id="r2", arrival_s=0.0, ttft_ms=1.0, finish_reason="abort")
    found = definitions([good, slow, aborted], Slo(ttft_ms=200))
    assert found["goodput as a rate"].value == 0.5
    assert found["goodput as a share of completed"].value == 0.5
    assert found["goodput as a share of all"].value == 1 / 3


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(ttft_ms=20), True),
        (Slo(ttft_ms=19.9), False),
        (Slo(e2e_ms=100), True),
        (Slo(e2e_ms=99), False),
        (Slo(itl_ms=50), True),
        (Slo(itl_ms=49), False),
        (Slo(tpot_ms=40), True),
        (Slo(tpot_ms=39), False),
        (Slo(ttft_ms=20, e2e_ms=99), False),
    ],
)
def test_every_limit_counts_and_a_request_at_the_limit_keeps_it(slo, met):
    one = request_times("r0", ttft_ms=20, e2e_ms=100, num_output_tokens=3, itl_ms=(30.0, 50.0))
    assert slo.met_by(one) is met


def test_a_request_of_one_token_keeps_any_limit_on_gaps():
    assert Slo(itl_ms=0.1, tpot_ms=0.1).met_by(request_times("r0", ttft_ms=9, e2e_ms=9, num_output_tokens=1))


def test_a_request_of_unknown_times_is_not_judged():
    unknown = RequestMetrics(request_id="r0", finish_reason="stop")
    assert Slo(ttft_ms=1).met_by(unknown) is None
    assert definitions([unknown], Slo(ttft_ms=1))["goodput as a share of all"].value is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 5000), st.integers(1, 60)), min_size=1, max_size=9), st.integers(1, 900))
def test_every_figure_equals_its_plain_sum(rows, limit):
    requests = [request_times(f"r{i}", ttft_ms=ttft, e2e_ms=ttft + more, num_output_tokens=n) for i, (ttft, more, n) in enumerate(rows)]
    found = definitions(requests, Slo(ttft_ms=limit))
    several = [(more, n) for _, more, n in rows if n > 1]
    assert found["TTFT from arrival, mean"].value == pytest.approx(fmean(ttft for ttft, _, _ in rows))
    assert found["TTFT from arrival, median"].value == pytest.approx(median(ttft for ttft, _, _ in rows))
    assert found["E2E latency, mean"].value == pytest.approx(fmean(ttft + more for ttft, more, _ in rows))
    assert found["ITL per output token"].value == pytest.approx(sum(more for more, _ in several) / sum(n for _, _, n in rows))
    assert found["goodput, requests"].value == sum(ttft <= limit for ttft, _, _ in rows)
    if several:
        assert found["TPOT per request, mean"].value == pytest.approx(fmean(more / (n - 1) for more, n in several))
        assert found["ITL per gap, mean"].value == pytest.approx(sum(more for more, _ in several) / sum(n - 1 for _, n in several))
    else:
        assert found["TPOT per request, mean"].value is None


@settings(max_examples=30, deadline=None)
@given(workloads())
def test_definitions_of_a_trace_agree_with_its_metrics(workload):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace
    found, metrics = definitions(trace, Slo(e2e_ms=1e9)), measure(trace)
    for name, spread in (("TTFT from arrival", metrics.ttft_ms), ("ITL per gap", metrics.itl_ms), ("TPOT per request", metrics.tpot_ms)):
        assert found[f"{name}, mean"].value == (spread.mean if spread.count else None)
    assert found["goodput as a rate"].value == pytest.approx(metrics.requests_per_s)
    assert all(row.value is None or math.isfinite(row.value) for row in found)
    if not knobs["num_speculative_tokens"] and found["ITL per gap, mean"].value is not None:
        assert found["ITL per gap, mean"].value == pytest.approx(found["ITL per token after the first"].value)


# -- the window of recent requests ---------------------------------------------------------------------------------------


def test_vllms_window_of_recent_requests():
    """vLLM 0.32.0 ``tests/v1/core/test_kv_cache_utils.py::test_metrics``."""
    window = HitRateWindow(5)
    assert window.hit_rate == 0
    assert window.observe(1, 20, 9) == 0.45
    assert window.observe(4, 80, 16) == 0.25
    assert window.observe(1, 10, 2) == 0.2  # the first was dropped: 18 of 90


def test_the_newest_step_stays_in_the_window_however_large():
    window = HitRateWindow(2)
    window.observe(1, 10, 10)
    assert window.observe(7, 70, 7) == 0.1


def test_a_step_without_requests_changes_nothing():
    window = HitRateWindow(1)
    window.observe(1, 10, 5)
    assert window.observe(0, 0, 0) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50), st.integers(0, 50)), max_size=20), st.integers(1, 12))
def test_the_window_equals_a_plain_sum_over_its_last_steps(steps, size):
    window, seen = HitRateWindow(size), []
    for requests, queries, hits in steps:
        hits = min(hits, queries)
        window.observe(requests, queries, hits)
        if requests:
            seen.append((requests, queries, hits))
        while len(seen) > 1 and sum(count for count, _, _ in seen) > size:
            del seen[0]
        looked_up = sum(queries for _, queries, _ in seen)
        assert window.hit_rate == (sum(hits for _, _, hits in seen) / looked_up if looked_up else 0)


@settings(max_examples=30, deadline=None)
@given(workloads())
def test_a_window_that_never_drops_anything_is_the_hit_rate_of_the_run(workload):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace
    assert HitRateWindow(10**9).observe_trace(trace) == pytest.approx(measure(trace).prefix_cache_hit_rate)


# -- what a person sees, and bad input -----------------------------------------------------------------------------------


def test_the_table_reads_as_text_and_html():
    found = definitions(make_run(make_trace(4)), Slo(ttft_ms=200, e2e_ms=3000))
    text, html = repr(found), found._repr_html_()
    assert text.splitlines()[0] == "Definitions over 4 requests; SLO: TTFT ≤ 200 ms, E2E ≤ 3000 ms"
    assert len(text.splitlines()) == len(found) + 2
    assert all(row.name in html for row in found)
    assert "<script" not in html


def test_an_empty_trace_has_every_definition_and_no_value():
    found = definitions(Trace(EngineConfig(), ModelFacts(name="x")), Slo(ttft_ms=1))
    assert {row.value for row in found if not row.name.startswith("goodput, req")} == {None}
    assert "–" in repr(found)


@pytest.mark.parametrize("limit", [0, -1, -0.5, math.nan, math.inf, "200", True])
@pytest.mark.parametrize("name", ["ttft_ms", "e2e_ms", "itl_ms", "tpot_ms"])
def test_a_limit_that_nobody_could_mean_is_refused(name, limit):
    with pytest.raises(ConfigError, match=f"{name} of an SLO must be a positive number of milliseconds, not"):
        Slo(**{name: limit})


def test_an_slo_without_limits_is_refused():
    with pytest.raises(ConfigError, match="an SLO needs a limit: give at least one of ttft_ms, e2e_ms, itl_ms, tpot_ms"):
        Slo()


@pytest.mark.parametrize("thing", [None, 3, "run", [1, 2], {"trace": 1}])
def test_anything_that_has_no_trace_is_refused(thing):
    with pytest.raises(TypeError, match="definitions takes a run or a trace, not"):
        definitions(thing)


def test_limits_that_are_no_slo_are_refused():
    with pytest.raises(TypeError, match=r"slo must be an Slo, as in Slo\(ttft_ms=200, e2e_ms=3000\), not int"):
        definitions(make_trace(1), 200)


def test_an_unknown_definition_is_refused_with_the_names():
    with pytest.raises(KeyError, match=r"no definition 'TTFT'; there are: TTFT from arrival, mean"):
        definitions(make_trace(1))["TTFT"]


@pytest.mark.parametrize("times", [(20, 10, 3), (-1, 10, 3), (1, 10, 0), (1, math.inf, 3), (math.nan, 1, 3)])
def test_times_that_no_request_can_have_are_refused(times):
    ttft, e2e, tokens = times
    with pytest.raises(ConfigError, match="request 'r0' cannot have"):
        request_times("r0", ttft_ms=ttft, e2e_ms=e2e, num_output_tokens=tokens)


@pytest.mark.parametrize("size", [0, -1, 1.5, "5", True])
def test_a_window_of_no_requests_is_refused(size):
    with pytest.raises(ConfigError, match="max_requests must be a whole number of at least 1"):
        HitRateWindow(size)


def test_more_hits_than_queries_are_refused():
    with pytest.raises(ConfigError, match="hits are a part of what was looked up"):
        HitRateWindow().observe(1, 10, 11)
