"""Two runs side by side: where they part, in words, and what it did to the figures."""

from __future__ import annotations

import math
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_fixtures import ONERROR, SCRIPT, make_trace
from test_rebuild import Sometimes, engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import Engine, Trace, TraceError, load_trace
from workbench.adjust import change_knobs, edit_request
from workbench.comparison import compare
from workbench.comparison.renaming import renamed
from workbench.config import EngineConfig
from workbench.events import ModelFacts, StepRecord, StepTiming
from workbench.rebuild import rebuild
from workbench.render.comparison import comparison_html
from workbench.runners.scripted import ScriptedRunner

PROMPTS = [{"prompt_token_ids": list(range(i, i + 20 + 5 * i)), "arrival_step": 4 * i, "max_tokens": 30 + 7 * i % 30} for i in range(6)]


def scripted(name, position):
    return position % 50


def run_of(prompts=PROMPTS, script=None, **knobs):
    knobs = {"num_blocks": 24, "block_size": 16, "debug": True, **knobs}
    with Engine(ScriptedRunner(script or scripted, step_ms=5.0), **knobs) as engine:
        return engine.run(prompts)


def forked(trace, step, change, runner=None):
    """The trace as it goes on when ``change`` is done to the scheduler before ``step``: a fork, by hand."""
    scheduler, runner = rebuild(trace, step), runner or ScriptedRunner(scripted)
    change(scheduler)
    records = trace.records[:step]
    requests = dict(trace.requests)
    while scheduler.has_unfinished:
        plan = scheduler.plan(float(scheduler.step))
        for state in scheduler.queues.everyone():
            requests[state.id] = state.request
        records.append(scheduler.commit(plan, runner.execute(plan)))
        assert len(records) < 3000
    return Trace(scheduler.config, trace.model, requests.values(), records)


# -- where they part -----------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_one_knob_part_at_its_first_effect():
    found = compare(run_of(max_num_seqs=2), run_of(max_num_seqs=3))
    assert found.sentence == (
        "They part in step 8: r2 runs its 30 prompt tokens in b, in a it waits: 2 requests run already (max_num_seqs)."
    )
    assert found.notes == ("max_num_seqs is 2 in a, 3 in b.",)
    assert (found.divergence.kind, found.divergence.request_id, found.divergence.steps) == ("decision", "r2", (8, 8))
    assert found.same_arrivals


def test_missing_blocks_are_said_with_their_numbers():
    prompts = [list(range(40)), list(range(100, 136))]
    found = compare(run_of(prompts, num_blocks=6, block_size=8), run_of(prompts, num_blocks=12, block_size=8))
    assert found.sentence == "They part in step 0: r1 runs its 36 prompt tokens in b, in a it waits: it needs 5 blocks and 1 is free."
    assert found.notes == ("The pool has 6 blocks in a, 12 in b.",)


def test_a_smaller_budget_cuts_a_prompt_and_the_sentence_says_so():
    found = compare(run_of(max_num_batched_tokens=16), run_of(max_num_batched_tokens=64))
    assert found.sentence == "They part in step 0: r0 runs 16 of 20 tokens (cut by token_budget) in a, in b it runs its 20 prompt tokens."


def test_a_preemption_in_one_of_them_names_for_whom():
    found = compare(run_of(num_blocks=20, max_num_seqs=6), run_of(num_blocks=13, max_num_seqs=6))
    assert found.divergence.kind == "decision"
    assert "They part in step" in found.sentence


def test_a_run_never_parts_from_itself():
    run = run_of()
    found = compare(run, run)
    assert found.divergence is None
    assert found.sentence == f"They never part: the same decisions, blocks and tokens in all {len(run.trace)} steps."
    assert found.notes == ()
    assert all(figure.difference in (0, None) for figure in found.figures)


def test_equal_runs_of_two_engines_never_part_though_their_clocks_differ():
    assert compare(run_of(), run_of()).divergence is None


def test_a_shorter_trace_is_compared_as_far_as_it_goes():
    trace = run_of().trace
    found = compare(trace[:10], trace)
    assert found.sentence == f"They never part in the 10 steps that both have; b goes on to step {len(trace) - 1}."


def test_a_slice_is_laid_beside_the_steps_with_its_numbers():
    trace = run_of().trace
    found = compare(trace, trace[12:])
    assert (found.divergence, found.first_steps, found.num_compared) == (None, (12, 12), len(trace) - 12)


