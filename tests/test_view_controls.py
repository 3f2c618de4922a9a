"""The buttons of the live view, in a real browser."""

from __future__ import annotations

import re

import pytest
from view_runs import asked, busy_trace, click, frame_of, open_saved, paused_view, press, say, step_under_cursor, two_runs

TRACE = busy_trace()
LAST = len(TRACE) - 1


@pytest.fixture
def paused(view_page):
    return paused_view(view_page)


def test_play_at_the_end_lets_the_engine_run_on_and_then_pauses_it(view_page):
    frame, buffers = frame_of(TRACE, steps=20)
    view = view_page(frame, buffers)
    view.answer("resume")
    view.answer("pause")
    press(view, " ")
    view.wait_for_ask("resume")
    say(view, frame, 1, state="running")
    press(view, " ")
    view.wait_for_ask("pause")


def test_a_knob_changed_in_the_past_makes_play_a_branch_from_there(paused):
    press(paused, "Home", *["ArrowRight"] * 4)
    click(paused, "Knobs")
    paused.page.get_by_role("spinbutton", name="max_num_seqs").fill("2")
    paused.settle()
    play = paused.page.get_by_role("button", name="Branch from step 4 with max_num_seqs = 2")
    assert play.inner_text() == "branch"
    play.click()
    paused.wait_for_ask("fork")
    assert asked(paused, "fork") == [{"step": 4, "changes": {"max_num_seqs": 2}, "resume": True}]


def test_fork_here_takes_no_changed_knobs(paused):
    press(paused, "Home", "ArrowRight")
    click(paused, "Fork at step 1")
    assert asked(paused, "fork") == [{"step": 1, "changes": {}, "resume": True}]


def test_rewind_asks_in_its_own_place_and_forgets_the_question(paused):
    press(paused, *["ArrowLeft"] * 3)
    click(paused, f"Rewind to before step {LAST - 3}")
    question = paused.page.get_by_role("button", name="Drop 4 steps")
    assert question.inner_text() == "drop 4 steps?"
    assert not asked(paused, "rewind")
    press(paused, "ArrowLeft")
    assert question.count() == 0, "the question was about another step"
    click(paused, "Rewind")
    click(paused, "Drop 5 steps")
    assert asked(paused, "rewind") == [{"step": LAST - 4}]


def test_the_question_of_rewind_is_withdrawn_after_four_seconds(paused):
    paused.page.clock.install()
    click(paused, "Rewind")
    paused.page.clock.fast_forward(3000)
    assert paused.page.get_by_role("button", name="Drop 1 step").count() == 1
    paused.page.clock.fast_forward(1500)
    assert paused.page.get_by_role("button", name="Drop 1 step").count() == 0


def test_buttons_that_make_no_sense_are_off_and_say_why(view_page):
    view = view_page(*frame_of(TRACE, "finished"))
    for name in ("Stop", "Add a prompt"):
        button = view.page.get_by_role("button", name=name, exact=True)
        assert button.is_disabled()
        assert button.get_attribute("title").endswith("the run is over: fork it at a step to go on")
    assert view.page.get_by_role("button", name="Newest step").is_disabled()
    assert view.page.get_by_role("button", name=re.compile("^Fork at step")).is_enabled()


def test_a_run_without_an_engine_has_no_button_that_asks_one(view_page):
    view = view_page(*frame_of(TRACE, "finished", live=False))
    for name in ("Fork at step", "Rewind", "Stop", "Knobs"):
        button = view.page.get_by_role("button", name=re.compile(f"^{name}"))
        assert button.is_disabled()
        assert "no engine stands behind this run" in button.get_attribute("title")


def test_a_button_that_turns_off_gives_the_focus_to_the_view(paused):
    click(paused, "First step")
    assert paused.page.evaluate("document.activeElement.classList.contains('wb-view')")
    paused.page.keyboard.press("ArrowRight")
    assert step_under_cursor(paused) == 1


