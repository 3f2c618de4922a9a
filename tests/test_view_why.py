"""The why panel, in a real browser: from the tape alone, with the kernel's explanation, and its buttons."""

from __future__ import annotations

import re

import pytest
from view_plots import crowded_trace, speculative_trace
from view_runs import asked, busy_trace, click, frame_of, press

from workbench.events import Reason, Verdict
from workbench.explain.sentences import listed
from workbench.render._format import plural
from workbench.render.board import states_of
from workbench.render.palette import DECODE, HELD, IDLE, PREEMPTED, PREFILL, VERIFY, WAITING

TRACE = busy_trace()
SCREEN = {"width": 1100, "height": 1400}


def go(view, step):
    """Put the cursor on a step."""
    slider = view.page.get_by_role("slider", name="Step")
    slider.evaluate("(slider, step) => { slider.value = String(step); slider.dispatchEvent(new Event('input', { bubbles: true })); }", step)
    view.settle()


def lines(view):
    """``(names, label, sentence and buttons)`` of every line."""
    read = """rows => rows.map((row) => ["name", "label", "what"].map((part) =>
        [...row.querySelectorAll(`.wb-why-${part}`)].map((each) => each.innerText).join(" ")))"""
    return [tuple(parts) for parts in view.page.locator(".wb-why-row").evaluate_all(read)]


def step_with(trace, verdict, reason=None):
    return next(r for r in trace.records if any(d.verdict is verdict and (reason is None or d.reason is reason) for d in r.decisions))


def row_of(name, verdict="deferred", sentence="It waits.", *, tried=True, more=(), changes=()):
    label = {"deferred": "waiting", "scheduled": "decode"}[verdict]
    return {"request": name, "verdict": verdict, "label": label, "sentence": sentence, "tried": tried, "more": more, "changes": changes}


def told(step, *rows, summary="What the step did.", commands=()):
    return {"step": step, "summary": summary, "commands": list(commands), "rows": list(rows)}