def test_a_later_run_of_the_same_engine_is_compared_from_its_own_first_step():
    prompts = [{"prompt_token_ids": list(range(9)), "id": "q"}, {"prompt_token_ids": list(range(50, 61)), "id": "p"}]
    with Engine(ScriptedRunner(), num_blocks=16, block_size=4, enable_prefix_caching=False) as engine:
        engine.run([[1, 2, 3]], max_tokens=7)
        second = engine.run(prompts, max_tokens=5)
    with Engine(ScriptedRunner(), num_blocks=16, block_size=4, enable_prefix_caching=False) as engine:
        fresh = engine.run(prompts, max_tokens=5)
    found = compare(second, fresh)
    assert (found.first_steps, found.num_compared) == ((7, 0), 5)
    assert found.divergence is None or found.divergence.kind == "blocks"  # the free queue of the first has another order


def test_other_tokens_with_equal_decisions_are_named_as_such():
    found = compare(run_of(), run_of(script=lambda name, position: 99 if (name, position) == ("r1", 5) else position % 50))
    assert found.divergence.kind == "tokens"
    assert found.sentence == "Up to there their decisions and blocks agree: in step 9 the sampled tokens of r1 differ: 5 in a, 99 in b."


def test_other_blocks_with_equal_decisions_are_named_as_such():
    trace = run_of().trace
    events = tuple(msgspec.structs.replace(event, block_id=event.block_id + 3) for event in trace[4].block_events)
    other = Trace(trace.config, trace.model, trace.requests.values(), trace.records)
    other.records[4] = msgspec.structs.replace(trace[4], block_events=events)
    found = compare(trace, other)
    assert (found.divergence.kind, found.divergence.request_id) == ("blocks", "r1")
    assert found.sentence.startswith("Their decisions agree; in step 4 the blocks of r1 begin to differ: allocated 3 4, cached 3 in a, ")


def test_an_earlier_end_is_a_difference_of_its_own():
    trace = run_of([[1, 2, 3]]).trace
    end = msgspec.structs.replace(trace[-1].finished[0], reason="stop", stop_reason=7)
    other = Trace(trace.config, trace.model, trace.requests.values(), trace.records)
    other.records[-1] = msgspec.structs.replace(trace[-1], finished=(end,))
    assert compare(trace, other).sentence == f"They part in step {len(trace) - 1}: r0 ends by length in a, in b it ends by stop (7)."


def test_an_aborted_request_is_missed_where_it_would_have_run():
    trace = run_of().trace
    found = compare(trace, forked(trace, 9, lambda scheduler: scheduler.abort("r1")))
    assert found.sentence == "They part in step 9: r1 decodes in a, in b it was aborted before step 9."
    assert found.notes == ("Before step 9 b aborted r1.",)


def test_a_fork_parts_from_its_run_at_the_fork_by_what_was_changed():
    with Engine(ScriptedRunner(scripted), num_blocks=24, max_num_seqs=2) as engine:
        run = engine.run(PROMPTS)
        same, other = run.fork(10), run.fork(10, max_num_seqs=3)
        for fork in (same, other):
            fork.resume()
            fork.wait()
        assert compare(run, same).divergence is None
        found = compare(run, other)
    assert found.sentence.startswith("They part in step 10: r2 runs its 30 prompt tokens in b, in a it waits: ")
    assert found.notes == ("Before step 10 b changed max_num_seqs from 2 to 3.",)
    assert found.names == ("the run of r0 to r5", "the run of r0 to r5, forked at step 10")


# -- what was changed ----------------------------------------------------------------------------------------------------


def test_knobs_changed_in_mid_run_are_noted_at_their_step():
    trace = run_of(max_num_seqs=2).trace
    found = compare(trace, forked(trace, 11, lambda scheduler: change_knobs(scheduler, {"max_num_seqs": 4, "num_blocks": 30})))
    assert found.notes == ("Before step 11 b changed max_num_seqs from 2 to 4, num_blocks from 24 to 30.",)
    assert found.divergence.step == 11
    assert found.same_arrivals


def test_edited_requests_are_noted_and_are_still_the_same_arrivals():
    trace = run_of().trace
    found = compare(trace, forked(trace, 9, lambda scheduler: edit_request(scheduler, "r0", {"max_tokens": 12})))
    assert found.notes == ("Before step 9 b changed max_tokens from 30 to 12 of r0.",)
    assert (found.same_arrivals, found.divergence.kind, found.divergence.step) == (True, "end", 11)


def test_other_sampling_is_noted_by_request_and_field():
    found = compare(run_of(), run_of([{**prompt, "priority": 5} if i == 2 else prompt for i, prompt in enumerate(PROMPTS)]))
    assert found.notes == ("r2 asks otherwise: priority 0 in a, 5 in b.",)


