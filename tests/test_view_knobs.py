"""The drawer of knobs of the live view, in a real browser."""

from __future__ import annotations

import pytest
from view_runs import asked, busy_trace, click, paused_view, press

from workbench._knobs import knobs, problem_with
from workbench.config import EngineConfig

TRACE = busy_trace()
LAST = len(TRACE) - 1
CHANGEABLE = {knob.name: knob for knob in knobs(EngineConfig) if knob.fork}


@pytest.fixture
def drawer(view_page):
    view = paused_view(view_page)
    click(view, "Knobs")
    return view


def field(view, name):
    return view.page.get_by_label(name, exact=False).and_(view.page.locator(".wb-knob input, .wb-knob select"))


def row(view, name):
    return field(view, name).locator("xpath=ancestor::div[1]")


def put(view, name, value):
    field(view, name).fill(value)
    view.settle()


def problem(view, name):
    return row(view, name).locator(".wb-problem").inner_text()


def test_every_knob_that_may_change_has_a_field_with_its_value_range_and_doc(drawer):
    assert drawer.page.locator(".wb-knob").count() == len(CHANGEABLE)
    for name, knob in CHANGEABLE.items():
        value, shown = getattr(TRACE.config, name), field(drawer, name)
        if knob.type is bool:
            assert shown.is_checked() == value
        else:
            assert shown.input_value() == ("" if value is None else str(value))
        if knob.type is int:
            limits = [shown.get_attribute("min"), shown.get_attribute("max")]
            assert limits == [f"{knob.ge:g}", None if knob.le is None else f"{knob.le:g}"]
        assert knob.doc in row(drawer, name).get_attribute("title")
        assert ("branch" in row(drawer, name).inner_text()) == (not knob.live)


def test_a_value_out_of_range_is_told_beside_its_field_and_not_sent(drawer):
    for value in (0, 5000):
        put(drawer, "max_num_seqs", str(value))
        assert "max_num_seqs " + problem(drawer, "max_num_seqs") == problem_with(CHANGEABLE["max_num_seqs"], value).split(", not")[0]
        apply = drawer.page.get_by_role("button", name="Apply now")
        assert apply.is_disabled()
        assert "max_num_seqs must be" in apply.get_attribute("title")
    put(drawer, "max_num_seqs", "")
    assert problem(drawer, "max_num_seqs") == "must be given"
    click(drawer, "Take back the change of max_num_seqs")
    assert field(drawer, "max_num_seqs").input_value() == str(TRACE.config.max_num_seqs)


def test_live_knobs_are_applied_between_two_steps(drawer):
    put(drawer, "max_num_seqs", "2")
    field(drawer, "enable_chunked_prefill").uncheck()
    click(drawer, "Apply now")
    drawer.wait_for_ask("change")
    assert asked(drawer, "change") == [{"knobs": {"max_num_seqs": 2, "enable_chunked_prefill": False}}]
    drawer.page.wait_for_function("document.querySelectorAll('.wb-knob.wb-changed').length === 0")
    assert "max_num_seqs, enable_chunked_prefill: changed before the next step." in drawer.page.locator(".wb-message").inner_text()


def test_a_knob_that_needs_a_branch_cannot_be_applied_but_branched_with(drawer):
    put(drawer, "num_blocks", "30")
    field(drawer, "policy").select_option("priority")
    drawer.settle()
    apply = drawer.page.get_by_role("button", name="Apply now")
    assert apply.is_disabled()
    assert "num_blocks, policy cannot change between two steps" in apply.get_attribute("title")
    click(drawer, f"Branch from step {LAST} with these")
    assert asked(drawer, "fork") == [{"step": LAST, "changes": {"num_blocks": 30, "policy": "priority"}, "resume": True}]


def test_nothing_is_applied_to_the_past(drawer):
    put(drawer, "max_num_seqs", "2")
    press(drawer, "ArrowLeft")
    apply = drawer.page.get_by_role("button", name="Apply now")
    assert apply.is_disabled()
    assert "the cursor is in the past" in apply.get_attribute("title")


def test_what_the_kernel_refuses_stands_beside_the_field_that_it_names(drawer):
    refusal = "num_blocks cannot shrink to 2: 5 blocks are in use"
    drawer.answer("fork", error=refusal)
    put(drawer, "num_blocks", "2")
    click(drawer, f"Branch from step {LAST} with these")
    drawer.page.wait_for_function("document.querySelector('.wb-message.wb-error') !== null")
    drawer.settle()
    assert problem(drawer, "num_blocks") == refusal
    assert field(drawer, "num_blocks").input_value() == "2", "the change stays, to be mended"
    click(drawer, "Take all changes back")
    assert field(drawer, "num_blocks").input_value() == str(TRACE.config.num_blocks)


def test_escape_closes_the_drawer_and_a_prompt_must_hold_something(drawer):
    add = drawer.page.get_by_role("button", name="Add this prompt")
    assert add.is_disabled()
    drawer.page.get_by_role("textbox", name="Prompt to add").fill("   ")
    drawer.settle()
    assert add.is_disabled()
    drawer.answer("add", "r9")
    drawer.page.get_by_role("textbox", name="Prompt to add").fill("Hello")
    drawer.settle()
    add.click()
    drawer.wait_for_ask("add")
    drawer.page.get_by_text("r9 joins the queue before the next step.").wait_for()
    field(drawer, "num_blocks").press("Escape")
    drawer.settle()
    assert not drawer.page.locator(".wb-knobs").is_visible()