# -- from the tape alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [busy_trace, crowded_trace])
def test_every_unfinished_request_has_its_line_the_cut_first_then_who_ran_who_waited_and_who_was_preempted(view_page, trace):
    view = view_page(*frame_of(trace(), live=False), **SCREEN)
    for record in trace().records[:: max(1, len(trace()) // 6)]:
        go(view, record.step)
        found = [name for names, _, _ in lines(view) for name in names.split()]
        states = states_of(record)
        assert sorted(found) == sorted(states)
        cut = {decision.request_id for decision in record.decisions if decision.verdict is Verdict.PARTIAL}
        order = [PREFILL, VERIFY, DECODE, IDLE, WAITING, PREEMPTED, HELD]
        ranks = [-1 if name in cut else order.index(states[name]) for name in found]
        assert ranks == sorted(ranks)


def test_requests_that_merely_decode_share_one_line(view_page):
    record = next(r for r in TRACE.records if sum(row.kind == "decode" for row in r.scheduled) == 3 and len(r.decisions) > 3)
    view = view_page(*frame_of(TRACE, live=False), **SCREEN)
    go(view, record.step)
    assert lines(view)[0] == (" ".join(sorted(row.request_id for row in record.scheduled)), "decode", "One token each.")
    view.page.get_by_role("button", name=f"Select {record.scheduled[0].request_id}").first.click()
    view.settle()
    alone = view.page.locator(".wb-why-row[aria-current=true]")
    assert alone.locator(".wb-why-name").inner_text() == record.scheduled[0].request_id
    assert len(lines(view)[1][0].split()) == 2


def test_requests_that_verify_drafts_share_a_line_with_what_was_accepted(view_page):
    trace = speculative_trace()
    view = view_page(*frame_of(trace, live=False), **SCREEN)
    shared = [record for record in trace.records if 1 < len(record.spec) == len(record.scheduled)]
    assert len({len({spec.proposed for spec in record.spec}) for record in shared[::3]}) == 2  # as many drafts each, and not
    for record in shared[::3]:
        go(view, record.step)
        rounds = sorted(record.spec, key=lambda spec: spec.request_id)
        proposed, accepted = [spec.proposed for spec in rounds], listed([str(spec.accepted) for spec in rounds])
        same = len(set(proposed)) == 1
        drafts = plural(proposed[0], "draft") + " each" if same else listed([str(each) for each in proposed]) + " drafts"
        label = f"verify {proposed[0]}" if same else "verify"
        assert lines(view)[0] == (" ".join(spec.request_id for spec in rounds), label, f"{drafts}; {accepted} accepted.")


def test_a_chunk_and_a_wait_are_told_with_their_numbers_before_the_kernel_has_answered(view_page):
    view = view_page(*frame_of(TRACE), **SCREEN)
    cut = step_with(TRACE, Verdict.PARTIAL)
    decision = next(d for d in cut.decisions if d.verdict is Verdict.PARTIAL)
    go(view, cut.step)
    assert (decision.request_id, f"chunk {decision.num_tokens} of {decision.needed}") in [each[:2] for each in lines(view)]
    short = step_with(TRACE, Verdict.DEFERRED, Reason.NO_FREE_BLOCKS)
    decision = next(d for d in short.decisions if d.reason is Reason.NO_FREE_BLOCKS)
    go(view, short.step)
    words = next(what for names, _, what in lines(view) if names == decision.request_id)
    assert words == f"Blocks needed: {decision.needed}, free: {decision.available}."
    kv, tokens, seqs = short.kv, short.tokens, short.seqs
    assert view.page.locator(".wb-why-summary").inner_text() == (
        f"Step {short.step}: {tokens.used} of {tokens.limit} tokens; {seqs.used} of {seqs.limit} requests running; "
        f"{len(short.waiting)} waiting; blocks {kv.in_use} in use, {kv.cached} cached, {kv.free} free."
    )


# -- the kernel's explanation ------------------------------------------------------------------------------------------


def test_steps_that_fly_by_are_not_asked_about_and_the_one_that_the_cursor_rests_on_is(view_page):
    view = view_page(*frame_of(TRACE), **SCREEN)
    view.page.wait_for_timeout(300)
    before = len(asked(view, "why"))
    view.page.clock.install()
    view.page.clock.pause_at("2100-01-01")
    view.page.locator(".wb-view").focus()
    for _ in range(6):
        view.page.keyboard.press("ArrowLeft")
        view.page.clock.run_for(100)
    assert asked(view, "why")[before:] == []
    view.page.clock.run_for(200)
    assert asked(view, "why")[before:] == [{"step": len(TRACE) - 7}]


@pytest.fixture
def explained(view_page):
    """Opens the trace at a step that the kernel explains with these rows; the view, once they are there."""

    def opened(record, *rows, live=True, **told_too):
        view = view_page(*frame_of(TRACE, live=live), **SCREEN)
        view.answer("why", told(record.step, *rows, **told_too))
        go(view, record.step)
        view.page.get_by_text(told_too.get("summary", "What the step did.")).wait_for()
        return view

    return opened


WAITED = step_with(TRACE, Verdict.DEFERRED, Reason.NO_FREE_BLOCKS)
WHO = next(d.request_id for d in WAITED.decisions if d.reason is Reason.NO_FREE_BLOCKS)
CHANGE = {"label": "num_blocks 14 → run it", "fork": {"num_blocks": 14}}


def test_the_explanation_takes_the_place_of_the_tapes_own_words(explained):
    commands = ["num_blocks was raised from 8 to 12 before the step."]
    view = explained(WAITED, row_of(WHO, sentence=f"{WHO} was not admitted."), commands=commands)
    assert next(what for names, _, what in lines(view) if names == WHO).startswith(f"{WHO} was not admitted.")
    assert view.page.locator(".wb-why-flag").all_inner_texts() == [f"⚑ {commands[0]}"]


def test_what_stands_behind_a_line_unfolds_on_a_click_and_for_the_selected_request(explained):
    view = explained(WAITED, row_of(WHO, more=["It waits for r0.", "r0 finished 3 steps later."]))
    assert view.page.locator(".wb-why-more").count() == 0
    click(view, f"More about {WHO}")
    assert view.page.locator(".wb-why-more li").all_inner_texts() == ["It waits for r0.", "r0 finished 3 steps later."]
    assert view.page.get_by_role("button", name=f"Less about {WHO}").get_attribute("aria-expanded") == "true"
    click(view, f"Less about {WHO}")
    assert view.page.locator(".wb-why-more").count() == 0
    click(view, f"Select {WHO}")
    assert view.page.locator("[aria-current=true] .wb-why-more li").count() == 2


def test_a_suggestion_runs_a_branch_and_is_busy_until_the_kernel_has_answered(explained):
    view = explained(WAITED, row_of(WHO, changes=[CHANGE]))
    chip = view.page.get_by_role("button", name=re.compile("Run a branch: num_blocks 14"))
    chip.click()
    view.settle()
    assert asked(view, "fork") == [{"step": WAITED.step, "changes": {"num_blocks": 14}, "resume": True}]
    assert chip.is_disabled()
    assert chip.get_attribute("aria-busy") == "true"


def test_what_the_kernel_says_against_a_branch_is_said_and_the_suggestion_can_be_pressed_again(explained):
    view = explained(WAITED, row_of(WHO, changes=[CHANGE]))
    view.answer("fork", error="the pool cannot be larger: 14 blocks need 9 GB")
    chip = view.page.get_by_role("button", name=re.compile("Run a branch"))
    chip.click()
    view.page.get_by_text("14 blocks need 9 GB").first.wait_for()
    assert chip.is_enabled()


def test_a_run_without_an_engine_says_how_a_branch_could_be_run(view_page):
    view = view_page(*frame_of(TRACE), **SCREEN)
    view.answer("why", told(WAITED.step, row_of(WHO, changes=[CHANGE])))
    go(view, WAITED.step)
    chip = view.page.get_by_role("button", name=re.compile("Run a branch"))
    chip.wait_for()
    frame, _ = frame_of(TRACE, live=False)
    view.push({"kind": "frame", "seq": 1, "runs": frame["runs"], "parts": []})
    chip.click()
    view.page.get_by_text("open run.view() in a kernel to run this branch").first.wait_for()
    assert asked(view, "fork") == []


def test_a_request_that_no_single_knob_would_have_helped_is_told_so(explained):
    view = explained(WAITED, row_of(WHO, tried=True), row_of("r0", "scheduled", "r0 ran.", tried=False))
    told_so = [names for names, _, what in lines(view) if "no single knob would have let it run" in what]
    assert told_so == [WHO]


def test_requests_that_have_not_arrived_share_a_last_line(view_page):
    trace = crowded_trace()
    view = view_page(*frame_of(trace), **SCREEN)
    later = [row_of(name, sentence=f"{name} arrives later.") | {"label": "not arrived"} for name in ("r6", "r7")]
    view.answer("why", told(0, row_of("r0", "scheduled", "r0 ran."), *later))
    go(view, 0)
    view.page.get_by_text("Still to come.").wait_for()
    assert lines(view)[-1][:2] == ("r6 r7", "not arrived")
    click(view, "More about 2 requests")
    assert view.page.locator(".wb-why-more li").all_inner_texts() == ["r6 arrives later.", "r7 arrives later."]


def test_markup_in_an_explanation_stays_text(explained):
    view = explained(WAITED, row_of(WHO, sentence="<img src=x onerror=alert(1)>", more=["<b>bold</b>"]), summary="A <i>summary</i>.")
    click(view, f"Select {WHO}")
    assert view.page.locator(".wb-why img, .wb-why b, .wb-why i").count() == 0
    assert "<img src=x onerror=alert(1)>" in view.page.locator(".wb-why-list").inner_text()


def test_what_lies_below_does_not_jump_when_the_next_step_has_fewer_lines(explained):
    long = [row_of(WHO, sentence="It waits for a very long reason. " * 20)]
    view = explained(WAITED, *long)
    height = view.page.locator(".wb-why").bounding_box()["height"]
    press(view, "End")
    assert len(lines(view)) < 3
    assert view.page.locator(".wb-why").bounding_box()["height"] == pytest.approx(height, abs=24)


def test_many_requests_scroll_within_a_bounded_height(view_page):
    view = view_page(*frame_of(crowded_trace(), live=False), **SCREEN)
    for record in crowded_trace().records[::24]:
        go(view, record.step)
        assert view.page.locator(".wb-why-list").bounding_box()["height"] <= 240
