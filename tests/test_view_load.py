"""The load panel, in a real browser: what it says and draws is what the step records hold."""

from __future__ import annotations

import pytest
from view_plots import PlotArea, crowded_trace
from view_runs import frame_of, press, step_under_cursor

TRACE = crowded_trace()[:36]  # few enough that a step is several pixels wide
SCREEN = {"width": 1100, "height": 1700}
IN_USE, CACHED = (0, 114, 178, 153), (86, 180, 233, 102)


def words(record):
    kv = record.kv
    running, waiting = len(record.running), len(record.waiting)
    blocks = f"{kv.in_use} block{'s' * (kv.in_use != 1)} in use, {kv.cached} cached, {kv.free} free"
    return [f"step {record.step}", blocks, f"{running} request{'s' * (running != 1)} running, {waiting} waiting"]


@pytest.fixture
def view(view_page):
    return view_page(*frame_of(TRACE), **SCREEN)


@pytest.fixture
def area(view):
    return PlotArea(view, ".wb-load", len(TRACE))


def test_the_picture_is_described_by_the_numbers_of_the_step_at_the_cursor(view):
    for keys in (["Home"], ["Shift+ArrowRight"], ["End"]):
        press(view, *keys)
        said = view.page.locator(".wb-load .wb-plot").get_attribute("aria-label")
        assert said.endswith("\n".join(words(TRACE.at(step_under_cursor(view)))))


def test_hovering_a_step_gives_its_numbers_and_a_click_goes_there(view, area):
    for step in (3, len(TRACE) // 2, len(TRACE) - 1):
        place = area.on_page(area.x(step), area.y(0.3))
        view.page.mouse.move(*place)
        assert view.page.locator(".wb-tip").inner_text().split("\n") == words(TRACE.at(step))
        view.page.mouse.click(*place)
        assert step_under_cursor(view) == step


def test_blocks_in_use_cached_and_free_lie_on_top_of_each_other_as_shares_of_the_pool(view, area):
    record = max(TRACE.records, key=lambda record: min(record.kv.in_use, record.kv.cached, record.kv.free))
    total, used, held = record.kv.total, record.kv.in_use, record.kv.in_use + record.kv.cached
    assert IN_USE in fills(view, area, record.step, 0, used / total)
    cached = fills(view, area, record.step, used / total, held / total)
    assert CACHED in cached
    assert IN_USE not in cached
    assert not {IN_USE, CACHED} & fills(view, area, record.step, held / total, 1)


def fills(view, area, step, low, high):
    """Which of the two fills a step's column shows between two shares of the height, its edges left out: lines may cross it."""
    edge = 3 / area.height
    shares = [low + edge + (high - low - 2 * edge) * place / 8 for place in range(9)]
    shown = [view.pixel(area.selector, area.x(step), area.y(share)) for share in shares]
    return {fill for fill in (IN_USE, CACHED) if any(pixel == pytest.approx(fill, abs=3) for pixel in shown)}


def test_the_line_of_running_requests_lies_at_its_share_of_the_most_in_sight(view, area):
    most = max(max(len(r.running), len(r.waiting)) for r in TRACE.records)
    steady = [r for r in TRACE.records[1:-1] if TRACE.at(r.step - 1).running == r.running == TRACE.at(r.step + 1).running]
    apart = [record for record in steady if len(record.waiting) != len(record.running)]
    for record in (apart[0], apart[-1]):
        y = area.y(len(record.running) / (most * 1.12))
        pixels = {shift: view.pixel(area.selector, area.x(record.step), y + shift) for shift in (-5, -1, 0, 1, 5)}
        inked = [shift for shift, (*channels, alpha) in pixels.items() if alpha > 200 and max(channels) < 60]
        assert inked
        assert not {-5, 5} & set(inked)


def test_the_cursor_lies_over_its_step(view, area):
    for step, keys in ((0, ["Home"]), (10, ["Shift+ArrowRight"])):
        press(view, *keys)
        box = view.page.locator(".wb-load .wb-plot-cursor").bounding_box()
        assert box["x"] + box["width"] / 2 == pytest.approx(area.on_page(area.x(step), 0)[0], abs=1.5)
        assert box["height"] == pytest.approx(area.height, abs=1)


def test_a_run_that_grows_is_drawn_to_its_newest_step(view_page):
    frame, buffers = frame_of(TRACE, steps=20, state="running")
    view = view_page(frame, buffers, **SCREEN)
    view.page.emulate_media(reduced_motion="no-preference")
    whole, more = frame_of(TRACE, state="running")
    part = whole["parts"][0]
    part["tape"] |= {"requests": [], "strings": [], "owner_sets": [], "vocab": [[], []]}
    view.push({"kind": "frame", "seq": 1, "parts": [part]}, more)
    last = TRACE.records[-1]
    assert view.page.locator(".wb-load .wb-plot").get_attribute("aria-label").endswith("\n".join(words(last)))
