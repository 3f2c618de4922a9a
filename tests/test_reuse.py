"""The order in which free blocks are reused, worked out from records alone, against the free queue of the real scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_workloads import policy_workloads
from test_moment import CHANGES, changed_in_mid_run, resize
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import ConfigError, Engine, RequestError
from workbench.adjust import apply, reset_prefix_cache
from workbench.events import BlockEvent
from workbench.moment.fold import Fold
from workbench.moment.reuse import OrderedPool, ReuseOrder, has_order
from workbench.rebuild import beginning, originals, recorded_output
from workbench.runners.scripted import ScriptedRunner


def orders(trace):
    """Pairs of orders: worked out, and real; after planning and after committing each step.  Ends where the order was given up."""
    scheduler, requests = beginning(trace), originals(trace)
    fold = Fold(trace, trace.records[0], OrderedPool)
    for record in trace.records:
        for command in record.commands:
            apply(scheduler, command, requests)
        plan = scheduler.plan(record.start_s)
        fold.plan(record)
        if fold.pool.order is None:
            return
        yield fold.pool.order.blocks(), scheduler.kv.pool.free_order()
        scheduler.commit(plan, recorded_output(record, plan))
        fold.commit(record)
        yield fold.pool.order.blocks(), scheduler.kv.pool.free_order()


def assert_follows(trace):
    compared = list(orders(trace))
    assert len(compared) == 2 * len(trace)
    for found, real in compared:
        assert found == real


@settings(max_examples=100, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3))
def test_the_order_is_that_of_vllms_free_queue_at_every_step(workload, fails):
    knobs, requests = workload
    assert_follows(run_to_the_end(engine_of(knobs, requests, fails), requests).trace)


@settings(max_examples=60, deadline=None)
@given(policy_workloads(("guaranteed_no_evict", "max_utilization", "static_batch")), st.sets(st.integers(0, 25), max_size=2))
def test_the_order_under_tensorrts_policies_is_the_queues_too(workload, fails):
    knobs, requests = workload
    assert_follows(run_to_the_end(engine_of(knobs, requests, fails), requests).trace)


def reset(running):
    return lambda engine: reset_prefix_cache(engine.scheduler, reset_running_requests=running)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.integers(0, 25), st.lists(st.sampled_from([*CHANGES, reset(False), reset(True)]), max_size=4), max_size=8))
def test_pools_that_grow_and_shrink_resets_restarts_and_aborts_are_followed(changes):
    assert_follows(changed_in_mid_run(changes))


def run_with_changes(workload, changes, fails=()):
    """A workload during which things are done to the engine between steps; those that it refuses are left out."""
    knobs, requests = workload
    engine = engine_of(knobs, requests, fails)
    for _ in range(400):
        for change in changes.get(engine.scheduler.step, ()):
            try:
                change(engine)
            except (ConfigError, RequestError):
                continue
        try:
            engine.step()
        except RuntimeError:
            continue
        if not engine.has_unfinished:
            return engine.trace
    return engine.trace  # a change may leave a request that can never run


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(workloads(), policy_workloads(("guaranteed_no_evict", "max_utilization", "static_batch"))),
    st.dictionaries(st.integers(0, 25), st.lists(st.sampled_from([*CHANGES, reset(False), reset(True)]), max_size=3), max_size=6),
    st.sets(st.integers(0, 25), max_size=2),
)
def test_the_order_is_exact_or_given_up_whatever_is_done_to_an_engine(workload, changes, fails):
    for found, real in orders(run_with_changes(workload, changes, fails)):
        assert found == real


def test_a_change_of_size_after_a_failed_attempt_gives_the_order_up_for_the_record_does_not_tell_which_came_first():
    engine = engine_of(
        {"num_blocks": 8, "block_size": 4, "num_speculative_tokens": 0},
        [{"prompt_token_ids": [1] * 9, "max_tokens": 9, "abort_at": None}],
        {2},
    )
    for _ in range(2):
        engine.step()
    with pytest.raises(RuntimeError):
        engine.step()
    resize(12)(engine)
    engine.step()
    assert len(list(orders(engine.trace))) == 4


def test_keys_rise_along_the_queue_and_stay_while_a_block_stays_in_it():
    order = ReuseOrder(range(1, 7))
    assert order.take(1, front=True)
    assert order.take(2, front=True)
    before = {block_id: order.key(block_id) for block_id in order.blocks()}
    order.prepend([2])
    order.append(1)
    assert order.blocks() == (2, 3, 4, 5, 6, 1)
    keys = [order.key(block_id) for block_id in order.blocks()]
    assert keys == sorted(keys)
    assert before.items() <= {block_id: order.key(block_id) for block_id in order.blocks()}.items()


@pytest.mark.parametrize("event", [BlockEvent("allocated", 3, "r0"), BlockEvent("hit", 9, "r0", "ab")])
def test_records_that_contradict_the_order_end_it(event):
    pool = OrderedPool(4, from_the_start=True)
    pool.apply(event)
    assert pool.order is None


def test_there_is_no_order_in_a_radix_cache_nor_in_a_trace_without_its_beginning():
    def trace_of(**knobs):
        with Engine(ScriptedRunner(), num_blocks=8, block_size=4, **knobs) as engine:
            engine.run([list(range(9))], max_tokens=3)
            return engine.trace

    assert has_order(trace_of())
    assert not has_order(trace_of(policy="lpm"))
    assert not has_order(trace_of()[1:])
    assert OrderedPool(4, from_the_start=False).order is None
