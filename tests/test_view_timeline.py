"""The timeline in a real browser, against the records of the same trace: colours of cells, heights of bars, words of tooltips."""

from __future__ import annotations

import base64
import io

import pytest
from view_plots import crowded_trace, speculative_trace
from view_runs import busy_trace, click, frame_of, press, step_under_cursor, two_runs

from workbench.render.board import states_of

LEFT, RIGHT, TOKENS, ROW = 44, 8, 73, 18  # CSS pixels: names, margin, height of the strip of tokens, height of a row
HEIGHT, ROOM = 55, 9  # of a bar as high as the budget, and above it
FILLS = {"prefill": (0, 114, 178), "decode": (0, 158, 115), "verify": (204, 121, 167), "preempted": (213, 94, 0)}
CACHE = (86, 180, 233)


def top_of(trace) -> int:
    """Tokens at the top of the upper strip: the budget, or the most in a step when the budget lies far above all of them."""
    limit, most = trace[0].tokens.limit, max(record.tokens.used for record in trace)
    return most if most < limit / 4 else limit


class Strips:
    """One chart of a whole run as it is on the screen: its pixels, and where steps and rows lie."""

    def __init__(self, view, trace, chart: int = 0, marked: bool = False, columns: int | None = None) -> None:
        from PIL import Image

        self.view, self.canvas = view, view.page.locator(".wb-tl-canvas").nth(chart)
        data = self.canvas.evaluate("(canvas) => canvas.toDataURL()")
        self.image = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA")
        self.step = min(30, (self.image.width - LEFT - RIGHT) / (columns or len(trace)))
        self.head = 14 if marked else 7 if top_of(trace) < trace[0].tokens.limit else 0  # room for names of marks, or for the budget's

    def edge(self, position: float) -> int:
        return round(LEFT + position * self.step)

    def row(self, place: int) -> int:
        """The middle of a row."""
        return self.head + TOKENS + ROW * place + 8

    def cell(self, position: int, place: int) -> set[tuple[int, int, int]]:
        """The colours in the right of a cell, where neither counts of tokens nor marks of ends stand."""
        right, middle = self.edge(position + 1), self.row(place)
        return self.opaque(range(right - 4, right - 2), range(middle - 4, middle + 4))

    def opaque(self, xs, ys) -> set[tuple[int, int, int]]:
        pixels = [self.image.getpixel((x, y)) for x in xs for y in ys]
        return {pixel[:3] for pixel in pixels if pixel[3] > 200}

    def heights(self, position: int) -> dict[str, int]:
        """Pixels of each kind in a bar of the upper strip."""
        x = (self.edge(position) + self.edge(position + 1)) // 2
        pixels = [self.image.getpixel((x, y)) for y in range(self.head + ROOM, self.head + ROOM + HEIGHT)]
        return {kind: sum(pixel == (*fill, 255) for pixel in pixels) for kind, fill in FILLS.items()}

    def point(self, position: float, y: float) -> tuple[float, float]:
        """A place on the page."""
        box = self.canvas.bounding_box()
        return box["x"] + LEFT + (position + 0.5) * self.step, box["y"] + y

    def hover(self, position: float, y: float) -> str:
        """What the tooltip says there."""
        self.view.page.mouse.move(*self.point(position, y))
        self.view.settle()
        tip = self.view.page.locator(".wb-tip:visible")
        return tip.inner_text() if tip.count() else ""


def described(view, chart: int = 0) -> str:
    return view.page.locator(".wb-tl-canvas").nth(chart).get_attribute("aria-label")


def in_sight(view) -> tuple[int, int] | None:
    """First and last step in sight; nothing when that is the whole run."""
    whole = view.page.locator(".wb-tl-map:visible")
    if whole.count() == 0:
        return None
    words = whole.get_attribute("aria-label").split("steps ")[1].split(" to ")
    return int(words[0]), int(words[1])


def legend(view) -> set[str]:
    return {each.get_attribute("data-kind") for each in view.page.locator(".wb-tl-key").all()}


def places(trace) -> dict[str, int]:
    """The row of each request: in the order in which they were first sent."""
    return {name: place for place, name in enumerate(trace.requests)}


def agrees(strips: Strips, trace, cursor: int) -> None:
    """Every cell but those under the cursor has the colour of what the request did."""
    for position, record in enumerate(trace.records):
        states = states_of(record)
        for name, place in places(trace).items():
            if position == cursor:
                continue
            seen, state = strips.cell(position, place), states.get(name)
            where = f"{name} in step {record.step} ({state}): {seen}"
            if state in ("prefill", "decode", "verify"):
                spared = any(row.request_id == name and row.num_cached for row in record.scheduled)
                assert seen == {FILLS[state]} or (spared and seen & {FILLS[state], CACHE}), where
            else:
                assert not seen & {FILLS["prefill"], FILLS["decode"], FILLS["verify"]}, where


