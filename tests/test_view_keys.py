"""The keys of the live view, and the cursor that walks by itself, in a real browser."""

from __future__ import annotations

import pytest
from view_runs import asked, busy_trace, click, frame_of, paused_view, press, stand_still, step_under_cursor

TRACE = busy_trace()
LAST = len(TRACE) - 1


@pytest.fixture
def paused(view_page):
    return paused_view(view_page)


def walked(view, ms):
    view.page.clock.run_for(ms)
    return int(view.page.get_by_role("slider", name="Step").evaluate("slider => slider.value"))


def test_keys_move_the_cursor_over_the_recorded_steps(paused):
    moves = [
        (["Home"], 0),
        (["ArrowLeft"], 0),
        (["ArrowRight"], 1),
        (["Shift+ArrowRight"], 11),
        (["ArrowLeft", "ArrowLeft"], 9),
        (["Shift+ArrowLeft"], 0),
        (["End"], LAST),
    ]
    for keys, step in moves:
        press(paused, *keys)
        assert step_under_cursor(paused) == step, keys
    assert not asked(paused, "step")


def test_the_slider_moves_one_step_for_one_arrow_key(paused):
    paused.page.get_by_role("slider", name="Step").focus()
    paused.page.keyboard.press("ArrowLeft")
    assert step_under_cursor(paused) == LAST - 1
    assert paused.page.get_by_role("slider").get_attribute("aria-valuetext") == f"step {LAST - 1} of {LAST}"


def test_a_key_that_the_view_uses_does_not_reach_the_page_and_another_does(paused):
    paused.page.evaluate("window.heard = []; document.addEventListener('keydown', (event) => heard.push(event.key)); 0")
    press(paused, "ArrowLeft", " ", "f", "j", "Control+s")
    assert paused.page.evaluate("heard") == ["j", "Control", "s"]
    assert paused.page.locator(".wb-view").get_attribute("data-lm-suppress-shortcuts") == "true"


def test_keys_typed_into_a_prompt_move_nothing_and_ctrl_enter_adds_it(paused):
    click(paused, "Add a prompt")
    box = paused.page.get_by_role("textbox", name="Prompt to add")
    box.wait_for()
    box.press_sequentially("f0 +?")
    box.press("Home")
    assert step_under_cursor(paused) == LAST
    paused.page.get_by_role("spinbutton", name="Most output tokens").fill("9")
    box.press("Control+Enter")
    paused.wait_for_ask("add")
    assert asked(paused, "add") == [{"prompt": "f0 +?", "max_tokens": 9}]
    paused.page.wait_for_function("document.querySelector('.wb-prompt textarea').value === ''")


def test_the_arrow_on_the_newest_step_asks_a_paused_engine_for_one_more_and_follows(paused):
    press(paused, "f")  # stands on the newest step, but no longer follows
    assert paused.page.get_by_role("button", name="Follow").get_attribute("aria-pressed") == "false"
    press(paused, "ArrowRight")
    assert asked(paused, "step") == [{}]
    assert paused.page.get_by_role("button", name="Follow").get_attribute("aria-pressed") == "true"


def test_every_quick_press_of_the_arrow_is_a_step_one_after_the_other(view_page):
    view = view_page(*frame_of(TRACE))
    press(view, *["ArrowRight"] * 3)
    for count in (1, 2, 3):
        asks = view.wait_for_ask("step", count)
        assert len(asks) == count, "the next step is asked for when the engine has taken the one before"
        answered(view, asks[-1])
    assert len(asked(view, "step")) == 3


def test_steps_that_are_still_owed_are_dropped_when_the_cursor_goes_back(view_page):
    view = view_page(*frame_of(TRACE))
    press(view, *["ArrowRight"] * 3, "ArrowLeft")
    answered(view, view.wait_for_ask("step")[0])
    assert len(asked(view, "step")) == 1
    assert step_under_cursor(view) == LAST - 1


def test_a_held_arrow_owes_nothing_once_it_is_let_go(view_page):
    view = view_page(*frame_of(TRACE))
    view.page.locator(".wb-view").focus()
    for _ in range(4):
        view.page.keyboard.down("ArrowRight")
    view.page.keyboard.up("ArrowRight")
    answered(view, view.wait_for_ask("step")[0])
    assert len(asked(view, "step")) == 1


def answered(view, ask):
    view.push({"kind": "reply", "id": ask["id"], "client": ask["client"], "ok": True, "value": 0})


def test_the_walk_keeps_the_chosen_speed_without_drifting(paused):
    press(paused, "Home")
    stand_still(paused)
    paused.page.keyboard.press(" ")
    places = [walked(paused, 500) for _ in range(4)]
    assert all(abs(place - 5 * (i + 1)) <= 1 for i, place in enumerate(places)), places
    paused.page.keyboard.press(" ")
    assert walked(paused, 1000) == places[-1]


def test_the_walk_draws_twice_a_second_for_those_who_want_reduced_motion(paused):
    press(paused, "Home")
    stand_still(paused, reduced_motion="reduce")
    paused.page.keyboard.press(" ")
    places = [walked(paused, 100) for _ in range(21)]
    assert 3 <= len(set(places)) <= 6, places
    assert places[-1] >= 15, places


def test_a_walk_that_reaches_the_end_of_a_paused_run_lets_it_run_on(paused):
    press(paused, "Home")
    paused.page.get_by_role("combobox", name="Speed").select_option("100")
    paused.page.emulate_media(reduced_motion="no-preference")
    press(paused, " ")
    assert paused.wait_for_ask("resume")
    assert step_under_cursor(paused) == LAST


def test_the_list_of_keys_opens_over_the_page_and_gives_the_focus_back(paused):
    press(paused, "?")
    keys = paused.page.get_by_role("dialog", name="Keys")
    assert "stay on the newest step" in keys.inner_text()
    paused.page.keyboard.press("Escape")
    assert keys.count() == 0
    assert paused.page.evaluate("document.activeElement.classList.contains('wb-view')")


def test_the_zoom_keys_press_the_buttons_of_the_timeline(paused):
    paused.page.evaluate(
        """window.pressed = [];
        document.querySelector(".wb-timeline").addEventListener("click", (event) => pressed.push(event.target.title)); 0"""
    )
    press(paused, "+", "-", "0")
    assert paused.page.evaluate("pressed") == ["show fewer steps", "show more steps", "show the whole run"]


def test_the_status_line_changes_at_most_once_a_second(paused):
    paused.page.wait_for_timeout(1100)  # what it has to tell of the beginning was told by the clock that is now replaced
    stand_still(paused, reduced_motion="reduce")
    paused.page.locator(".wb-view").focus()
    paused.page.clock.run_for(2000)
    paused.page.evaluate(
        """window.told = []; const where = document.querySelector('.wb-where');
        const changed = new MutationObserver(() => told.push(where.textContent));
        changed.observe(where, { childList: true, characterData: true, subtree: true }); 0"""
    )
    for _ in range(10):
        paused.page.keyboard.press("ArrowLeft")
        paused.page.clock.run_for(90)
    assert len(paused.page.evaluate("told")) <= 2
    paused.page.clock.run_for(1100)
    record = TRACE.records[LAST - 10]
    share = round(100 * record.kv.in_use / 12)
    words = f"step {LAST - 10}: {len(record.running)} running, {len(record.waiting)} waiting, KV {share} %"
    assert paused.page.evaluate("told").pop() == words
