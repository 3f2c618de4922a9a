"""What came after a decision, whole steps, how explanations look, and what is refused."""

from __future__ import annotations

import msgspec
import pytest
from render_fixtures import speculative_run
from test_explain import engine_with, run_of

from workbench import Engine, RequestError, load_trace
from workbench.adjust import change_knobs, edit_request
from workbench.explain import explain, explain_step
from workbench.explain.sentences import listed, ordinal
from workbench.lives import life
from workbench.runners.scripted import ScriptedRunner
from workbench.trace import Trace

# -- looking forward ---------------------------------------------------------------------------------------------------------


def test_a_request_that_was_aborted_never_ran():
    engine = engine_with((4, 9), (4, 2), max_num_seqs=1)
    engine.step()
    engine.abort("r1")
    engine.step()
    assert explain(engine.trace, "r1", 0).afterwards == "It never ran: it was aborted before step 1."


def test_a_changed_knob_is_named_as_what_freed_the_way():
    engine = engine_with((4, 9), (4, 2), max_num_seqs=1)
    engine.step()
    change_knobs(engine.scheduler, {"max_num_seqs": 2})
    engine.step()
    expected = "It was admitted in the next step, 1, after max_num_seqs went from 1 to 2 before step 1."
    assert explain(engine.trace, "r1", 0).afterwards == expected


def test_the_step_in_which_it_finished_is_named():
    assert explain(run_of((4, 1)), "r0", 0).afterwards == "It finished in this step (length)."


def test_an_admission_tells_the_story_of_its_prefix():
    trace = run_of((list(range(9)), 1), (list(range(9)), 1), enable_prefix_caching=True)
    assert explain(trace, "r1", 0).prefix.startswith("r1 found 2 of 2 reusable blocks in the prefix cache, 8 of its 9 tokens")


# -- steps -------------------------------------------------------------------------------------------------------------------


def test_a_step_is_explained_in_batch_order_then_in_queue_order():
    step = explain_step(run_of((4, 9), (4, 9), (4, 9), (4, 9, {"arrival_step": 5}), max_num_seqs=2), 2)
    assert [one.request_id for one in step.explanations] == ["r0", "r1", "r2", "r3"]
    assert step.summary == "Step 2: 2 of 256 tokens; 2 of 2 requests running; 1 waiting; blocks 4 in use, 0 cached, 28 free."
    assert step.commands == ()


def test_a_step_tells_who_came_and_went():
    step = explain_step(run_of((4, 2), (4, 9), max_num_seqs=1), 2)
    assert step.summary.endswith("; admitted: r1.")
    step = explain_step(run_of((4, 2), (4, 9), max_num_seqs=1), 1)
    assert step.summary.endswith("; ended: r0 (length).")


def test_a_step_tells_why_so_many_drafts_come_next():
    trace = speculative_run(problem="ValueError: no.").trace
    off, best = explain_step(trace, 1).summary, explain_step(trace, 4).summary
    assert off.endswith(
        "free.  For the next step, no drafts: 4 drafts would make 1.4 tokens in 40 ms, a step without them makes 1 in 20 ms."
    )
    assert best.endswith("For the next step, 4 drafts: 4.0 tokens in 40 ms instead of 1 in 20 ms (2.0 times as fast).")
    assert explain_step(trace, 0).summary.endswith("  Proposing drafts failed, so the next step goes on without: ValueError: no.")
    assert explain_step(trace, 5).summary.endswith("; ended: r0 (length).")


def test_a_step_says_that_drafts_asked_for_were_not_found_and_speaks_of_none_when_nobody_is_left():
    trace = speculative_run().trace
    best = trace.at(4).draft_choice
    records = [msgspec.structs.replace(one, proposed=(), draft_choice=best) for one in trace]
    changed = Trace(trace.config, trace.model, trace.requests.values(), records)
    assert explain_step(changed, 3).summary.endswith("(2.0 times as fast).  None were proposed.")
    assert explain_step(changed, 5).summary.endswith("; ended: r0 (length).")