def test_an_ask_shows_that_it_is_under_way_and_is_not_sent_twice(view_page):
    view = view_page(*frame_of(TRACE))  # a kernel that does not answer
    stop = view.page.get_by_role("button", name="Stop", exact=True)
    stop.click()
    view.settle()
    assert stop.get_attribute("aria-busy") == "true"
    stop.click()
    assert len(asked(view, "stop")) == 1


def test_what_the_kernel_refuses_is_said_as_an_alert_and_can_be_dismissed(paused):
    paused.answer("stop", error="the engine is <b>busy</b> with another run")
    click(paused, "Stop")
    alert = paused.page.get_by_role("alert")
    alert.wait_for()
    assert "the engine is <b>busy</b> with another run" in alert.inner_text()
    click(paused, "Dismiss")
    assert alert.count() == 0


def test_the_selected_request_can_be_aborted_until_it_is_finished(view_page):
    view = view_page(*frame_of(TRACE, steps=8))
    view.answer("abort")
    press(view, "Home")
    click(view, "Show steps and requests as tables")
    click(view, "Select r0")
    click(view, "Abort r0")
    assert asked(view, "abort") == [{"request": "r0"}]
    assert "r0 ends before the next step." in view.page.locator(".wb-message").inner_text()
    over = view_page(*frame_of(TRACE, steps=len(TRACE) - 2))
    press(over, "Home")
    click(over, "Show steps and requests as tables")
    click(over, "Select r0")
    abort = over.page.get_by_role("button", name="Abort r0")
    assert abort.is_disabled()
    assert "r0 is finished" in abort.get_attribute("title")


def test_before_the_first_step_there_is_nothing_to_fork_and_play_starts_the_engine(view_page):
    view = view_page(*frame_of(TRACE, steps=0))
    view.answer("resume")
    fork = view.page.get_by_role("button", name=re.compile("^Fork"))
    assert fork.is_disabled()
    assert "there are no steps yet" in fork.get_attribute("title")
    press(view, "ArrowLeft", "Home", "End", " ")
    assert view.wait_for_ask("resume")


def test_a_saved_page_has_the_cursor_and_says_how_to_fork(view_page):
    view = view_page()
    frame, buffers = frame_of(TRACE, "finished", live=False)
    open_saved(view, frame, buffers)
    press(view, "Home", "ArrowRight")
    assert step_under_cursor(view) == 1
    for name in ("Knobs", "Rewind", "Stop", "Add a prompt"):
        assert view.page.get_by_role("button", name=re.compile(f"^{name}")).count() == 0
    click(view, "Fork at step 1")
    assert "run.fork(1)" in view.page.locator(".wb-message").inner_text()


def test_a_run_that_ended_before_the_cursor_is_forked_at_its_last_step(view_page):
    view = view_page(*two_runs(TRACE, TRACE[:9], parent=0, fork_step=4))
    view.answer("fork")
    view.page.get_by_role("tab", name="branch").click()
    view.settle()
    click(view, "Fork at step 8")
    assert asked(view, "fork") == [{"step": 8, "changes": {}, "resume": True}]
    assert view.asked("fork")[0]["run"] == 1
    press(view, "ArrowLeft")
    assert step_under_cursor(view) == 7


def test_the_panels_turn_to_a_branch_and_follow_it_once_it_is_on_the_screen(view_page):
    frame, buffers = two_runs(TRACE, TRACE[:20], parent=0, fork_step=4)
    view = view_page(*frame_of(TRACE, name="base"))
    view.answer("fork", {"run": 1})
    press(view, "Home")
    click(view, "Fork at step 0")
    assert view.page.locator(".wb-run-name").inner_text() == "base"
    part = frame["parts"][-1]
    tape = {**part["tape"], "buffer": 0}
    view.push({"kind": "frame", "seq": 1, "runs": frame["runs"][1:], "parts": [{**part, "tape": tape}]}, buffers[-1:])
    view.page.wait_for_function("document.querySelector('.wb-run-name').textContent === 'branch'")
    assert view.page.get_by_role("button", name="Follow").get_attribute("aria-pressed") == "true"
