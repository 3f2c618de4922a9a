"""The latency panel and the headline figures, in a real browser, against the metrics of the same trace."""

from __future__ import annotations

import re

import pytest
from view_plots import PlotArea, crowded_trace, edited_trace, gaps, speculative_trace
from view_runs import busy_trace, click, frame_of, press, step_under_cursor

from workbench.metrics import measure

GREEN, VERMILION, BLUE = (0, 158, 115), (213, 94, 0), (0, 114, 178)
SCREEN = {"width": 1100, "height": 1600}


def numbers(text):
    return [float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*\.?\d*", text)]


def figures(view):
    """The headline figures by name."""
    rows = view.page.locator(".wb-figures > div:visible").all()
    return {row.locator("dt").inner_text(): numbers(row.locator("dd").inner_text()) for row in rows}


def near(*values):
    """Three significant digits are shown."""
    return pytest.approx(list(values), rel=6e-3)


def described(view):
    return view.page.locator(".wb-latency .wb-plot").get_attribute("aria-label")


@pytest.mark.parametrize("trace", [crowded_trace, speculative_trace, edited_trace, busy_trace, lambda: crowded_trace()[20:]])
def test_every_figure_is_that_of_the_metrics(view_page, trace):
    view, metrics = view_page(*frame_of(trace())), measure(trace())
    shown = figures(view)
    assert shown["ITL p50 / p99"] == near(metrics.itl_ms.p50, metrics.itl_ms.p99)
    assert shown["output"] == near(metrics.output_tokens_per_s)
    assert shown["prefix hits"] == pytest.approx([100 * metrics.prefix_cache_hit_rate], abs=0.51)
    assert shown["TTFT p50"] == (near(metrics.ttft_ms.p50) if metrics.ttft_ms.count else [])
    assert shown.get("tokens per verify") == (near(metrics.mean_acceptance_length) if metrics.mean_acceptance_length else None)
    assert f"{metrics.itl_ms.count:,} inter-token gaps, " in described(view)
    assert numbers(described(view).split("gaps, ")[1]) == near(metrics.itl_ms.p50, 99, metrics.itl_ms.p99)


def test_figures_are_those_of_what_is_left_after_steps_were_taken_back(view_page):
    trace = crowded_trace()
    frame, buffers = frame_of(trace)
    view = view_page(frame, buffers)
    view.page.emulate_media(reduced_motion="no-preference")  # else it is drawn twice a second
    part, short = frame_of(trace, steps=30)
    part = part["parts"][0] | {"tape": part["parts"][0]["tape"] | {"requests": [], "strings": [], "owner_sets": [], "vocab": [[], []]}}
    view.push({"kind": "frame", "seq": 1, "parts": [part]}, short)
    left = measure(trace[:30])
    assert figures(view)["ITL p50 / p99"] == near(left.itl_ms.p50, left.itl_ms.p99)
    assert figures(view)["TTFT p50"] == near(left.ttft_ms.p50)


def test_the_button_leads_through_the_slowest_hundredth_of_the_gaps_and_round_again(view_page):
    trace = crowded_trace()
    view, p99 = view_page(*frame_of(trace)), measure(trace).itl_ms.p99
    slow = [(step, name) for ms, step, name in gaps(trace) if ms >= p99]
    assert len(slow) > 1
    reached = []
    for _ in [*slow, "again"]:
        click(view, "Go to the first gap")
        reached.append((step_under_cursor(view), view.page.locator(".wb-why-row[aria-current]").first.locator(".wb-why-name").inner_text()))
    assert reached == [*slow, slow[0]]


def test_steps_stand_below_those_of_the_timeline_however_long_the_names_are(view_page):
    left = []
    for name in ("r", "a_request_with_a_long_name_"):
        frame, buffers = frame_of(crowded_trace())
        tape = frame["parts"][0]["tape"]
        for request in tape["requests"]:
            request["id"] = name + request["id"]
        view = view_page(frame, buffers, **SCREEN)
        plot = view.page.locator(".wb-latency .wb-plot").bounding_box()
        over = view.page.locator(".wb-latency .u-over").bounding_box()
        left.append(over["x"] - plot["x"])
        cursor, canvas = view.page.locator(".wb-latency .wb-plot-cursor"), view.page.locator(".wb-tl-canvas")
        band = cursor.bounding_box()
        press(view, "Home")
        first = cursor.bounding_box()
        canvas.click(position={"x": band["x"] + band["width"] / 2 - canvas.bounding_box()["x"], "y": 30})
        view.settle()
        assert cursor.bounding_box() == band != first, "a click in the timeline above the cursor goes where it was"
    assert left[0] == pytest.approx(44, abs=1)
    assert left[1] > 100


@pytest.fixture
def picture(view_page):
    """The crowded trace, its gaps and first tokens, and where they lie."""
    trace = crowded_trace()
    view = view_page(*frame_of(trace), **SCREEN)
    values = [ms for ms, _, _ in gaps(trace)] + [one.ttft_ms for one in measure(trace).requests]
    return view, PlotArea(view, ".wb-latency", len(trace)), values


def test_the_slowest_gap_is_a_vermilion_dot_over_its_step_and_a_usual_one_is_green(picture):
    view, area, values = picture
    ordered = sorted(gaps(crowded_trace()))
    for (ms, step, _), colour in ((ordered[-1], VERMILION), (ordered[len(ordered) // 2], GREEN)):
        assert view.pixel(area.selector, area.x(step), area.y_log(ms, values))[:3] == pytest.approx(colour, abs=12), (ms, step)


def test_a_first_token_is_a_blue_triangle_over_its_step(picture):
    view, area, values = picture
    trace = crowded_trace()
    first = next(one for one in measure(trace).requests if one.first_scheduled_step)
    step = next(record.step for record in trace.records for entry in record.sampled if entry.request_id == first.request_id)
    assert view.pixel(area.selector, area.x(step), area.y_log(first.ttft_ms, values) + 1)[:3] == BLUE


def test_a_click_on_a_dot_goes_to_its_step_and_selects_its_request(picture):
    view, area, values = picture
    ms, step, name = max(gaps(crowded_trace()))
    view.page.mouse.click(*area.on_page(area.x(step), area.y_log(ms, values)))
    assert step_under_cursor(view) == step
    assert view.page.locator(".wb-why-row[aria-current] .wb-why-name").first.inner_text() == name


def test_a_dot_says_what_the_step_held_and_that_its_request_had_been_preempted(picture):
    view, area, values = picture
    trace = crowded_trace()
    lost = {name: record.step for record in trace.records for name in record.preempted}
    ms, step, name = max(gap for gap in gaps(trace) if gap[2] in lost and gap[1] >= lost[gap[2]])
    view.page.mouse.move(*area.on_page(area.x(step), area.y_log(ms, values)))
    lines = view.page.locator(".wb-tip").inner_text().split("\n")
    biggest = max(trace.at(step).scheduled, key=lambda row: row.num_tokens)
    whose = "its own" if biggest.request_id == name else f"{biggest.request_id}'s"
    assert re.fullmatch(rf"{name} · ([\d,.]+) ms before this token", lines[0])
    assert numbers(lines[0].split("·")[1]) == near(ms)
    assert re.fullmatch(rf"step {step}, [\d,.]+ ms: {whose} prefill of {biggest.num_tokens} tokens was in the step", lines[1])
    assert any(line.startswith(f"it was preempted in step {lost[name]} and ran again from step ") for line in lines[2:])


def test_the_linear_scale_puts_a_gap_where_its_share_of_the_longest_wait_is(picture):
    view, area, values = picture
    click(view, "Linear scale")
    ms, step, _ = max(gaps(crowded_trace()))
    assert view.pixel(area.selector, area.x(step), area.y(ms / (max(values) * 1.08)))[:3] == pytest.approx(VERMILION, abs=12)
    click(view, "Logarithmic scale")
    assert view.pixel(area.selector, area.x(step), area.y_log(ms, values))[:3] == pytest.approx(VERMILION, abs=12)


def test_the_others_step_back_while_a_request_is_selected(picture):
    view, area, values = picture
    found = gaps(crowded_trace())
    end = max(step for _, step, name in found if name == "r0")
    ms, step, _ = next(gap for gap in sorted(found) if gap[1] > end + 2)
    place = (area.selector, area.x(step), area.y_log(ms, values))
    assert view.pixel(*place)[3] == pytest.approx(0.7 * 255, abs=6)
    press(view, "Home")
    view.page.get_by_role("button", name="Select r0").click()
    view.settle()
    assert view.pixel(*place)[3] == pytest.approx(0.25 * 255, abs=6)


def test_a_run_without_tokens_has_no_dots_and_says_so(view_page):
    view = view_page(*frame_of(crowded_trace(), steps=0, state="running"))
    assert described(view) == "Latency: no token yet."
    assert view.page.get_by_role("button", name="Go to the first gap").is_disabled()


def test_plots_take_the_colours_of_another_theme_and_go_with_their_picture(picture):
    view, area, _ = picture
    empty = (area.selector, area.x(1), area.y(0.995))
    assert view.pixel(*empty)[3] == 0  # the page itself is behind the plot
    lightest = "canvas => Math.max(...canvas.getContext('2d').getImageData(0, 0, 40, 100).data.filter((_, i) => i % 4 !== 3))"
    light = view.page.locator(area.selector).evaluate(lightest)
    view.theme("dark")
    view.page.wait_for_timeout(200)
    view.settle()
    dark = view.page.locator(area.selector).evaluate(lightest)
    assert light < 200 <= dark  # step numbers and milliseconds: dark grey, then light grey
    view.close(0)
    assert view.page.locator(".uplot").count() == 0
