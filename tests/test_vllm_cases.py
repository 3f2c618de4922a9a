"""Unit cases of vLLM's scheduler that its recorded decisions do not cover, with their numbers.

Source of each: vLLM ``tests/v1/core/test_scheduler.py@003df296``, the test named in the docstring.  Those about batches, chunks, preemption
and priorities are recorded (``tests/data/vllm-0.32.0/textbook.jsonl.gz``) or stand in ``test_scheduler.py``.
"""

from __future__ import annotations

import pytest
from test_scheduler import scheduler_with, state_with, step

from workbench import Engine, EngineConfig
from workbench.adjust import reset_prefix_cache
from workbench.events import Reason
from workbench.metrics import PrefixCacheStats, acceptance, prefix_cache_stats
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.runners.scripted import ScriptedRunner
from workbench.scheduler import Scheduler, stop_rule
from workbench.speculative.measured import speculation
from workbench.state import Status

EOS = 50256


def verification(drafts, outputs, **sampling):
    """Requests of one token: a first step proposes the drafts, a second verifies them; returns scheduler and second record.

    ``sampling`` is that of the first request.
    """
    config = EngineConfig(max_num_batched_tokens=8192, num_speculative_tokens=max(1, *map(len, drafts)))
    scheduler = Scheduler(config, num_blocks=100, max_model_len=1000)
    for index in range(len(drafts)):
        own = SamplingParams(**sampling) if index == 0 else SamplingParams()
        scheduler.add(Request(id=f"r{index}", prompt_token_ids=(index,), sampling=own, eos_token_ids=(EOS,)))
    plan = scheduler.plan()
    scheduler.commit(plan, StepOutput([[0] for _ in drafts], proposed=[list(row) for row in drafts]))
    plan = scheduler.plan()
    assert [list(row.draft_token_ids) for row in plan.rows] == drafts
    assert [row.num_tokens for row in plan.rows] == [1 + len(row) for row in drafts]
    return scheduler, scheduler.commit(plan, StepOutput([list(row) for row in outputs]))


# -- speculation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drafts", "outputs", "expected"),
    [
        ([[1, 2, 3]], [[1, 2, 3, 4]], (1, 3, 3, [1, 1, 1])),
        ([[1, 2, 3]], [[1, 5]], (1, 3, 1, [1, 0, 0])),
        ([[1, 2], [3]], [[1, 2, 5], [3, 4]], (2, 3, 3, [2, 1])),
        ([[1]], [[1, 2]], (1, 1, 1, [1])),
        ([[]], [[5]], (0, 0, 0, [])),
        ([[1, 2, 3], [4, 5, 6]], [[1, 2, 7], [4, 8]], (2, 6, 3, [2, 1, 0])),
    ],
)
def test_every_verification_is_counted_as_vllm_counts_it(drafts, outputs, expected):
    """test_schedule_spec_decoding_stats: (drafts, draft tokens, accepted tokens, accepted at each position)."""
    scheduler, record = verification(drafts, outputs)
    rounds = record.spec
    positions = [sum(entry.accepted > place for entry in rounds) for place in range(max((entry.proposed for entry in rounds), default=0))]
    assert (len(rounds), sum(entry.proposed for entry in rounds), sum(entry.accepted for entry in rounds), positions) == expected
    rate, length, shares = acceptance(rounds)
    if rounds:
        assert (rate, length) == (expected[2] / expected[1], 1 + expected[2] / expected[0])
        assert [share * expected[0] for share in shares] == expected[3]
    for state, output in zip(scheduler.queues.running, outputs, strict=True):
        assert state.output_token_ids == [0, *output]
        assert state.num_computed_tokens == state.num_tokens - 1  # what was rejected is not computed


def test_a_newcomers_placeholders_are_counted_as_vllm_counts_them():
    """Read off vLLM 0.32.0's own scheduler: ``SpecDecodingStats`` of these steps, with ``[-1, -1, -1]`` scheduled for the newcomer."""
    scheduler = Scheduler(EngineConfig(num_speculative_tokens=3), num_blocks=100, max_model_len=512)
    prompt = tuple(range(17))  # a block and one token: all but one are found by the second request
    sampling = SamplingParams(max_tokens=20, ignore_eos=True)

    def step(tokens, proposed):
        plan = scheduler.plan()
        assert [row.request.id for row in plan.rows] == list(tokens)
        return scheduler.commit(plan, StepOutput(list(tokens.values()), proposed=proposed))

    scheduler.add(Request(id="a", prompt_token_ids=prompt, sampling=sampling))
    first = step({"a": [5]}, [[6, 7, 8]])
    scheduler.add(Request(id="b", prompt_token_ids=prompt, sampling=sampling))
    second = step({"a": [6, 7, 8, 9], "b": [5]}, [[1, 2, 3], [1, 2, 3]])
    third = step({"a": [4], "b": [1, 2, 9]}, None)
    assert second.admitted == ("b",)
    assert [counts(speculation([record]), record) for record in (first, second, third)] == [
        (0, 0, 0, []),
        (2, 6, 3, [1, 1, 1]),
        (2, 6, 2, [1, 1, 0]),
    ]


def counts(metrics, record):
    """``num_drafts``, ``num_draft_tokens``, ``num_accepted_tokens`` and ``num_accepted_tokens_per_pos``, from the figures of one step."""
    rounds = sum(sum(found) for found in metrics.accepted_by_draft_length.values())
    proposed = sum(length * sum(found) for length, found in metrics.accepted_by_draft_length.items())
    positions = [round(share * rounds) for share in metrics.acceptance_per_position]
    if rounds:
        assert metrics.acceptance_rate == sum(positions) / proposed
        assert metrics.mean_acceptance_length == 1 + sum(positions) / rounds
    assert (rounds, proposed) == (len(record.spec), sum(one.proposed for one in record.spec))
    return rounds, proposed, sum(positions), positions