def test_a_step_tells_how_many_drafts_come_next_when_their_number_is_fixed():
    runner = ScriptedRunner(lambda name, position: 7, drafts=lambda name, known: [7, 7])
    with Engine(runner, num_blocks=32, num_speculative_tokens=2) as engine:
        trace = engine.run([[1, 2, 3], [4, 5]], max_tokens=9).trace
    assert explain_step(trace, 1).summary.endswith("For the next step, 4 drafts: num_speculative_tokens allows 2 for each request.")
    runner = ScriptedRunner(lambda name, position: 7, drafts=lambda name, known: [])
    with Engine(runner, num_blocks=32, num_speculative_tokens=2) as engine:
        trace = engine.run([[1, 2, 3]], max_tokens=3).trace
    assert explain_step(trace, 1).summary.endswith("free.  For the next step, no drafts: none were proposed.")
    assert explain_step(trace, 2).summary.endswith("; ended: r0 (length).")


def test_a_step_tells_what_was_done_before_it():
    engine = engine_with((4, 9), (4, 9), (4, 9))
    engine.step()
    change_knobs(engine.scheduler, {"max_num_seqs": 5})
    engine.trace.requests["r1"] = edit_request(engine.scheduler, "r1", {"priority": 3, "prompt_token_ids": [1, 2]})
    engine.abort("r2")
    engine.scheduler.abandon(engine.scheduler.plan(1.5))
    engine.step()
    assert explain_step(engine.trace, 0).commands == ("r0, r1 and r2 were added before the step.",)
    assert explain_step(engine.trace, 1).commands == (
        "max_num_seqs went from 16 to 5 before the step.",
        "r1 was edited before the step: priority 0 to 3, prompt of 4 tokens to one of 2.",
        "r2 was aborted before the step.",
        "An earlier attempt at the step, at 1.500 s, failed or was interrupted, and was taken back.",
    )


# -- how it looks ------------------------------------------------------------------------------------------------------------


def test_an_explanation_prints_its_sentence_first():
    trace = run_of((12, 6), (20, 9), (16, 2, {"arrival_step": 1}), num_blocks=10)
    lines = repr(explain(trace, "r2", 1)).splitlines()
    assert lines[0].startswith("r2 was not admitted in step 1: it needs 4 blocks")
    assert lines[1].startswith("  because     r2 waits for blocks that r1 holds")


def test_pages_escape_names_and_hold_no_script():
    engine = Engine(ScriptedRunner(), num_blocks=8, max_num_seqs=1)
    engine.add_request({"id": "<script>x", "prompt_token_ids": [1, 2], "max_tokens": 2})
    engine.add_request({"id": "b&b", "prompt_token_ids": [1, 2], "max_tokens": 2})
    engine.step()
    for page in (explain(engine.trace, "b&b", 0)._repr_html_(), explain_step(engine.trace, 0)._repr_html_()):
        assert "<script" not in page
        assert "b&amp;b" in page


def test_small_words():
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 111)] == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th"]
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


# -- bad input ---------------------------------------------------------------------------------------------------------------


def test_an_unknown_request_is_refused_with_those_that_are_known():
    with pytest.raises(RequestError, match=r"no request has the id 'r9' in this trace; it has r0, r1"):
        explain(run_of((4, 3), (4, 3)), "r9", 0)


def test_an_unknown_step_is_refused_with_the_range():
    trace = run_of((4, 3))
    for call in (lambda: explain(trace, "r0", 9), lambda: explain_step(trace, 9)):
        with pytest.raises(IndexError, match="step 9 is not in this trace; it has steps 0 to 2"):
            call()


def test_a_request_that_was_over_is_refused_with_its_time():
    trace = run_of((4, 2), (4, 5))
    with pytest.raises(RequestError, match=r"r0 was not unfinished in step 3; it was from step 0 to step 1"):
        explain(trace, "r0", 3)


def test_a_saved_trace_gives_the_same_explanations(tmp_path):
    engine = engine_with((8, 12), (8, 12), (9, 4, {"arrival_step": 3}), num_blocks=6, enable_prefix_caching=True)
    engine.step()
    engine.trace.requests["r1"] = edit_request(engine.scheduler, "r1", {"prompt_token_ids": [1, 2, 3, 4, 5]})
    while engine.has_unfinished:
        engine.step()
    engine.trace.save(tmp_path / "x.wbt")
    loaded = load_trace(tmp_path / "x.wbt")
    for record in engine.trace:
        assert explain_step(loaded, record.step) == explain_step(engine.trace, record.step)
    for name in engine.trace.requests:
        assert life(loaded, name) == life(engine.trace, name)
