"""Decisions of TensorRT-LLM's and SGLang's policies in words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_explain import check_decision, run_of, said
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench.events import Reason
from workbench.explain import Explanation, explain
from workbench.explain.afterwards import afterwards
from workbench.explain.scene import Scene
from workbench.explain.sentences import sentence
from workbench.lives import life
from workbench.prefix_story import prefix_story


def first(trace, reason):
    """The first decision for a reason: who, and in which step."""
    return next((decision.request_id, record.step) for record in trace for decision in record.decisions if decision.reason is reason)


def test_blocks_that_are_reserved_to_the_end():
    one = explain(run_of((8, 12), (8, 12), (8, 12), policy="guaranteed_no_evict", num_blocks=12), "r2", 0)
    why = "to its end it may need 5 blocks, and 2 of 12 are not in use or reserved; r0 has reserved the most"
    assert one.sentence == f"r2 was not admitted in step 0: {why}."
    assert one.chain[0] == "r2 waits for blocks that r0 has reserved."
    freed = "r0 finished in step 11 (5 blocks) and r1 finished in step 11 (5 blocks)"
    assert one.afterwards == f"It was admitted in step 12, 12 steps later, after {freed}."


def test_a_sibling_that_computes_the_same_beginning():
    trace = run_of((list(range(9)), 3), (list(range(9)), 3), policy="guaranteed_no_evict", enable_prefix_caching=True)
    one = explain(trace, "r1", 0)
    assert one.sentence == "r1 was not admitted in step 0: r0 is to compute the same beginning first, which spares it the work."
    assert one.chain[0] == "r1 waits for r0 to compute their common beginning."


def test_a_request_that_is_paused_for_another():
    trace = run_of((8, 12), (8, 12), policy="max_utilization", num_blocks=6)
    assert said(trace, *first(trace, Reason.PREEMPTED_FOR)) == (
        "r1 was preempted in step 5 for r0, which needed 1 more block and 0 were free; with policy max_utilization the last started goes.  "
        "It lost 12 computed tokens and let go of 3 blocks."
    )
    end = "; prefix caching is off, so the 12 tokens that it had lost had to be computed again."
    assert explain(trace, "r1", 5).afterwards.endswith(end)


def test_prompts_that_wait_while_somebody_generates():
    trace = run_of((8, 12), (8, 12, {"arrival_step": 1}), policy="static_batch", num_blocks=16)
    why = "with policy static_batch prompts are computed only while nobody generates, and 1 of at most 16 do, r0 first"
    assert said(trace, "r1", 1) == f"r1 was not admitted in step 1: {why}."


def test_decoding_waits_while_prompts_are_computed():
    trace = run_of((4, 40), (4, 40, {"arrival_step": 1}), policy="lpm")
    why = "this step computes prompts only, 1 prompt from r1 on; decoding goes on after"
    assert said(trace, "r0", 1) == f"r0 did not run in step 1: {why}."


def test_memory_that_others_are_expected_to_need():
    trace = run_of((4, 40), (4, 40), policy="lpm", num_blocks=24)
    why = "it is expected to need 48 tokens, and of the pool's 96 tokens 48 are expected to be left by those that run"
    assert said(trace, "r1", 0) == f"r1 was not admitted in step 0: {why}."
    why = "the batch of 1 request was found full before, and nobody has left it since; it is 1st in the queue"
    assert said(trace, "r1", 1) == f"r1 was not admitted in step 1: {why}."


def test_a_retracted_request_says_what_it_lost_and_found_again():
    trace = run_of((4, 40), (4, 40, {"arrival_step": 1}), policy="lpm", num_blocks=21, enable_prefix_caching=True)
    one = explain(trace, "r1", 38)
    assert one.sentence == (
        "r1 was retracted in step 38: the next tokens of all needed 2 more blocks and 1 were free; with policy lpm "
        "the one with the fewest output tokens goes.  It lost 40 computed tokens and let go of 10 blocks."
    )
    assert one.afterwards.endswith("it found 4 tokens (1 block) in the prefix cache, and had lost 40.")
    segment = next(segment for segment in life(trace, "r1").segments if segment.kind == "preempted")
    assert (segment.cause, segment.other, segment.num_steps) == ("because the next tokens of all did not fit", None, 3)


def test_output_of_a_retracted_request_is_not_kept_by_the_radix_cache():
    trace = run_of((4, 40), (4, 40, {"arrival_step": 1}), policy="lpm", num_blocks=21, enable_prefix_caching=True)
    story = prefix_story(trace, "r1", 41)
    assert (story.cause, story.hits) == ("not_kept", 1)
    assert "had been computed by it, but could not be found: with policy lpm" in story.sentence


OTHERS = ("guaranteed_no_evict", "max_utilization", "static_batch", "lpm")


def of_other_engines(knobs, policy):
    """Knobs with which a policy of another engine can run."""
    budget = max(knobs["max_num_batched_tokens"], knobs["block_size"], knobs["max_num_seqs"])
    own = {"policy": policy, "batching": "continuous", "num_speculative_tokens": 0, "long_prefill_token_threshold": 0}
    return {**knobs, **own, "max_num_batched_tokens": budget}


@settings(max_examples=40, deadline=None)
@given(workloads(), st.sampled_from(OTHERS))
def test_decisions_of_other_engines_policies_name_their_numbers(workload, policy):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(of_other_engines(knobs, policy), requests), requests).trace
    for record in trace.records[:40]:
        scene = Scene(trace, record)
        for decision in record.decisions:
            words, after = sentence(scene, decision), afterwards(scene, decision)
            check_decision(Explanation(decision.request_id, record.step, decision, words, (), after))
        for name in record.admitted:
            story = prefix_story(trace, name, record.step)
            assert story.num_cached == story.hits * story.block_size
            assert story.hits <= story.possible
    for name in trace.requests:
        assert name in life(trace, name).story
