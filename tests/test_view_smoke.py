"""The harness of the view's browser tests, proved on the built bundle."""

from __future__ import annotations

import pytest
from view_page import THEMES
from view_runs import busy_trace, frame_of


@pytest.mark.parametrize("theme", THEMES)
def test_the_bundle_loads_and_shows_itself_without_an_error(view_page, theme):
    view = view_page(theme=theme)
    assert view.page.locator(".picture").count() == 1


def test_a_second_picture_of_a_model_can_be_opened_and_closed(view_page):
    view = view_page()
    second = view.render()
    assert view.page.locator(".picture").count() == 2
    view.close(second)
    assert view.page.locator(".picture").count() == 1


def test_a_closed_model_leaves_no_listener_behind(view_page):
    view = view_page()
    view.destroy()
    assert view.page.locator(".picture").count() == 0
    assert view.page.evaluate("window.harness.model.listening") == 0


def test_a_message_that_the_view_does_not_know_breaks_nothing(view_page):
    view = view_page()
    view.push({"kind": "from a later version", "numbers": [1, 2]}, [b"\0" * 24], shift=3)
    assert not view.errors


def test_the_result_takes_the_place_of_the_view_in_the_notebook_around_it(view_page):
    view = view_page(*frame_of(busy_trace(), "finished"))
    view.page.evaluate(
        """() => {
            const widget = (id) => ({ data: { "application/vnd.jupyter.widget-view+json": { model_id: id }, "text/plain": "<View>" } });
            window.held = [{ data: {} }, widget("ours"), widget("another")];
            const set = (place, output) => (held[place] = output);
            const outputs = { get length() { return held.length; }, get: (place) => held[place], set };
            harness.model.widget_manager = { context: { model: { cells: [{}, { outputs }] } } };
        }"""
    )
    result = {"text/plain": "12 steps", "text/html": "<p>12 steps</p>"}
    view.push({"kind": "result", "view": "ours", "data": result})
    first, second, third = view.page.evaluate("held")
    assert second == {"output_type": "display_data", "data": result, "metadata": {}}
    assert first == {"data": {}}
    assert third["data"]["text/plain"] == "<View>"
