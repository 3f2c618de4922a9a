"""What drafting takes of the KV cache: slots beyond a request's tokens, and the last block found by prefix.

Both are vLLM 0.32.0's: ``VllmConfig.num_lookahead_tokens`` and ``KVCacheManager.allocate_slots`` for the slots,
``use_eagle_block_drop`` in ``single_type_kv_cache_manager.py`` for the block.
"""

from __future__ import annotations

import pytest

from workbench import EngineConfig
from workbench.events import ModelFacts
from workbench.plan import StepOutput
from workbench.prefix_story import prefix_story
from workbench.request import Request, SamplingParams
from workbench.scheduler import Scheduler
from workbench.trace import Trace


def scheduler_of(method, *, num_blocks=32, max_model_len=128, **knobs):
    config = EngineConfig(speculative=method, num_speculative_tokens=4, block_size=4, **knobs)
    return Scheduler(config, num_blocks=num_blocks, max_model_len=max_model_len)


def request(name, length, max_tokens=40):
    return Request(id=name, prompt_token_ids=tuple(range(length)), sampling=SamplingParams(max_tokens=max_tokens, ignore_eos=True))


def step(scheduler, token=7, drafts=None):
    """One step in which everybody who samples gets ``token``; returns the record."""
    plan = scheduler.plan()
    tokens = [[token] if row.samples else [] for row in plan.rows]
    proposed = [list(drafts or ()) if each else [] for each in tokens]
    return scheduler.commit(plan, StepOutput(tokens, proposed))


def blocks_of(scheduler, name="r0"):
    return len(scheduler.queues.states[name].block_ids)


@pytest.mark.parametrize(("method", "blocks"), [("eagle", 3), ("draft:int8", 3), ("ngram", 2), ("suffix", 2)])
def test_a_newcomer_gets_slots_for_the_drafts_that_are_made_in_the_cache(method, blocks):
    scheduler = scheduler_of(method)
    scheduler.add(request("r0", 6))
    step(scheduler)
    assert blocks_of(scheduler) == blocks


@pytest.mark.parametrize("method", ["eagle", "draft:int8", "ngram"])
def test_a_running_request_has_them_beyond_what_it_verifies(method):
    scheduler = scheduler_of(method)
    scheduler.add(request("r0", 6))
    step(scheduler, drafts=[1, 2, 3, 4])
    step(scheduler, drafts=[1, 2, 3, 4])  # reads token 6 and drafts 7 … 10
    ahead = 0 if method == "ngram" else 4
    assert blocks_of(scheduler) == -(-(11 + ahead) // 4)


def test_never_beyond_the_longest_request():
    scheduler = scheduler_of("eagle", max_model_len=12)
    scheduler.add(request("r0", 10))
    step(scheduler)
    assert blocks_of(scheduler) == 3


def test_a_request_that_fills_the_pool_alone_still_ends():
    scheduler = scheduler_of("eagle", num_blocks=4, max_model_len=16, debug=True)
    scheduler.add(request("r0", 6, max_tokens=10))
    records = []
    while scheduler.has_unfinished:
        records.append(step(scheduler))
        assert len(records) < 30
    assert sum(len(sampled.token_ids) for record in records for sampled in record.sampled) == 10


@pytest.mark.parametrize(("method", "cached"), [("eagle", 4), ("draft:int8", 8), ("ngram", 8), (None, 8)])
def test_an_eagle_head_gives_up_the_last_block_found_and_its_story_says_so(method, cached):
    scheduler = scheduler_of(method) if method else Scheduler(EngineConfig(block_size=4), num_blocks=32, max_model_len=128)
    trace = Trace(scheduler.config, ModelFacts(name="none"))
    for name in ("r0", "r1"):
        newcomer = request(name, 10)
        trace.add_request(newcomer)
        scheduler.add(newcomer)
        trace.append(step(scheduler))
    row = next(row for row in trace[1].scheduled if row.request_id == "r1")
    assert row.num_cached == row.start == cached
    story = prefix_story(trace, "r1")
    assert story.cause == ("given_up" if method == "eagle" else "complete")
    assert ("found and given up" in story.sentence) == (method == "eagle")