# -- stop rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drafts", "output", "sampling", "kept", "finish"),
    [
        ([], [EOS], {}, [EOS], ("stop", None)),
        ([10], [10, EOS], {}, [10, EOS], ("stop", None)),
        ([EOS], [EOS, 11], {}, [EOS], ("stop", None)),
        ([10, 42], [10, 42, 12], {"stop_token_ids": (42, 43)}, [10, 42], ("stop", 42)),
        ([10, 11], [10, 11, 12], {"max_tokens": 3}, [10, 11], ("length", None)),  # one token came before the verification
        ([EOS, 10], [EOS, 10, 11], {"ignore_eos": True}, [EOS, 10, 11], None),
        ([10], [10, 11], {}, [10, 11], None),
    ],
)
def test_a_verification_ends_at_the_first_token_that_ends_the_request(drafts, output, sampling, kept, finish):
    """test_stop_via_update_from_output: what comes after the token that stops is thrown away; another request goes on."""
    scheduler, record = verification([drafts, [13]], [output, [13, 14]], **sampling)
    by_id = {entry.request_id: list(entry.token_ids) for entry in record.sampled}
    assert by_id == {"r0": kept, "r1": [13, 14]}
    ended = {end.request_id: (end.reason, end.stop_reason) for end in record.finished}
    assert ended.get("r0") == finish
    assert [state.id for state in scheduler.queues.running] == [name for name in ("r0", "r1") if name not in ended]


@pytest.mark.parametrize(
    ("tokens", "sampling", "rule"),
    [
        ([10, 11, EOS], {"min_tokens": 5}, None),
        ([10, 11, EOS, 10, 12, EOS], {"min_tokens": 5}, ("stop", None)),
        ([10, EOS], {"min_tokens": 0}, ("stop", None)),
        ([10, 42], {"min_tokens": 5, "stop_token_ids": (42,)}, None),
        ([10, 42, 10, 11, 12, 42], {"min_tokens": 5, "stop_token_ids": (42,)}, ("stop", 42)),
        ([10, 11, 12, 13, EOS], {"min_tokens": 5, "max_tokens": 5}, ("stop", None)),
        ([10, 11, 12, 13, 14], {"min_tokens": 5, "max_tokens": 5}, ("length", None)),
    ],
)
def test_nothing_but_length_stops_a_request_before_its_min_tokens(tokens, sampling, rule):
    """test_check_stop_min_tokens."""
    assert stop_rule(state_with(tokens, **{"max_tokens": 20, **sampling}), tokens[-1]) == rule


# -- the prefix cache --------------------------------------------------------------------------------------------------


def waiting_for_blocks(**knobs):
    """Six blocks: ``seed`` left 32 tokens in the cache, ``hog`` holds the other 4 blocks, ``retried`` (48 tokens) waits for them."""
    engine = Engine(ScriptedRunner(), block_size=16, num_blocks=6, **knobs)
    engine.add_request(list(range(32)), request_id="seed", max_tokens=1)
    engine.step()
    engine.add_request(list(range(100, 160)), request_id="hog", max_tokens=4)
    engine.step()
    engine.add_request(list(range(48)), request_id="retried", max_tokens=1)
    begins = engine.scheduler.step
    while engine.has_unfinished:
        engine.step()
    return engine.trace, begins


def test_a_request_that_was_tried_several_times_asks_the_cache_once():
    """test_prefix_cache_stats_counted_once_for_retried_then_scheduled_request: (requests, queries, hits) = (1, 48, 32).

    There an allocation is made to fail; here the pool is full for three steps.
    """
    trace, begins = waiting_for_blocks()
    tries = [d.reason for record in trace for d in record.decisions if d.request_id == "retried"]
    assert tries == [Reason.NO_FREE_BLOCKS, Reason.NO_FREE_BLOCKS, Reason.NO_FREE_BLOCKS, Reason.FULL]
    assert [prefix_cache_stats(trace[begins:end]) for end in (begins + 1, begins + 3)] == [PrefixCacheStats(0, 0, 0)] * 2
    assert prefix_cache_stats(trace[begins:]) == PrefixCacheStats(1, 48, 32)
    assert prefix_cache_stats(trace) == PrefixCacheStats(3, 32 + 60 + 48, 32)


def test_a_cache_that_is_off_is_asked_nothing():
    """test_prefix_cache_stats_not_recorded_when_caching_disabled."""
    assert prefix_cache_stats(waiting_for_blocks(enable_prefix_caching=False)[0]) == PrefixCacheStats(0, 0, 0)


def test_the_cache_is_reset_only_when_nobody_runs_or_all_are_sent_back():
    """test_scheduler_reset_prefix_cache: refused with 10 running; with ``reset_running_requests`` they wait again, in order."""
    scheduler = scheduler_with([10] * 10)
    names = [f"r{index}" for index in range(10)]
    step(scheduler)
    assert [state.id for state in scheduler.queues.running] == names
    assert not reset_prefix_cache(scheduler)
    assert [state.id for state in scheduler.queues.running] == names
    assert reset_prefix_cache(scheduler, reset_running_requests=True)
    assert not scheduler.queues.running
    assert [state.id for state in scheduler.queues.waiting] == names
    for state in scheduler.queues.waiting:
        assert (state.status, state.num_computed_tokens, state.block_ids) == (Status.PREEMPTED, 0, [])
    assert scheduler.kv.pool.usage.in_use == scheduler.kv.pool.usage.cached == 0
    scheduler.check_integrity()
    assert step(scheduler) == [11] * 10  # they come back with the token that they had
