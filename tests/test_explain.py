"""Every decision in one plain sentence with its numbers; chains, what came after, and whole steps."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import Engine
from workbench.adjust import change_knobs
from workbench.events import Decision, Reason, Verdict
from workbench.explain import explain, explain_step
from workbench.explain.afterwards import afterwards
from workbench.explain.scene import Scene
from workbench.explain.sentences import TELLERS, sentence
from workbench.runners.scripted import ScriptedRunner


def run_of(*requests, drafts=None, **knobs):
    """A scripted run to its end; a request is (prompt length or tokens, max_tokens, further fields)."""
    engine = engine_with(*requests, drafts=drafts, **knobs)
    while engine.has_unfinished:
        engine.step()
    return engine.trace


def engine_with(*requests, drafts=None, **knobs):
    knobs = {"block_size": 4, "num_blocks": 32, "enable_prefix_caching": False, "debug": True, **knobs}
    engine = Engine(ScriptedRunner(lambda name, position: 50 + position, drafts=drafts, step_ms=10.0), **knobs)
    for index, (prompt, max_tokens, *more) in enumerate(requests):
        tokens = list(range(100 * index, 100 * index + prompt)) if isinstance(prompt, int) else prompt
        engine.add_request({"prompt_token_ids": tokens, "max_tokens": max_tokens, **(more[0] if more else {})})
    return engine


def said(trace, request_id, step):
    return explain(trace, request_id, step).sentence


# -- a sentence for every reason -----------------------------------------------------------------------------------------


def test_a_request_that_ran_in_full_says_what_it_did():
    trace = run_of((5, 3), (2, 2, {"arrival_step": 1}))
    assert said(trace, "r0", 0) == "r0 was admitted and ran in full in step 0, 5 tokens: it computed tokens 0 to 4."
    assert said(trace, "r0", 2) == "r0 ran in full in step 2, 1 token: it decoded output token 3."


def test_verified_drafts_are_counted():
    trace = run_of((5, 9), drafts=lambda name, known: [50 + len(known) - 5, 0], num_speculative_tokens=2)
    assert said(trace, "r0", 1) == "r0 ran in full in step 1, 3 tokens: it verified 2 drafts, 1 of which were accepted."


def test_a_chunk_cut_by_the_token_budget():
    trace = run_of((12, 2), (6, 2), max_num_batched_tokens=16)
    expected = "r1 was admitted and ran in part in step 0, 4 of 6 tokens: 4 were all that was left of the token budget of 16."
    assert said(trace, "r1", 0) == expected
    assert explain(trace, "r1", 0).afterwards == "It next ran in step 1, 2 tokens, when 15 of the token budget of 16 were left for it."


def test_waiting_for_the_token_budget_in_the_queue_and_in_the_batch():
    trace = run_of((8, 2), (5, 2), max_num_batched_tokens=8)
    assert said(trace, "r1", 0) == "r1 was not admitted in step 0: 1 request used up the token budget of 8; it is 1st in the queue."
    engine = engine_with((2, 9), (2, 9), (2, 9))
    engine.step()
    change_knobs(engine.scheduler, {"max_num_batched_tokens": 2})
    engine.step()
    expected = "r2 did not run in step 1: 2 requests used up the token budget of 2; it had 1 token to compute."
    assert said(engine.trace, "r2", 1) == expected


def test_a_chunk_cut_by_the_threshold():
    trace = run_of((12, 2), (2, 2), long_prefill_token_threshold=5)
    why = "long_prefill_token_threshold lets a request compute 5 in a step while others run or wait"
    assert said(trace, "r0", 0) == f"r0 was admitted and ran in part in step 0, 5 of 12 tokens: {why}."


def test_drafts_cut_by_max_model_len():
    trace = run_of((5, 9), drafts=lambda name, known: [0] * 3, num_speculative_tokens=3, max_model_len=8)
    cut = next(d for record in trace for d in record.decisions if d.reason is Reason.MAX_MODEL_LEN)
    step = next(record.step for record in trace if cut in record.decisions)
    expected = f"r0 ran in part in step {step}, {cut.num_tokens} of {cut.needed} tokens: max_model_len 8 leaves room for no more."
    assert said(trace, "r0", step) == expected


def test_waiting_for_a_place():
    trace = run_of((4, 3), (4, 5), (4, 2), (4, 2), max_num_seqs=2)
    one = explain(trace, "r3", 0)
    assert one.sentence == "r3 was not admitted in step 0: 2 requests run and max_num_seqs is 2; it is 2nd in the queue."
    freed = "r0 finished in step 2 (2 blocks), r1 finished in step 4 (2 blocks) and r2 finished in step 4 (2 blocks)"
    assert one.afterwards == f"It was admitted in step 5, 5 steps later, after {freed}."


def test_waiting_for_blocks_names_who_holds_the_most_and_what_freed_them():
    trace = run_of((12, 6), (20, 9), (16, 2, {"arrival_step": 1}), num_blocks=10)
    one = explain(trace, "r2", 1)
    assert one.sentence == "r2 was not admitted in step 1: it needs 4 blocks and 0 are free; r1 holds the most, 6."
    assert one.chain == ("r2 waits for blocks that r1 holds, 6 of 10.", "r1 ran in full in step 1, 1 token: it decoded output token 2.")
    freed = "r1 was preempted in step 5 (6 blocks), r0 finished in step 5 (5 blocks) and r1 finished in step 9 (7 blocks)"
    assert one.afterwards == f"It was admitted in step 10, 9 steps later, after {freed}."


def test_waiting_behind_another_is_followed_to_its_cause():
    trace = run_of((12, 6), (20, 9), (16, 2, {"arrival_step": 1}), (2, 2, {"arrival_step": 1}), num_blocks=10)
    one = explain(trace, "r3", 1)
    assert one.sentence == "r3 was not admitted in step 1: it waits behind r2, 2nd in the queue, and nobody overtakes in the queue."
    assert one.chain[:2] == ("r3 waits behind r2.", "r2 waits for blocks that r1 holds, 6 of 10.")
    assert "and r2 was admitted in step 10" in one.afterwards


def test_a_preempted_request_says_for_whom_and_what_it_lost_and_found_again():
    trace = run_of((8, 12), (8, 12), num_blocks=6, enable_prefix_caching=True)
    step = next(record.step for record in trace if record.preempted)
    one = explain(trace, "r1", step)
    assert one.sentence == (
        f"r1 was preempted in step {step} for r0, which needed 1 more block and 0 were free; with policy fcfs the last admitted goes.  "
        "It lost 12 computed tokens and let go of 3 blocks."
    )
    assert one.chain[0] == "r1 gave way to r0."
    assert one.afterwards.startswith("It was resumed in step 12, 7 steps later, after r0 finished in step 11 (5 blocks); it found ")
    assert one.afterwards.endswith("in the prefix cache, and had lost 12.")


def test_a_request_that_preempts_itself():
    trace = run_of((4, 3), (4, 9), num_blocks=3, reserve_full_prompt=False)
    step = next(record.step for record in trace if "r1" in record.preempted)
    why = "it needed 1 more block and 0 were free; with policy fcfs the last admitted goes, which was itself"
    assert said(trace, "r1", step).startswith(f"r1 was preempted in step {step}: {why}.")


def test_priorities_are_told_when_they_choose_the_victim():
    trace = run_of((8, 12, {"priority": 5}), (8, 12, {"priority": 1}), num_blocks=6, policy="priority")
    step = next(record.step for record in trace if "r0" in record.preempted)
    rule = "with policy priority the largest (priority, arrival) goes (priority 5, that of r1 is 1)"
    assert rule in said(trace, "r0", step)


def test_nobody_is_admitted_in_a_step_that_preempts():
    trace = run_of((8, 12), (8, 12), (2, 2, {"arrival_step": 5}), num_blocks=6)
    step = next(record.step for record in trace if record.preempted)
    one = explain(trace, "r2", step)
    assert one.sentence == f"r2 was not admitted in step {step}: nobody is admitted in a step that preempts, and r1 had to go."
    assert one.chain[:2] == ("r2 waits because r1 was preempted.", "r1 gave way to r0.")


def test_running_requests_behind_one_that_preempted_itself():
    requests = [(3, 9, {"priority": 9}), (5, 9, {"priority": 1, "arrival_step": 1})]
    trace = run_of(*requests, num_blocks=3, max_model_len=12, policy="priority", reserve_full_prompt=False)
    one = explain(trace, "r1", 2)
    assert one.sentence == "r1 did not run in step 2: r0, before it in the batch, had to go itself, and planning ended there."
    assert one.chain[0] == "r1 waits because r0 was preempted."
    assert one.afterwards == "It next ran in step 3."


def test_without_chunked_prefill_a_prompt_waits_for_a_budget_that_holds_it():
    trace = run_of((10, 2), (8, 2), enable_chunked_prefill=False, max_num_batched_tokens=16)
    why = "chunked prefill is off and its 8 tokens do not fit the 6 that are left of the token budget of 16"
    assert said(trace, "r1", 0) == f"r1 was not admitted in step 0: {why}."
    assert explain(trace, "r1", 0).afterwards.endswith("when 15 of the token budget of 16 were left for it.")


def test_room_for_placeholder_drafts():
    knobs = {"num_speculative_tokens": 3, "max_num_batched_tokens": 6, "drafts": lambda name, known: [0] * 3}
    trace = run_of((3, 9), (1, 3, {"arrival_step": 1}), **knobs)
    expected = "r1 was not admitted in step 1: with 3 placeholder drafts it needs 4 tokens, and 2 are left of the token budget of 6."
    assert said(trace, "r1", 1) == expected


def test_a_request_that_has_not_arrived():
    trace = run_of((4, 6), (4, 2, {"arrival_step": 3}))
    one = explain(trace, "r1", 1)
    assert one.sentence == "r1 was not there in step 1: it arrives in step 3."
    assert one.afterwards == "It arrived in step 3 and was admitted at once."


def test_a_request_that_arrives_by_the_clock():
    engine = engine_with((4, 3), (4, 2, {"arrival_s": 3600.0}))
    engine.step()
    assert said(engine.trace, "r1", 0).startswith("r1 was not there in step 0: it arrives at 3,600 s, and the step began at ")
    assert explain(engine.trace, "r1", 0).afterwards == "It had not run when the trace ended with step 0."


def test_a_static_batch_that_is_not_full():
    trace = run_of((4, 2), (4, 2, {"arrival_step": 3}), batching="static", max_num_seqs=2)
    one = explain(trace, "r0", 1)
    assert one.sentence == "r0 was not admitted in step 1: a static batch starts with 2 requests and 1 waits; more are still to arrive."
    assert one.afterwards == "It was admitted in step 3, 2 steps later, together with r1."


def test_a_dynamic_batch_that_is_not_full():
    trace = run_of((4, 2), (4, 2, {"arrival_step": 9}), batching="dynamic", max_num_seqs=2, batch_window_steps=3)
    why = "a dynamic batch starts with 2 requests and 1 waits; it starts with those that are there in 2 steps"
    assert said(trace, "r0", 1) == f"r0 was not admitted in step 1: {why}."


def test_a_batch_that_is_still_running():
    trace = run_of((4, 2), (4, 5), (4, 2), batching="static", max_num_seqs=2)
    one = explain(trace, "r2", 3)
    why = "the static batch of r1 and r0 (2 of at most 2) is not done, and nobody joins before it is"
    assert one.sentence == f"r2 was not admitted in step 3: {why}."
    assert one.chain[0] == "r2 waits for the batch of r1."
    assert "r1 left with its batch in step 5 (2 blocks)" in one.afterwards


def test_a_request_that_can_never_fit_any_more():
    engine = engine_with((4, 3), (20, 3, {"arrival_step": 2}))
    engine.step()
    change_knobs(engine.scheduler, {"num_blocks": 4})
    while engine.has_unfinished:
        engine.step()
    one = explain(engine.trace, "r1", 2)
    assert one.sentence == "r1 was rejected in step 2, for it can never run: it needs 5 blocks and the pool has 4, whoever else runs."
    assert one.afterwards == "It was ended with this step (abort)."


def test_every_reason_has_a_sentence():
    assert set(TELLERS) == set(Reason)
    trace = run_of((4, 3), (4, 3), max_num_seqs=2)
    scene = Scene(trace, trace.at(0))
    for reason in Reason:
        verdict = Verdict.PREEMPTED if reason in (Reason.PREEMPTED_FOR, Reason.RETRACTED) else Verdict.DEFERRED
        text = sentence(scene, Decision("r0", verdict, reason, 0, 7, 5, 9, "r1"))
        assert text.startswith("r0 ")
        assert text.endswith(".")


# -- every decision of random workloads --------------------------------------------------------------------------------------

NUMBERS = {  # which of num_tokens, needed, available and limit a sentence must name, by verdict and reason
    (Verdict.SCHEDULED, Reason.FULL): "t",
    (Verdict.PARTIAL, Reason.TOKEN_BUDGET): "tnl",
    (Verdict.PARTIAL, Reason.LONG_PREFILL_THRESHOLD): "tn",
    (Verdict.PARTIAL, Reason.MAX_MODEL_LEN): "tn",
    (Verdict.DEFERRED, Reason.TOKEN_BUDGET): "nl",
    (Verdict.DEFERRED, Reason.MAX_MODEL_LEN): "nl",
    (Verdict.DEFERRED, Reason.MAX_NUM_SEQS): "nl",
    (Verdict.DEFERRED, Reason.NO_FREE_BLOCKS): "na",
    (Verdict.DEFERRED, Reason.CHUNKED_PREFILL_OFF): "nal",
    (Verdict.DEFERRED, Reason.SPECULATIVE_PADDING): "nal",
    (Verdict.DEFERRED, Reason.BATCH_NOT_FULL): "na",
    (Verdict.DEFERRED, Reason.BATCH_RUNNING): "al",
    (Verdict.DEFERRED, Reason.NOT_ARRIVED): "n",
    (Verdict.DEFERRED, Reason.RESERVED_TO_COMPLETION): "nal",
    (Verdict.DEFERRED, Reason.MEMORY_ESTIMATE): "nal",
    (Verdict.DEFERRED, Reason.UNTIL_ONE_FINISHES): "nl",
    (Verdict.DEFERRED, Reason.PREFILL_FIRST): "a",
    (Verdict.PREEMPTED, Reason.PREEMPTED_FOR): "na",
    (Verdict.PREEMPTED, Reason.RETRACTED): "na",
    (Verdict.REJECTED, Reason.NEVER_FITS): "nl",
}


def check_every_decision(trace):
    for record in trace:
        step = explain_step(trace, record.step, scheduler_at=None)
        assert {one.request_id for one in step.explanations} == {decision.request_id for decision in record.decisions}
        for one in step.explanations:
            check_decision(one)


def check_decision(one):
    decision, words = one.decision, one.sentence
    assert words.startswith(one.request_id)
    assert f"step {one.step}" in words
    values = {"t": decision.num_tokens, "n": decision.needed, "a": decision.available, "l": decision.limit}
    for letter in NUMBERS.get((decision.verdict, decision.reason), ""):
        assert str(values[letter]) in words, (words, decision)
    if decision.blocker is not None and decision.reason is not Reason.BATCH_RUNNING and one.chain:
        assert decision.blocker in one.chain[0]
    if decision.verdict is not Verdict.SCHEDULED:
        assert one.afterwards
    assert repr(one)
    assert one._repr_html_()


@settings(max_examples=25, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=2))
def test_every_decision_of_every_step_names_its_numbers(workload, fails):
    knobs, requests = workload
    check_every_decision(run_to_the_end(engine_of(knobs, requests, fails), requests).trace[:40])


@settings(max_examples=40, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=2))
def test_what_came_afterwards_is_what_the_trace_holds(workload, fails):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests, fails), requests).trace
    for record in trace.records[:40]:
        scene = Scene(trace, record)
        for decision in record.decisions:
            words = afterwards(scene, decision)
            later = trace.records[record.step + 1 :]
            ran = next((r.step for r in later if any(row.request_id == decision.request_id for row in r.scheduled)), None)
            if decision.verdict in (Verdict.SCHEDULED, Verdict.REJECTED):
                continue
            assert words is not None
            if ran is not None:
                assert str(ran) in words or (words.endswith("at once.") and str(decision.needed) in words)
            else:
                assert words.startswith(("It never ran", "It finished in this step"))


@settings(max_examples=25, deadline=None)
@given(workloads(), st.integers(1, 12))
def test_a_trace_without_its_beginning_can_be_asked_all_the_same(workload, first):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace[first:]
    for record in trace.records[:20]:
        for one in explain_step(trace, record.step).explanations:
            assert one.sentence.startswith(one.request_id)
            assert one.counterfactuals == ()