def test_requests_of_one_run_only_are_named_and_the_others_compared():
    found = compare(run_of(), run_of([*PROMPTS, {"prompt_token_ids": [1], "arrival_step": 0}]))
    assert not found.same_arrivals
    assert found.notes == ("These are not the same arrivals: compared are the 6 requests that both have.", "Only in b: r6.")
    assert found.divergence is None or found.divergence.request_id != "r6"


def test_other_prompts_and_other_times_are_not_the_same_arrivals():
    changed = [dict(prompt) for prompt in PROMPTS]
    changed[1]["prompt_token_ids"] = [9] * 25
    changed[3]["arrival_step"] = 13
    found = compare(run_of(), run_of(changed))
    assert not found.same_arrivals
    assert found.notes[1:] == ("Other prompts in a and b: r1.", "Other times of arrival in a and b: r3.")


def test_runs_without_a_common_request_have_nothing_to_compare():
    found = compare(run_of([{"prompt_token_ids": [1], "id": "x"}]), run_of([{"prompt_token_ids": [2], "id": "y"}]))
    assert found.sentence == "They have no request in common, so there is nothing to compare step by step."
    assert found.divergence is None
    assert len(found._repr_html_()) > 1000


def test_a_second_run_of_the_same_prompts_in_one_engine_is_compared_with_the_first_by_position():
    prompts = [list(range(20)), list(range(100, 130))]
    with Engine(ScriptedRunner(scripted), num_blocks=24, max_num_seqs=2) as engine:
        first, again = engine.run(prompts), engine.run(prompts)
        third = engine.run(prompts[:1])
    found = compare(first, again)
    assert set(first.trace.requests) == {"r0", "r1"}
    assert found.notes == ("r2, r3 in b are taken for r0, r1 in a: the same prompts in the same order.",)
    assert found.same_arrivals
    assert found.sentence == (
        "They part in step 0 (64 in b): r0 runs its 20 prompt tokens in a, in b it runs its 4 prompt tokens after 16 from the prefix cache."
    )
    assert "r2" in found._repr_html_()
    assert compare(third, again).sentence == "They have no request in common, so there is nothing to compare step by step."


def test_what_runs_alike_under_other_ids_never_parts():
    others = [{**prompt, "id": f"q{i}"} for i, prompt in enumerate(PROMPTS)]
    found = compare(run_of(max_num_seqs=2, num_blocks=16), run_of(others, max_num_seqs=2, num_blocks=16))
    assert (found.divergence, found.same_arrivals) == (None, True)
    assert len(found.notes) == 1


def test_one_request_under_another_id_is_told_by_its_prompt():
    found = compare(run_of([{"prompt_token_ids": [1], "id": "x"}]), run_of([{"prompt_token_ids": [1], "id": "y"}]))
    assert found.notes == ("y in b is taken for x in a: the same prompt.",)
    assert found.divergence is None


def test_prompts_in_another_order_are_not_taken_for_each_other():
    found = compare(run_of([[1], [2]]), run_of([{"prompt_token_ids": [2], "id": "x"}, {"prompt_token_ids": [1], "id": "y"}]))
    assert found.sentence == "They have no request in common, so there is nothing to compare step by step."


def test_many_changes_are_counted_not_listed():
    others = [{**prompt, "temperature": 0.5} for prompt in PROMPTS * 3]
    notes = compare(run_of(PROMPTS * 3), run_of(others)).notes
    assert len(notes) == 12
    assert notes[-1] == "… and 7 more changes."


# -- properties ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=2))
def test_no_trace_parts_from_itself(workload, fails):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests, fails), requests).trace
    found = compare(trace, trace)
    assert found.divergence is None
    assert found.notes == ()
    assert found.same_arrivals


@settings(max_examples=40, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=2))
def test_no_trace_parts_from_itself_under_other_ids(workload, fails):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests, fails), requests).trace
    ids = {name: f"another {name}" for name in trace.requests}
    other = renamed(trace, ids)
    written = msgspec.json.encode(other.records).decode()
    assert not [name for name in ids if f'"{name}"' in written]
    assert renamed(other, {theirs: name for name, theirs in ids.items()}).records == trace.records
    found = compare(trace, other)
    assert (found.divergence, found.same_arrivals, len(found.notes)) == (None, True, 1)


