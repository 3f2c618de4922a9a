"""The tooltip of the live view stands by the pointer, whatever the notebook does to its cells."""

from __future__ import annotations

import pytest
from view_runs import busy_trace, frame_of


@pytest.mark.parametrize("style", ["", "content-visibility: auto", "contain: layout paint"])
def test_the_tooltip_stands_by_the_pointer_also_in_a_contained_cell(view_page, style):
    view = view_page(*frame_of(busy_trace()))
    view.page.evaluate(
        "style => { document.querySelector('.picture').style.cssText = `width: 700px; margin: 120px 0 0 90px; ${style}`; }", style
    )
    view.settle()
    box = view.page.locator(".wb-timeline canvas").first.bounding_box()
    x, y = box["x"] + 200, box["y"] + 90
    view.page.mouse.move(x, y)
    view.settle()
    tip = view.page.locator(".wb-tip")
    assert "step" in tip.inner_text()
    place = tip.bounding_box()
    assert 0 < place["x"] - x < 20
    assert 0 < place["y"] - y < 20
    view.page.mouse.move(1, 1)
    view.settle()
    assert not tip.is_visible()