@pytest.mark.parametrize(("trace", "theme"), [(busy_trace, "light"), (speculative_trace, "dark")])
def test_every_cell_has_the_colour_of_what_the_request_did(view_page, trace, theme):
    view = view_page(*frame_of(trace()), theme=theme)
    press(view, "Home")
    agrees(Strips(view, trace()), trace(), cursor=0)


def test_a_preempted_request_has_a_triangle_and_a_finished_one_a_mark_behind_its_last_cell(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    press(view, "Home")
    strips, rows = Strips(view, trace), places(trace)
    lost = [(record.step, name) for record in trace for name in record.preempted]
    ended = [(record.step, end.request_id) for record in trace for end in record.finished]
    assert lost
    assert len(ended) == len(rows)
    for step, name in lost:
        middle = strips.edge(step + 0.5)
        assert FILLS["preempted"] in strips.opaque(range(middle - 2, middle + 2), [strips.row(rows[name])])
    for step, name in ended:
        mark = strips.opaque(range(strips.edge(step + 1) + 1, strips.edge(step + 1) + 3), [strips.row(rows[name])])
        assert mark
        assert not mark & set(FILLS.values())


@pytest.mark.parametrize("trace", [busy_trace, speculative_trace, crowded_trace])
def test_the_height_of_a_bar_is_the_share_of_the_budget_that_each_kind_took(view_page, trace):
    view = view_page(*frame_of(trace()))
    press(view, "Home")
    strips = Strips(view, trace())
    for position, record in enumerate(trace().records):
        if position == 0 or strips.step < 4:
            continue
        for kind in ("prefill", "decode", "verify"):
            tokens = sum(row.num_tokens for row in record.scheduled if row.kind == kind)
            wanted = max(1.5, tokens * HEIGHT / top_of(trace())) if tokens else 0
            assert strips.heights(position)[kind] == pytest.approx(wanted, abs=1.01), (record.step, kind)


def test_tokens_that_the_prefix_cache_spared_stand_above_what_was_computed(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    strips = Strips(view, trace)
    position, record = next((i, record) for i, record in enumerate(trace.records) if any(row.num_cached for row in record.scheduled))
    spared, used = sum(row.num_cached for row in record.scheduled), record.tokens.used
    text = strips.hover(position, 30)
    assert f"step {record.step}: {used} of {record.tokens.limit} tokens" in text
    assert f"{spared} more spared by the prefix cache" in text
    top = ROOM + HEIGHT - round(used * HEIGHT / record.tokens.limit)
    above = strips.opaque(range(strips.edge(position), strips.edge(position + 1) - 1), range(max(0, top - 3), top - 1))
    assert CACHE in above


def test_the_picture_is_summed_up_in_words(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    press(view, "Home", "ArrowRight", "ArrowRight", "ArrowRight")
    record = trace[3]
    assert described(view).startswith(
        f"step 3 of {len(trace)}, {len(record.running)} running, {len(record.waiting)} waiting, "
        f"{record.tokens.used} of {record.tokens.limit} tokens, "
    )


def test_a_waiting_request_tells_why_in_words_with_the_numbers(view_page):
    trace = busy_trace()
    frame, buffers = frame_of(trace)
    view = view_page(frame, buffers)
    strips, words = Strips(view, trace), frame["runs"][0]["meta"]["reason_words"]
    told = set()
    for record in trace:
        states = states_of(record)
        for decision in record.decisions:
            if decision.reason in told or states.get(decision.request_id) not in ("waiting", "preempted"):
                continue
            told.add(decision.reason)
            numbers = {name: getattr(decision, name) for name in ("needed", "available", "limit", "blocker")}
            state, name = states[decision.request_id], decision.request_id
            wanted = f"step {record.step} · {name} {state}: {words[decision.reason].format(**numbers)}"
            assert strips.hover(record.step, strips.row(places(trace)[name])) == wanted
    assert len(told) >= 2


def test_a_cell_of_work_tells_which_tokens(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    strips = Strips(view, trace)
    row = next(row for record in trace for row in record.scheduled if row.num_cached)
    record = next(record for record in trace if row in record.scheduled)
    text = strips.hover(record.step, strips.row(places(trace)[row.request_id]))
    assert text.startswith(f"step {record.step} · {row.request_id} prefill, token")
    assert (f"tokens {row.start}–{row.end} ({row.num_tokens})" if row.num_tokens > 1 else f"token {row.start}") in text
    assert f", {row.num_cached} from the prefix cache" in text


def test_a_verification_tells_how_many_drafts_were_right(view_page):
    trace = speculative_trace()
    view = view_page(*frame_of(trace))
    strips = Strips(view, trace)
    for record in trace[4:8]:
        for spec in record.spec:
            text = strips.hover(record.step, strips.row(places(trace)[spec.request_id]))
            assert f"{spec.accepted} of {spec.proposed} draft" in text
            assert f"{spec.emitted} token" in text


def test_the_lower_strip_tells_the_phases_of_a_step(view_page):
    trace = speculative_trace()
    view = view_page(*frame_of(trace))
    strips = Strips(view, trace)
    text = strips.hover(6, strips.head + TOKENS + ROW * len(trace.requests) + 8 + 40)
    assert text.startswith("step 6: ")
    assert "forward 5," in text


def test_a_click_on_a_cell_selects_the_request_and_goes_to_the_step(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    strips = Strips(view, trace)
    view.page.mouse.click(*strips.point(10, strips.row(1)))
    assert step_under_cursor(view) == 10
    assert view.page.locator(".wb-why").get_by_text("r1", exact=True).count() > 0
    chosen = Strips(view, trace).image.getpixel((2, strips.row(1)))
    assert chosen[3] > 0, "the row of the selected request is marked"
    view.page.mouse.move(*strips.point(10, 30))
    view.page.mouse.down()
    view.page.mouse.move(*strips.point(14, 30), steps=4)
    view.page.mouse.up()
    assert step_under_cursor(view) == 14


def test_a_plain_wheel_scrolls_the_page_and_with_control_it_zooms(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace), height=500)
    press(view, "Home")
    strips = Strips(view, trace)
    view.page.mouse.move(*strips.point(20, 30))
    assert in_sight(view) is None
    before = view.page.evaluate("scrollY")
    view.page.keyboard.down("Control")
    view.page.mouse.wheel(0, -60)
    view.settle()
    first, last = in_sight(view)
    assert 0 < first <= 20 <= last < len(trace) - 1
    view.page.keyboard.up("Control")
    assert view.page.evaluate("scrollY") == before
    view.page.mouse.wheel(0, 120)
    view.page.wait_for_function("(before) => scrollY > before", arg=before)
    assert in_sight(view) == (first, last)


def test_the_stretch_is_zoomed_panned_and_fitted_again(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    press(view, "Home")
    click(view, "show fewer steps")
    click(view, "show fewer steps")
    first, last = in_sight(view)
    assert first == 0
    assert last < len(trace) - 2
    strips = Strips(view, trace)
    view.page.mouse.move(*strips.point(20, 100))
    view.page.mouse.wheel(90, 0)
    view.settle()
    moved = in_sight(view)
    assert moved[0] > 0
    assert moved[1] - moved[0] == pytest.approx(last - first, abs=1)
    press(view, "End")
    assert in_sight(view)[1] == len(trace) - 1, "the cursor stays in sight"
    click(view, "show the whole run")
    assert in_sight(view) is None


def slots_of(trace) -> list[dict[int, str]]:
    """By step: who sits in which place of the batch.  Those who stay keep it, newcomers take the lowest that is free."""
    found: list[dict[int, str]] = []
    for record in trace:
        before = {name: place for place, name in (found[-1] if found else {}).items()}
        inside = [name for name, state in states_of(record).items() if state != "waiting" and (state != "preempted" or name in before)]
        now = {before[name]: name for name in inside if name in before}
        for name in sorted((name for name in inside if name not in before), key=list(trace.requests).index):
            now[next(place for place in range(99) if place not in now)] = name
        found.append(now)
    return found


def test_rows_can_be_the_places_in_the_batch(view_page):
    trace = busy_trace()
    view = view_page(*frame_of(trace))
    click(view, "a row per place in the batch")
    assert "rows: batch slots" in view.page.locator(".wb-timeline h4").inner_text()
    strips = Strips(view, trace)
    told = 0
    for record, slots in list(zip(trace, slots_of(trace), strict=True))[::5]:
        for place, name in slots.items():
            text = strips.hover(record.step, strips.row(place))
            assert f" · {name} " in text
            told += 1
    assert told > 10


def test_the_legend_names_only_what_occurs(view_page):
    busy = busy_trace()
    states = {state for record in busy for state in states_of(record).values()}
    ends = {end.reason for record in busy for end in record.finished}
    assert {"preempted", "waiting"} <= states
    view = view_page(*frame_of(busy))
    assert legend(view) - {"plan", "forward", "sample"} == states | ends | {"cache"}


def test_steps_that_were_taken_back_are_off_the_picture(view_page):
    trace = busy_trace()
    frame, buffers = frame_of(trace)
    view = view_page(frame, buffers)
    view.page.emulate_media(reduced_motion="no-preference")  # else it is drawn twice a second
    part, short = frame_of(trace, steps=11)
    view.push({"kind": "frame", "seq": 1, "parts": part["parts"]}, short)
    press(view, "Home")
    assert f"of {len(trace[:11])}, " in described(view)
    agrees(Strips(view, trace[:11]), trace[:11], cursor=0)


def test_the_newest_steps_stay_in_sight_of_a_run_that_is_followed(view_page):
    trace = crowded_trace()
    view = view_page(*frame_of(trace, "running", steps=40), width=520)
    view.page.emulate_media(reduced_motion="no-preference")
    click(view, "show fewer steps")
    first, last = in_sight(view)
    assert last == 39
    whole, buffers = frame_of(trace, "running", steps=60)
    view.push({"kind": "frame", "seq": 1, "parts": whole["parts"]}, buffers)
    later = in_sight(view)
    assert later[1] == 59
    assert later[1] - later[0] == pytest.approx(last - first, abs=1)


def test_a_branch_pales_what_it_shares_and_marks_where_it_left(view_page):
    trace = busy_trace()
    parted = {"position": 12, "sentence": "r3 was admitted here and waits there."}
    view = view_page(*two_runs(trace, trace, parent=0, fork_step=10, parted=parted))
    assert "a branch from step 10 on, first difference in step 12" in described(view, 1)
    press(view, "End")
    base, branch = Strips(view, trace), Strips(view, trace, chart=1, marked=True)
    row = next(row for row in trace[5].scheduled if row.kind in FILLS)
    place = places(trace)[row.request_id]
    assert base.cell(5, place) == {FILLS[row.kind]} != branch.cell(5, place)
    assert branch.hover(11.5, 40) == f"first difference\n{parted['sentence']}"
    headings = view.page.locator(".wb-tl-name:visible")
    assert headings.all_inner_texts() == ["base", "branch"]
    headings.nth(0).click()
    assert headings.nth(0).get_attribute("aria-pressed") == "true"


def test_a_run_whose_end_lies_out_of_sight_says_in_words_where_it_ended(view_page):
    trace = busy_trace()
    view = view_page(*two_runs(trace[:6], trace, parent=0, fork_step=4))
    view.page.locator(".wb-tl-name:visible").nth(1).click()
    press(view, "End")
    assert "ended with" not in described(view, 0), "all of it is in sight"
    for _ in range(6):
        click(view, "show fewer steps")
    assert in_sight(view)[0] >= 6
    assert described(view, 0).startswith("ended with step 5; ")
    assert "ended with" not in described(view, 1)
    rows = Strips(view, trace[:6])
    middle = rows.image.height // 2
    assert rows.opaque(range(LEFT + 6, LEFT + 100), range(middle - 30, middle + 30)), "nothing is written in the empty strips"


def test_a_run_that_failed_shows_the_step_and_the_message(view_page):
    trace = busy_trace()
    error = {"type": "RuntimeError", "message": "out of <b>memory</b>", "step": 9}
    view = view_page(*frame_of(trace, "failed", steps=9, error=error))
    assert "step 9 failed: out of <b>memory</b>" in described(view)
    strips = Strips(view, trace, marked=True, columns=10)
    assert strips.hover(9, 60) == "step 9 failed\nRuntimeError: out of <b>memory</b>"
    assert strips.image.getpixel((strips.edge(9.5), 100))[3] > 0


def test_a_run_without_a_step_says_how_to_begin(view_page):
    view = view_page(*frame_of(busy_trace(), steps=0))
    assert view.page.locator(".wb-timeline").get_by_text("no step yet: press ▶ or step").is_visible()
    assert view.page.locator(".wb-tl-canvas:visible").count() == 0


def test_something_done_to_the_engine_is_a_flag_with_its_words(view_page):
    frame, buffers = frame_of(busy_trace())
    frame["parts"][0]["tape"]["events"].append({"step": 8, "kind": "command", "text": "max_num_seqs: 3 → 4"})
    view = view_page(frame, buffers)
    strips = Strips(view, busy_trace())
    flag = strips.image.height - 18 - 8  # above the step numbers
    assert strips.hover(7.5, flag) == "before step 8: max_num_seqs: 3 → 4"
    assert strips.hover(20, flag) == ""
    assert strips.opaque(range(strips.edge(8) + 1, strips.edge(8) + 5), [flag])
