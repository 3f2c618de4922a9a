"""Metrics against numbers worked out by hand, and percentiles against numpy."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from render_fixtures import speculative_run

from workbench.cli import as_data
from workbench.config import EngineConfig
from workbench.events import Arrival, Budget, Finished, KvUsage, ModelFacts, Sampled, Scheduled, SpecRound, StepRecord, StepTiming
from workbench.metrics import Percentiles, acceptance, measure, percentile
from workbench.request import Request, SamplingParams
from workbench.trace import Trace


def record(step, start_s, ms, *, sampled=None, scheduled=(), in_use=0, **fields):
    """A step that lasts ``ms`` and emits the given number of tokens for each request."""
    tokens = tuple(Sampled(name, tuple(range(count))) for name, count in (sampled or {}).items())
    usage = KvUsage(in_use, 2, 10 - in_use - 2)
    timing = StepTiming(forward_ms=ms)
    return StepRecord(step, start_s, timing, Budget(64, 0), Budget(4, 0), usage, usage, scheduled=scheduled, sampled=tokens, **fields)


def trace_of(records, prompts, **config):
    requests = [Request(id=name, prompt_token_ids=(1,) * length) for name, length in prompts.items()]
    return Trace(EngineConfig(**config), ModelFacts(name="m"), requests, records)


def prefill(name, tokens, cached=0):
    return Scheduled(name, "prefill", cached, tokens, cached)


@pytest.fixture
def two_requests():
    """A arrives at 0, B at 0.1 s; steps end at 0.2, 0.3, 0.45 and 0.55 s.

    A emits at 0.2, 0.3 and 0.45 (two tokens) and is done; B is prefilled at 0.2 to 0.3, preempted, and emits at 0.45 and 0.55.
    """
    return trace_of(
        [
            record(
                0, 0.1, 100, sampled={"a": 1}, scheduled=(prefill("a", 32, 16),), in_use=3, arrived=(Arrival("a", 0.0), Arrival("b", 0.1))
            ),
            record(1, 0.2, 100, sampled={"a": 1}, scheduled=(prefill("b", 8),), in_use=8),
            record(
                2,
                0.35,
                100,
                sampled={"a": 2, "b": 1},
                scheduled=(prefill("b", 8, 4),),
                preempted=("b",),
                finished=(Finished("a", "length"),),
            ),
            record(3, 0.45, 100, sampled={"b": 1}, finished=(Finished("b", "stop", 2),), in_use=4),
        ],
        {"a": 32, "b": 8},
    )


def test_ttft_counts_from_arrival_to_the_end_of_the_first_emitting_step(two_requests):
    a, b = measure(two_requests).requests
    assert (a.ttft_ms, b.ttft_ms) == pytest.approx((200, 350))


def test_queue_time_ends_when_the_first_step_with_the_request_starts(two_requests):
    a, b = measure(two_requests).requests
    assert (a.queue_ms, b.queue_ms) == pytest.approx((100, 100))
    assert (a.first_scheduled_step, b.first_scheduled_step) == (0, 1)


def test_tokens_that_come_together_are_one_inter_token_observation(two_requests):
    a, b = measure(two_requests).requests
    assert a.itl_ms == pytest.approx((100, 150))
    assert b.itl_ms == pytest.approx((100,))
    assert (a.num_output_tokens, b.num_output_tokens) == (4, 2)


def test_time_per_output_token_spreads_the_generation_time_over_all_tokens_but_the_first(two_requests):
    a, b = measure(two_requests).requests
    assert (a.tpot_ms, b.tpot_ms) == pytest.approx((250 / 3, 100))
    assert a.tpot_ms == pytest.approx((a.e2e_ms - a.ttft_ms) / (a.num_output_tokens - 1))


def test_end_to_end_counts_from_arrival_to_the_end_of_the_last_step(two_requests):
    a, b = measure(two_requests).requests
    assert (a.e2e_ms, b.e2e_ms) == pytest.approx((450, 450))
    assert (a.finish_reason, b.finish_reason, a.finished_step, b.finished_step) == ("length", "stop", 2, 3)


def test_rates_divide_by_the_time_from_first_start_to_last_end(two_requests):
    metrics = measure(two_requests)
    assert (metrics.num_steps, metrics.duration_s, metrics.busy_ms) == (4, pytest.approx(0.45), pytest.approx(400))
    assert metrics.output_tokens_per_s == pytest.approx(6 / 0.45)
    assert metrics.total_tokens_per_s == pytest.approx((6 + 40) / 0.45)
    assert metrics.requests_per_s == pytest.approx(2 / 0.45)


def test_only_the_first_admission_counts_for_the_cache_hit_rate(two_requests):
    metrics = measure(two_requests)
    assert metrics.prefix_cache_hit_rate == pytest.approx(16 / 40)
    assert [request.num_cached_tokens for request in metrics.requests] == [16, 0]


def test_a_request_that_wants_prompt_logprobs_never_asks_the_cache(two_requests):
    asks = SamplingParams(prompt_logprobs=1)
    two_requests.add_request(Request(id="b", prompt_token_ids=(1,) * 8, sampling=asks))
    assert measure(two_requests).prefix_cache_hit_rate == pytest.approx(16 / 32)


def test_no_cache_no_hit_rate(two_requests):
    two_requests.config = EngineConfig(enable_prefix_caching=False)
    assert measure(two_requests).prefix_cache_hit_rate == 0.0


def test_preemptions_and_the_high_water_mark_come_from_the_records(two_requests):
    metrics = measure(two_requests)
    assert [request.num_preemptions for request in metrics.requests] == [0, 1]
    assert (metrics.num_preemptions, metrics.kv_high_water_blocks, metrics.kv_total_blocks) == (1, 8, 10)


def test_a_slice_has_no_times_for_requests_that_came_before_it(two_requests):
    a, b = measure(two_requests[2:]).requests
    assert (a.ttft_ms, a.queue_ms, a.e2e_ms, b.arrival_s) == (None, None, None, None)
    assert (a.num_output_tokens, a.finish_reason) == (2, "length")


def test_an_aborted_request_is_no_completion():
    trace = trace_of(
        [record(0, 0.0, 100, sampled={"a": 1}, arrived=(Arrival("a", 0.0),), finished=(Finished("a", "abort"),))],
        {"a": 3},
    )
    metrics = measure(trace)
    assert (metrics.requests_per_s, metrics.e2e_ms.count, metrics.ttft_ms.count) == (0.0, 0, 1)
    assert metrics.requests[0].e2e_ms == pytest.approx(100)
    assert metrics.requests[0].tpot_ms is None


def test_an_empty_trace_measures_to_nothing():
    metrics = measure(trace_of([], {"a": 3}))
    assert (metrics.num_steps, metrics.duration_s, metrics.output_tokens_per_s, metrics.kv_total_blocks) == (0, 0.0, 0.0, 0)
    assert metrics.ttft_ms.count == 0
    assert math.isnan(metrics.ttft_ms.p50)


def test_a_request_that_the_trace_lacks_is_measured_from_its_records():
    metrics = measure(trace_of([record(0, 0.0, 10, sampled={"x": 1}, arrived=(Arrival("x", 0.0),))], {}))
    assert [request.request_id for request in metrics.requests] == ["x"]


def batched(spans):
    """The records of a static batcher over unit steps, from (arrivals, lengths) of each batch in turn."""
    clock, records = 0, []
    for number, (start, batch) in enumerate(spans):
        clock = max(clock, start)
        names = [f"{number}{i}" for i in range(len(batch))]
        for unit in range(max(length for _, length in batch)):
            active = [i for i, (_, length) in enumerate(batch) if unit < length]
            records.append(
                record(
                    len(records),
                    clock,
                    1000,
                    sampled={names[i]: 1 for i in active},
                    scheduled=tuple(Scheduled(names[i], "decode", unit, unit + 1) for i in active),
                    arrived=tuple(Arrival(name, arrival) for name, (arrival, _) in zip(names, batch, strict=True)) if unit == 0 else (),
                    finished=tuple(Finished(names[i], "stop") for i in active if unit == batch[i][1] - 1),
                    held=tuple(name for i, name in enumerate(names) if i not in active),
                )
            )
            clock += 1
    return trace_of(records, {})


def test_static_batching_holds_the_short_until_the_longest_of_their_batch_is_done():
    """Six requests arrive at 0, 1, 7, 8, 9, 10 with lengths 3, 8, 2, 5, 2, 4, in batches of three: R1-R3 run from 7 to 15, R4-R6 to 20.

    So latencies are 15, 14, 8, 12, 11, 10, of which 31 is waiting, 24 running and 15 being held.
    """
    trace = batched([(7, [(0, 3), (1, 8), (7, 2)]), (15, [(8, 5), (9, 2), (10, 4)])])
    metrics = measure(trace)
    assert [request.e2e_ms for request in metrics.requests] == pytest.approx([15e3, 14e3, 8e3, 12e3, 11e3, 10e3])
    assert metrics.e2e_ms.mean == pytest.approx(11_667, abs=1)
    assert trace[-1].end_s == 20
    waited = sum(request.queue_ms for request in metrics.requests)
    ran = sum(request.ttft_ms - request.queue_ms + sum(request.itl_ms) for request in metrics.requests)
    assert (waited, ran) == pytest.approx((31e3, 24e3))
    assert sum(request.e2e_ms for request in metrics.requests) - waited - ran == pytest.approx(15e3)


def test_time_per_output_token_leaves_out_the_time_a_request_is_held():
    short = measure(batched([(0, [(0, 3), (0, 8)])])).requests[0]
    assert (short.e2e_ms, short.tpot_ms) == pytest.approx((8000, 1000))


# Speculation: the cases of vLLM's scheduler tests, as (proposed, accepted) per round


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([(3, 3)], (1.0, 4.0, (1.0, 1.0, 1.0))),
        ([(3, 1)], (1 / 3, 2.0, (1.0, 0.0, 0.0))),
        ([(2, 2), (1, 1)], (1.0, 2.5, (1.0, 0.5))),
        ([(1, 1)], (1.0, 2.0, (1.0,))),
        ([(0, 0)], (None, None, ())),
        ([(3, 2), (3, 1)], (0.5, 2.5, (1.0, 0.5, 0.0))),
        ([], (None, None, ())),
    ],
)
def test_acceptance_figures_are_those_of_vllm(rounds, expected):
    assert acceptance(SpecRound("r", proposed, accepted, accepted + 1) for proposed, accepted in rounds) == expected


def test_acceptance_is_measured_over_all_steps():
    records = [
        record(0, 0, 1, spec=(SpecRound("a", 3, 2, 3, 2),)),
        record(1, 1, 1, spec=(SpecRound("a", 3, 1, 2, 1), SpecRound("b", 0, 0, 1))),
    ]
    metrics = measure(trace_of(records, {}))
    assert (metrics.acceptance_rate, metrics.mean_acceptance_length) == (0.5, 2.5)
    assert metrics.acceptance_per_position == (1.0, 0.5, 0.0)


# Speculation: what it gave.  Numbers worked out by hand.


def step_of(number, step_ms, rows, *, draft_ms=0.0, tokens=None, spec=(), **fields):
    """A step of decoding or verifying rows (``name: number of drafts``) that took ``step_ms``, and then ``draft_ms`` for new drafts."""
    kinds = [Scheduled(name, "verify" if drafts else "decode", 5, 6 + drafts, num_drafts=drafts) for name, drafts in rows.items()]
    made = record(number, number / 10, 0, sampled=tokens or dict.fromkeys(rows, 1), scheduled=tuple(kinds), spec=spec, **fields)
    return msgspec.structs.replace(made, timing=StepTiming(1.0, 2.0, step_ms - 5.0, 1.0, 1.0, draft_ms))


def test_speed_ups_are_worked_out_against_plain_steps_of_the_same_batch_size():
    """Two requests.  Plain steps take 20 ms (one stalls).

    Verifying: 25 + 5 ms gave 5 tokens for 2 × 2 drafts, 35 + 10 ms gave 4 tokens for 4 and 2 drafts.  Plain steps take 90 ms for the 9
    tokens, it took 75: 1.2 times as fast.  One draft takes 15 ms / (2 + 4) = 2.5 ms, an eighth of a plain step.
    τ = 1 + 5 / 4 = 2.25 and γ = 10 / 4 = 2.5, so 2.25 / (2.5 / 8 + 1) are predicted.
    """
    first = (SpecRound("a", 2, 2, 3, None, 3, 10), SpecRound("b", 2, 1, 2, 1, 2, 10))
    second = (SpecRound("a", 4, 2, 3, 2, 7, 20), SpecRound("b", 2, 0, 1, 0, 3, 8))
    records = [
        step_of(0, 20, {"a": 0, "b": 0}),
        step_of(1, 500, {"a": 0, "b": 0}),
        step_of(2, 20, {"a": 0, "b": 0}, draft_ms=5),
        step_of(3, 25, {"a": 2, "b": 2}, draft_ms=10, tokens={"a": 3, "b": 2}, spec=first),
        step_of(4, 35, {"a": 4, "b": 2}, tokens={"a": 3, "b": 1}, spec=second),
        step_of(5, 9, {"a": 0}),  # another batch size says nothing
    ]
    metrics = measure(trace_of(records, {}))
    assert metrics.speed_up_measured == pytest.approx(1.2)
    assert metrics.draft_cost == pytest.approx(0.125)
    assert metrics.speed_up_predicted == pytest.approx(2.25 / 1.3125)
    assert (metrics.draft_ms, metrics.verify_ms) == (15, 48)
    assert metrics.accepted_by_draft_length == {2: (1, 1, 1), 4: (0, 0, 1, 0, 0)}
    assert metrics.acceptance_per_position == (0.75, 0.5, 0.0, 0.0)
    assert metrics.conditional_acceptance_per_position == (0.75, 2 / 3, 0.0, None)


@pytest.mark.parametrize("plain", [[], [step_of(0, 9, {"a": 0})], [step_of(0, 20, {"a": 1, "b": 0}, spec=(SpecRound("a", 1, 0, 1, 0),))]])
def test_no_speed_up_is_made_up_where_no_plain_step_of_the_batch_size_was_run(plain):
    verifying = step_of(1, 25, {"a": 2, "b": 2}, spec=(SpecRound("a", 2, 0, 1, 0, 3), SpecRound("b", 2, 0, 1, 0, 3)))
    metrics = measure(trace_of([*plain, verifying], {}))
    assert metrics.acceptance_rate == 0.0
    assert (metrics.speed_up_measured, metrics.speed_up_predicted, metrics.draft_cost) == (None, None, None)


def test_a_verifying_step_that_computes_a_prompt_too_is_not_compared():
    mixed = step_of(1, 25, {"a": 2}, spec=(SpecRound("a", 2, 2, 3),))
    mixed = msgspec.structs.replace(mixed, scheduled=(*mixed.scheduled, prefill("b", 8)))
    records = [step_of(0, 20, {"a": 0}), step_of(2, 20, {"a": 0, "b": 0}), mixed]
    assert measure(trace_of(records, {})).speed_up_measured is None


PADDED = step_of(1, 20, {"a": 2, "b": 2}, spec=(SpecRound("a", 2, 2, 3), SpecRound("b", 2, 0, 1, 0)), admitted=("b",))


def test_placeholder_drafts_of_a_newcomer_count_as_wrong_ones_as_in_vllm():
    metrics = measure(trace_of([PADDED], {}))
    assert (metrics.acceptance_rate, metrics.mean_acceptance_length) == (0.5, 2.0)
    assert metrics.acceptance_per_position == (0.5, 0.5)
    assert metrics.accepted_by_draft_length == {2: (1, 0, 1)}


def test_a_step_that_verifies_placeholders_says_nothing_about_time():
    metrics = measure(trace_of([step_of(0, 20, {"a": 0, "b": 0}), PADDED], {}))
    assert metrics.speed_up_measured is None
    assert metrics.speed_up_missing.startswith("every step that verified drafts computed a prompt or padded a newcomer as well")


PLAIN = [step_of(number, 20, {"a": 0}) for number in (0, 2, 3)]
PLAIN_OF_TWO = [step_of(number, 20, {"a": 0, "b": 0}) for number in (0, 2, 3)]
VERIFYING = step_of(1, 25, {"a": 2}, spec=(SpecRound("a", 2, 2, 3, None, 3, 25),))


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([VERIFYING], "no step without drafts in this run: compare with a run without speculation"),
        ([*PLAIN_OF_TWO, VERIFYING], "no step without drafts had as many requests as one that verified some"),
        ([*PLAIN[:2], VERIFYING], "fewer than 3 steps without drafts had as many requests as those that verified some"),
        ([*PLAIN, msgspec.structs.replace(VERIFYING, scheduled=(*VERIFYING.scheduled, prefill("b", 8)))], "a prompt"),
        ([*PLAIN, VERIFYING], ""),
        (PLAIN, ""),
        ([msgspec.structs.replace(one, timing=StepTiming()) for one in (*PLAIN, VERIFYING)], "took no time"),
    ],
    ids=["no plain step", "another batch size", "two plain steps", "beside a prompt", "comparable", "no drafts", "no clock"],
)
def test_why_there_is_no_speed_up_is_said(records, why):
    metrics = measure(trace_of(records, {}))
    assert why in metrics.speed_up_missing
    assert bool(metrics.speed_up_missing) == bool(why)
    assert (metrics.speed_up_measured is None) == (bool(why) or metrics.acceptance_rate is None)


def test_a_round_that_never_had_a_draft_did_not_refuse_it():
    short, long = [(SpecRound("a", 1, 1, 2),)] * 3, [(SpecRound("a", 2, 2, 3),)]
    records = [step_of(number, 20, {"a": spec[0].proposed}, spec=spec) for number, spec in enumerate(short + long)]
    metrics = measure(trace_of(records, {}))
    assert metrics.acceptance_per_position == (1.0, 0.25)
    assert metrics.conditional_acceptance_per_position == (1.0, 1.0)


def test_the_json_of_a_run_has_the_same_names():
    metrics = as_data(speculative_run())["metrics"]
    assert metrics["accepted_by_draft_length"] == {"4": [0, 0, 1, 0, 1]}
    assert metrics["acceptance_per_position"] == [1.0, 1.0, 0.5, 0.5]
    assert metrics["conditional_acceptance_per_position"] == [1.0, 1.0, 0.5, 1.0]
    assert (metrics["acceptance_rate"], metrics["mean_acceptance_length"]) == (0.75, 4.0)
    assert (metrics["draft_ms"], metrics["verify_ms"], metrics["draft_cost"]) == (20.0, 60.0, 0.125)
    assert (metrics["speed_up_measured"], metrics["speed_up_predicted"]) == pytest.approx((2.0, 4 / 1.5))


def test_without_speculation_its_figures_are_empty():
    metrics = measure(trace_of([step_of(0, 20, {"a": 0})], {}))
    assert (metrics.conditional_acceptance_per_position, metrics.accepted_by_draft_length) == ((), {})
    assert (metrics.draft_ms, metrics.verify_ms, metrics.speed_up_measured) == (0.0, 0.0, None)


# Percentiles


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values, percent):
    assert percentile(sorted(values), percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_a_summary_is_ordered_and_within_the_observations(values):
    found = Percentiles.of(values)
    assert min(values) <= found.p50 <= found.p90 <= found.p99 <= max(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.count == len(values)
