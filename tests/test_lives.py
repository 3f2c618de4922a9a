"""Lives of requests: segments that cover every step once, as a table and a paragraph."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_explain import engine_with, run_of
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import Engine, RequestError
from workbench.adjust import edit_request, reset_prefix_cache
from workbench.events import Reason
from workbench.lives import life
from workbench.render.prose import WORDS
from workbench.runners.scripted import ScriptedRunner


def outline(trace, name):
    return [(segment.kind, segment.start, segment.end) for segment in life(trace, name).segments]


def test_a_request_that_runs_at_once_is_prefilled_decoded_and_finished():
    trace = run_of((5, 3))
    assert outline(trace, "r0") == [("prefill", 0, 1), ("decode", 1, 3), ("finished", 3, 3)]
    whole = life(trace, "r0")
    assert (whole.finish_reason, whole.finished_step) == ("length", 2)
    assert [segment.tokens for segment in whole.segments] == [5, 2, 0]
    assert [segment.output for segment in whole.segments] == [1, 2, 0]


def test_arrival_and_queue_are_told_with_their_reasons():
    trace = run_of((4, 6), (4, 2, {"arrival_step": 2}), max_num_seqs=1)
    assert outline(trace, "r1") == [("not arrived", 0, 2), ("queue", 2, 6), ("prefill", 6, 7), ("decode", 7, 8), ("finished", 8, 8)]
    assert life(trace, "r1").segments[1].reasons == ((Reason.MAX_NUM_SEQS, 4),)


def test_chunks_of_a_prompt_are_counted():
    trace = run_of((10, 2), max_num_batched_tokens=4)
    first = life(trace, "r0").segments[0]
    assert (first.kind, first.chunks, first.tokens, first.num_steps) == ("prefill", 3, 10, 3)


def test_a_preempted_request_says_for_whom():
    trace = run_of((8, 12), (8, 12), num_blocks=6)
    kinds = [segment.kind for segment in life(trace, "r1").segments]
    assert kinds == ["prefill", "decode", "preempted", "prefill", "decode", "finished"]
    lost = life(trace, "r1").segments[2]
    assert (lost.cause, lost.other) == ("for r0", "r0")
    assert dict(lost.reasons)[Reason.PREEMPTED_FOR] == 1
    assert "was preempted in step 5 for r0, waited 7 steps (6 for blocks)" in life(trace, "r1").story


def test_verified_drafts_are_counted():
    trace = run_of((5, 9), drafts=lambda name, known: [50 + len(known) - 5, 0], num_speculative_tokens=2)
    decode = life(trace, "r0").segments[1]
    assert (decode.kind, decode.rounds, decode.proposed, decode.accepted) == ("decode", 4, 8, 4)


def test_a_request_that_its_batch_holds_ends_with_it():
    trace = run_of((4, 2), (4, 5), batching="static", max_num_seqs=2)
    assert outline(trace, "r0") == [("prefill", 0, 1), ("decode", 1, 2), ("held", 2, 5), ("finished", 5, 5)]
    assert life(trace, "r0").finished_step == 1


def test_a_request_in_the_batch_without_tokens_stands_still():
    from workbench.adjust import change_knobs

    engine = engine_with((2, 9), (2, 9), (2, 4))
    engine.step()
    change_knobs(engine.scheduler, {"max_num_batched_tokens": 2})
    while engine.has_unfinished:
        engine.step()
    assert ("idle", 1, 9) in outline(engine.trace, "r2")


def test_an_aborted_request_ends_before_the_step():
    engine = engine_with((4, 9), (4, 9))
    engine.step()
    engine.step()
    engine.abort("r1")
    engine.step()
    assert outline(engine.trace, "r1") == [("prefill", 0, 1), ("decode", 1, 2), ("finished", 2, 2)]
    assert life(engine.trace, "r1").story.endswith("and was aborted with 2 output tokens.")


def test_a_request_that_never_saw_a_step_has_only_its_end():
    engine = engine_with((4, 9), (4, 9))
    engine.abort("r1")
    engine.step()
    assert outline(engine.trace, "r1") == [("finished", 0, 0)]
    assert life(engine.trace, "r1").story == "r1 was aborted with 0 output tokens."


def test_an_unfinished_request_has_no_end():
    engine = engine_with((4, 9))
    engine.step()
    assert outline(engine.trace, "r0") == [("prefill", 0, 1)]
    assert life(engine.trace, "r0").story.endswith("and had not ended when the trace did.")


def test_a_request_put_back_by_a_command_says_by_which():
    engine = engine_with((4, 9), (4, 9), max_num_seqs=2)
    engine.step()
    reset_prefix_cache(engine.scheduler, reset_running_requests=True)
    engine.trace.config = engine.scheduler.config
    from workbench.adjust import change_knobs

    change_knobs(engine.scheduler, {"max_num_seqs": 1})
    engine.step()
    segment = life(engine.trace, "r1").segments[-1]
    assert (segment.kind, segment.cause) == ("preempted", "by a reset of the prefix cache")


def test_a_request_with_another_prompt_waits_afresh():
    from workbench.adjust import change_knobs

    engine = engine_with((4, 9), (4, 9))
    engine.step()
    change_knobs(engine.scheduler, {"max_num_seqs": 1})
    engine.trace.requests["r1"] = edit_request(engine.scheduler, "r1", {"prompt_token_ids": [1, 2]})
    engine.step()
    assert outline(engine.trace, "r1") == [("prefill", 0, 1), ("queue", 1, 2)]


def test_it_prints_as_a_paragraph_and_an_aligned_table():
    text = repr(life(run_of((4, 6), (4, 2, {"arrival_step": 2}), max_num_seqs=1), "r1"))
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("r1 was expected for 2 steps, waited 4 steps (4 for a place (max_num_seqs)), prefilled from step 6")
    assert ["queue", "2", "to", "5", "4"] in [line[:5] for line in lines]
    assert "and finished in step 7 (length) with 2 output tokens." in " ".join(text.split())


def test_its_page_escapes_what_comes_from_outside():
    engine = Engine(ScriptedRunner(), num_blocks=8)
    engine.add_request({"id": "<script>x", "prompt_token_ids": [1, 2], "max_tokens": 2})
    engine.step()
    page = life(engine.trace, "<script>x")._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;x" in page


def test_every_reason_has_words():
    assert set(WORDS) == set(Reason) - {Reason.FULL, Reason.LONG_PREFILL_THRESHOLD}


def test_an_unknown_request_is_refused_with_those_that_are_known():
    with pytest.raises(RequestError, match=r"no request has the id 'x' in this trace; it has r0"):
        life(run_of((4, 2)), "x")


@settings(max_examples=100, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3))
def test_the_segments_of_a_life_cover_every_step_once(workload, fails):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests, fails), requests).trace
    for name in trace.requests:
        lived = life(trace, name)
        covered = [step for segment in lived.segments for step in range(segment.start, segment.end)]
        present = [
            record.step for record in trace if name in record.held or any(decision.request_id == name for decision in record.decisions)
        ]
        assert covered == present
        assert all(one.end == other.start for one, other in zip(lived.segments, lived.segments[1:], strict=False))
        added = next(record.step for record in trace for command in record.commands if (command.kind, command.request_id) == ("add", name))
        assert lived.segments[0].start == added
        rows = [(record.step, row) for record in trace for row in record.scheduled if row.request_id == name]
        assert sum(segment.tokens for segment in lived.segments) == sum(row.num_tokens for _, row in rows)
        sampled = [entry for record in trace for entry in record.sampled if entry.request_id == name]
        assert sum(segment.output for segment in lived.segments) == sum(len(entry.token_ids) for entry in sampled)
        idle = [segment for segment in lived.segments if segment.kind in ("queue", "idle", "preempted")]
        assert not {step for segment in idle for step in range(segment.start, segment.end)} & {step for step, _ in rows}
        assert sum(count for segment in lived.segments for _, count in segment.reasons) == len(present) - len(rows) - len(
            [record for record in trace if name in record.held]
        )
        assert lived.segments[-1].kind == "finished"
        assert name in lived.story