def bare(record):
    """A step without clocks, durations, limits, and the numbers behind reasons."""
    return (
        {(d.request_id, d.verdict, d.reason, d.num_tokens) for d in record.decisions},
        record.scheduled,
        [(e.kind, e.block_id, e.request_id) for e in record.block_events if e.request_id],
        {(s.request_id, s.token_ids) for s in record.sampled},
        {(f.request_id, f.reason, f.stop_reason) for f in record.finished},
        (record.running, record.waiting, record.held),
        {(p.request_id, p.token_ids) for p in record.proposed},
    )


KNOBS = st.sampled_from(
    [
        {},
        {"max_num_seqs": 1},
        {"max_num_seqs": 7},
        {"max_num_batched_tokens": 5},
        {"max_num_batched_tokens": 64},
        {"num_blocks": 30},
        {"long_prefill_token_threshold": 2},
        {"enable_prefix_caching": True},
        {"reserve_full_prompt": False},
    ]
)


@settings(max_examples=60, deadline=None)
@given(workloads(), st.data(), KNOBS)
def test_the_step_found_is_the_first_in_which_records_differ(workload, data, change):
    knobs, requests = workload
    requests = [{**request, "abort_at": None} for request in requests]
    width = knobs["num_speculative_tokens"]
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace
    at = data.draw(st.integers(0, len(trace) - 1))
    other = forked(trace, at, lambda scheduler: change_knobs(scheduler, change), Sometimes(set(), width))
    found = compare(trace, other)
    pairs = zip(trace.records, other.records, strict=False)
    naive = next((i for i, (a, b) in enumerate(pairs) if bare(a) != bare(b)), None)
    assert (None if found.divergence is None else found.divergence.step) == naive
    assert naive is None or naive >= at
    assert found.same_arrivals


# -- figures, and what a person sees -------------------------------------------------------------------------------------


def test_figures_stand_side_by_side_with_difference_and_ratio():
    found = compare(run_of(max_num_seqs=2), run_of(max_num_seqs=6))
    by_name = {figure.name: figure for figure in found.figures}
    assert {"TTFT p50", "ITL p90", "E2E p99", "output throughput", "request throughput", "preemptions", "KV high water"} <= set(by_name)
    assert "acceptance rate" not in by_name
    steps = by_name["steps"]
    assert (steps.a, steps.b) == (len(found.a), len(found.b))
    assert steps.difference == len(found.b) - len(found.a)
    assert steps.ratio == len(found.b) / len(found.a)
    assert by_name["KV high water"].a == found.metrics[0].kv_high_water_blocks


def test_acceptance_is_there_when_one_of_them_speculates():
    names = [figure.name for figure in compare(make_trace(4), make_trace(4, drafts_from=6)).figures]
    assert "acceptance rate" in names


def clocked(prompts=((1, 2, 3),), *, step_ms=10.0, draft_ms=0.0, drafts=None, max_tokens=10, **knobs):
    """A run of scripted tokens on a clock of its own; with ``drafts`` as many are proposed after each step, always the right ones."""
    guess = None if drafts is None else lambda name, known: [(len(known) - len(prompts[0]) + i) % 50 for i in range(drafts)]
    given = {"num_speculative_tokens": drafts} if drafts else {}
    with Engine(ScriptedRunner(scripted, drafts=guess), num_blocks=24, **given, **knobs) as engine:
        trace = engine.run([list(prompt) for prompt in prompts], max_tokens=max_tokens, ignore_eos=True).trace
    timing = StepTiming(forward_ms=step_ms, draft_ms=draft_ms)
    records = [msgspec.structs.replace(record, timing=timing) for record in trace.records]
    return Trace(trace.config, trace.model, trace.requests.values(), records)


def test_what_speculation_gained_between_two_runs_is_told_and_stands_among_the_figures():
    """The prompt's step gives one token of ten.  Nine plain steps of 10 ms give the others, or three of 15 + 5 ms with two drafts each."""
    plain, drafted = clocked(), clocked(drafts=2, step_ms=15, draft_ms=5)
    for runs, letters in (((plain, drafted), "ab"), ((drafted, plain), "ba")):
        found = compare(*runs)
        without, with_it = letters
        said = f"Speculation in {with_it} (2 drafts): 1.5 times as fast as {without}, 6.67 ms per output token instead of 10 ms, "
        said += f"over the 3 steps of {with_it} and 9 of {without} that computed no prompt."
        assert found.notes[-1] == said
        assert f"  {said}" in repr(found).splitlines()
        assert said in comparison_html(found)
        by_name = {figure.name: figure for figure in found.figures}
        times, gains = by_name["time per output token, steps without prompts"], by_name["speed-up by speculation, same steps"]
        assert (getattr(times, without), getattr(times, with_it)) == pytest.approx((10.0, 20 / 3))
        assert (getattr(gains, without), getattr(gains, with_it)) == pytest.approx((1.0, 1.5))
        assert "nan" not in repr(found)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (dict(), dict()),
        (dict(drafts=2), dict(drafts=4)),
        (dict(), dict(drafts=2, prompts=((1, 2, 4),))),
        (dict(), dict(drafts=2, prompts=((1, 2, 3), (4, 5, 6)))),
    ],
    ids=["none speculates", "both do", "another prompt", "one more prompt"],
)
def test_no_gain_by_speculation_is_told_where_something_else_differs(a, b):
    found = compare(clocked(**a), clocked(**b))
    assert not any(note.startswith("Speculation in") for note in found.notes)
    names = [figure.name for figure in found.figures]
    assert "speed-up by speculation, same steps" not in names
    assert ("time per output token, steps without prompts" in names) == ("drafts" in b)


def test_a_run_without_a_step_to_measure_is_named():
    found = compare(clocked(max_tokens=1), clocked(drafts=2))
    assert found.notes[-1] == "Speculation in b (2 drafts): speed-up –, for a has no step without a prompt to measure."
    by_name = {figure.name: figure for figure in found.figures}
    assert by_name["speed-up by speculation, same steps"].b is None


def test_a_figure_without_observation_has_neither_difference_nor_ratio():
    one = compare(make_trace(2)[:1], make_trace(2)).figures
    assert all(figure.a is None or math.isfinite(figure.a) for figure in one)
    assert {figure.difference for figure in one if figure.a is None} == {None}


def test_text_has_the_sentence_the_changes_and_the_figures():
    text = repr(compare(run_of(max_num_seqs=2), run_of(max_num_seqs=3))).splitlines()
    assert text[0].startswith("They part in step 8: ")
    assert text[1] == "  max_num_seqs is 2 in a, 3 in b."
    assert text[2].startswith("  a: the run of r0 to r5, ")
    assert any(line.startswith("TTFT p50") and "×" in line for line in text)


def test_html_is_small_has_both_timelines_and_a_line_where_they_part():
    prompts = [{"prompt_token_ids": list(range(i, i + 20 + 5 * i)), "arrival_step": 7 * i, "max_tokens": 190 + i % 3} for i in range(8)]
    found = compare(run_of(prompts, num_blocks=110, max_num_seqs=6), run_of(prompts, num_blocks=110, max_num_seqs=8))
    html = comparison_html(found)
    assert len(found.a) + len(found.b) >= 2 * 240
    assert len(html) <= 90_000
    assert html.count("<svg") == 2
    assert html.count("here the two runs part") == 2
    assert "<script" not in html
    assert "http" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_names_from_outside_are_escaped():
    def hostile(trace):
        raw = msgspec.json.encode(trace.records).decode()
        names = {"r0": SCRIPT, "r1": ONERROR, "r2": "\x1b[31m"}
        for old, new in names.items():
            raw = raw.replace(f'"{old}"', msgspec.json.encode(new).decode())
        requests = [msgspec.structs.replace(request, id=names[request.id]) for request in trace.requests.values()]
        return Trace(trace.config, trace.model, requests, msgspec.json.decode(raw, type=list[StepRecord]))

    a, b = (SimpleNamespace(trace=hostile(make_trace(3, max_seqs=seqs)), name=SCRIPT) for seqs in (1, 3))
    found = compare(a, b)
    assert found.divergence is not None
    assert "<script" not in comparison_html(found)
    assert "<img" not in comparison_html(found)
    assert "\x1b" not in repr(found)


def test_loaded_traces_compare_like_the_runs_that_wrote_them(tmp_path):
    a, b = run_of(max_num_seqs=2), run_of(max_num_seqs=3)
    found = compare(load_trace(a.save(tmp_path / "a.wbt")), load_trace(b.save(tmp_path / "b.wbt")))
    assert found.sentence == compare(a, b).sentence
    assert found.names == ("a trace of scripted", "a trace of scripted")


@pytest.mark.parametrize("thing", [None, 3, "run", [1, 2], SimpleNamespace(trace=None)])
def test_anything_that_has_no_trace_is_refused(thing):
    with pytest.raises(TypeError, match=r"compare takes a run or a trace, not \w+: give a Run"):
        compare(run_of(), thing)


def test_a_trace_without_steps_is_refused():
    with pytest.raises(TraceError, match="the second of the two has no steps"):
        compare(run_of(), Trace(EngineConfig(), ModelFacts(name="x")))
