"""The map of KV blocks, in a real browser: pixels, words and clicks against the moments of the same trace."""

from __future__ import annotations

import re
from functools import cache

import pytest
from render_fixtures import scripted_run
from test_moment import changed_in_mid_run, resize
from test_view_why import go
from view_plots import edited_trace, speculative_trace
from view_runs import busy_trace, click, frame_of, press

from workbench.moment import moment
from workbench.tape import snapshot

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a90a", "#7d5ba6")
EMPTY = (0, 0, 0, 0)
HEIGHT = 243  # CSS pixels of the map at most


@cache
def sharing_trace():
    """Four requests with the same beginning, which share its blocks, in a pool with room for all; the last goes on alone."""
    prompts = [[5] * 33 + [i] * 4 for i in range(4)]
    return scripted_run(prompts, block_size=16, num_blocks=96, max_num_seqs=4, max_num_batched_tokens=64, max_tokens=20).trace


class Map:
    """Where each block has its cell, by the rule of ``blocks/grid.ts``: cells as large as fit, in order of ids."""

    def __init__(self, view, count: int) -> None:
        self.view = view
        width = view.page.locator(".wb-blocks-canvas").evaluate("(canvas) => canvas.clientWidth")
        self.pitch = next(p for p in range(27, 3, -1) if -(-count // (width // p)) * p <= HEIGHT or p == 4)
        self.columns = width // self.pitch
        self.side = self.pitch - 3

    def place(self, number: int, across: float = 0.5, up: float = 2.0) -> tuple[float, float]:
        """A point of the ``number``-th cell, ``up`` pixels above its lower edge."""
        x, y = (number - 1) % self.columns * self.pitch, (number - 1) // self.columns * self.pitch
        return x + 1.5 + across * self.side, y + 1.5 + self.side - up

    def pixels(self, points):
        """Red, green, blue and opacity at each of the points."""
        return [
            tuple(each)
            for each in self.view.page.locator(".wb-blocks-canvas").evaluate(
                """(canvas, points) => points.map(([x, y]) => Array.from(canvas.getContext("2d").getImageData(x, y, 1, 1).data))""",
                [[int(x), int(y)] for x, y in points],
            )
        ]

    def hover(self, number: int) -> str:
        """What the tooltip says of the block in the ``number``-th cell."""
        x, y = self.place(number)
        self.view.page.locator(".wb-blocks-canvas").hover(position={"x": x, "y": y})
        self.view.settle()
        return self.view.page.locator(".wb-tip").inner_text()

    def click(self, number: int) -> None:
        x, y = self.place(number)
        self.view.page.locator(".wb-blocks-canvas").click(position={"x": x, "y": y})
        self.view.settle()


def rgb(colour):
    return (*(int(colour[at : at + 2], 16) for at in (1, 3, 5)), 255)


def indices(trace):
    return {name: place for place, name in enumerate(trace.requests)}


def words(view):
    return view.page.locator(".wb-blocks-line").inner_text().replace("\n", " ")


def opened(view_page, trace):
    return view_page(*frame_of(trace, live=False), width=1100, height=1500)


@pytest.mark.parametrize("trace", [busy_trace, speculative_trace])
def test_every_block_in_use_has_the_colour_of_its_first_holder_and_is_as_full_as_its_tokens(view_page, trace):
    trace = trace()
    view = opened(view_page, trace)
    numbers = indices(trace)
    for record in trace.records[:: max(1, len(trace) // 5)]:
        go(view, record.step)
        now = moment(trace, record.step)
        grid = Map(view, len(now.blocks))
        found = grid.pixels([grid.place(block.block_id) for block in now.blocks])
        fills = {
            block_id: min(now.block_size, max(0, (one.num_computed_tokens or 0) - place * now.block_size))
            for one in now.requests
            for place, block_id in enumerate(one.block_ids or ())
        }
        for block, pixel in zip(now.blocks, found, strict=True):
            if block.status != "in use":
                assert pixel == EMPTY, f"{block} is drawn as {pixel}"
                continue
            full = rgb(COLOURS[numbers[block.owners[0]]])
            if fills[block.block_id] * grid.side >= 3 * now.block_size:
                assert pixel == full, f"{block} with {fills[block.block_id]} tokens is drawn as {pixel}"
            else:
                assert 0 < pixel[3] < 255, f"{block} with {fills[block.block_id]} tokens is drawn as {pixel}"


@pytest.mark.parametrize("trace", [busy_trace, edited_trace])
def test_the_three_numbers_and_the_wasted_slots_are_those_of_the_moment(view_page, trace):
    trace = trace()
    view = opened(view_page, trace)
    for record in trace.records[:: max(1, len(trace) // 6)]:
        go(view, record.step)
        now, kv = moment(trace, record.step), record.kv
        said = words(view)
        shares = [f"{int(100 * part / kv.total + 0.5)} %" for part in (kv.in_use, kv.cached, kv.free)]
        assert said.startswith(f"{shares[0]} in use · {shares[1]} cached, reusable · {shares[2]} free"), said
        wasted = re.search(r"wasted slots: (\d+) of (\d+) \(([\d.]+) %\)", said)
        assert (int(wasted[1]), int(wasted[2])) == (now.wasted_slots, kv.in_use * now.block_size)
        assert float(wasted[3]) == pytest.approx(100 * now.fragmentation, abs=0.5 if now.fragmentation >= 0.1 else 0.05)
        assert view.page.locator(".wb-blocks h4 em").inner_text() == f"{kv.total} × {now.block_size} tokens"


def test_the_block_that_is_said_to_go_next_is_the_one_that_goes(view_page):
    trace = busy_trace()
    view = opened(view_page, trace)
    checked = {"evicted": 0, "used": 0}
    for record, after in zip(trace.records, trace.records[1:], strict=False):
        if any(event.kind == "freed" for event in record.block_events):
            continue  # what the commit frees comes into the queue after the instant that is shown
        taken = next((event for event in after.block_events if event.kind in ("evicted", "allocated", "hit", "freed")), None)
        if taken is None or taken.kind not in ("evicted", "allocated"):
            continue
        go(view, record.step)
        told = re.search(r"next to be (evicted|used): #(\d+)", words(view))
        after_free = "free block" in words(view)
        if taken.kind == "evicted" or told[1] == "used":
            assert (int(told[2]), after_free) == (taken.block_id, False)
            checked[told[1]] += 1
        elif told[1] == "evicted":
            assert after_free, "an empty block went before the cached one that was said to go next"
    assert min(checked.values()) > 0, checked


def test_cached_blocks_bear_their_place_in_the_order_of_eviction(view_page):
    trace = busy_trace()
    view = opened(view_page, trace)
    record = next(record for record in trace.records if record.kv.cached > 2)
    go(view, record.step)
    now = moment(trace, record.step)
    grid = Map(view, len(now.blocks))
    told = [grid.hover(block.block_id) for block in now.blocks if block.status == "cached"]
    assert all("cached, reusable" in each for each in told)
    places = [re.search(r"evicted (next|\d+)", each)[1] for each in told]
    assert sorted(1 if place == "next" else int(place) for place in places) == list(range(1, record.kv.cached + 1))


def test_a_policy_that_chooses_its_victims_itself_is_said_to(view_page):
    trace = scripted_run([[7] * 9, [7] * 8 + [1], [3] * 30], block_size=1, num_blocks=48, policy="lpm", max_num_seqs=2, max_tokens=6).trace
    view = opened(view_page, trace)
    assert "the radix cache evicts the least recently used leaf" in words(view)


def test_the_tooltip_names_the_holders_the_tokens_and_their_text(view_page):
    trace = sharing_trace()
    trace.token_texts.update({5: " five", 0: " zero", 1: " one", 2: "\n", 3: " three"})
    view = opened(view_page, trace)
    record = next(record for record in trace.records if any(len(block.owners) == 4 for block in moment(trace, record.step).blocks))
    go(view, record.step)
    now = moment(trace, record.step)
    grid = Map(view, len(now.blocks))
    shared = next(block for block in now.blocks if len(block.owners) == 4)
    told = grid.hover(shared.block_id)
    assert told.startswith(f"block {shared.block_id} · in use\nshared by 4: r0, r1, r2, r3\nr0, 1st block: tokens 0–15")
    assert "“" + " five" * 16 + "”" in told
    assert f"hash {shared.hash}" in told
    tables = {one.request_id: one for one in now.requests}
    last = tables["r2"].block_ids[2]
    filled = tables["r2"].num_computed_tokens - 32
    told = grid.hover(last)
    assert f"held by r2\nr2, 3rd block: tokens 32–{31 + filled}, {filled} of 16 slots filled\n“ five{'↵' * 4}" in told


def test_what_happened_to_a_block_in_the_step_stands_in_its_tooltip_and_in_the_legend(view_page):
    trace = busy_trace()
    view = opened(view_page, trace)
    told = {
        "allocated": "allocated",
        "hit": "found in the cache",
        "shared": "shared with one more",
        "cached": "became full",
        "evicted": "evicted",
        "freed": "let go",
    }
    seen = set()
    for record in trace.records[::2]:
        go(view, record.step)
        legend = view.page.locator(".wb-blocks-marks").inner_text()
        kinds = [event.kind for event in record.block_events]
        for kind, said in told.items():
            assert (f"{kinds.count(kind)} {said}" in legend) == (kind in kinds), f"step {record.step}: {kind} in {legend!r}"
        if record.block_events and set(kinds) - seen:
            block = record.block_events[-1].block_id
            grid = Map(view, len(moment(trace, record.step).blocks))
            here = {told[event.kind] for event in record.block_events if event.block_id == block}
            assert all(said in grid.hover(block).partition("in this step: ")[2] for said in here)
            seen |= set(kinds)
    assert {"allocated", "cached", "evicted", "freed"} <= seen


def test_a_click_on_a_shared_block_selects_its_holders_in_turn(view_page):
    trace = sharing_trace()
    view = opened(view_page, trace)
    record = next(record for record in trace.records if any(len(block.owners) == 4 for block in moment(trace, record.step).blocks))
    go(view, record.step)
    now = moment(trace, record.step)
    shared = next(block for block in now.blocks if len(block.owners) == 4)
    grid = Map(view, len(now.blocks))
    chosen = []
    for _ in range(5):
        grid.click(shared.block_id)
        chosen.append(view.page.locator(".wb-text h4 em").inner_text().split(" · ")[0])
    assert chosen == ["r0", "r1", "r2", "r3", "r0"]
    other = next(block for block in now.blocks if block.owners == ("r3",))
    (pixel,) = grid.pixels([grid.place(other.block_id)])
    assert 0 < pixel[3] < 128, "a block of another request than the selected one is dimmed"
    grid.click(next(block.block_id for block in now.blocks if block.status == "free"))
    assert view.page.locator(".wb-chips [aria-pressed=true]").inner_text() == "all"


def test_by_request_the_blocks_of_each_request_stand_side_by_side_then_cached_then_free(view_page):
    trace = busy_trace()
    view = opened(view_page, trace)
    record = next(record for record in trace.records if record.kv.cached and record.kv.in_use > 4)
    go(view, record.step)
    view.page.get_by_role("button", name=re.compile("side by side")).click()
    view.settle()
    now = moment(trace, record.step)
    grid = Map(view, len(now.blocks))
    found = [grid.hover(number + 1).split("\n") for number in range(len(now.blocks))]
    status = [lines[0].partition(" · ")[2] for lines in found]
    assert status == ["in use"] * record.kv.in_use + ["cached, reusable"] * record.kv.cached + ["free"] * record.kv.free
    order = {name: place for place, name in enumerate(trace.requests)}
    used = found[: record.kv.in_use]
    drawn = [(order[re.search(r"r\d+", lines[1])[0]], int(re.search(r"tokens (?:from )?(\d+)", "\n".join(lines))[1])) for lines in used]
    assert drawn == sorted(drawn)
    assert sorted(int(lines[0].split()[1]) for lines in found) == [block.block_id for block in now.blocks]


def test_blocks_that_a_smaller_pool_gave_up_are_not_drawn(view_page):
    trace = changed_in_mid_run({0: [resize(6)], 12: [resize(9)]})
    view = opened(view_page, trace)
    go(view, 3)
    assert view.page.locator(".wb-blocks h4 em").inner_text() == "6 × 4 tokens"
    label = view.page.locator(".wb-blocks-canvas").get_attribute("aria-label")
    kv = trace.records[3].kv
    assert label.startswith(f"KV blocks at step 3: {kv.in_use} in use, {kv.cached} cached, reusable, {kv.free} free")
    assert Map(view, 6).hover(7) == ""


def test_a_trace_that_lacks_its_beginning_says_what_it_does_not_know(view_page):
    trace = busy_trace()[8:]
    view = opened(view_page, trace)
    go(view, 0)
    now = moment(trace, trace.first_step)
    grid = Map(view, len(now.blocks))
    for block in now.blocks:
        told = grid.hover(block.block_id)
        assert told.startswith(f"block {block.block_id} · {'cached, reusable' if block.status == 'cached' else block.status}")
    assert now.wasted_slots is not None or "wasted slots: not known" in words(view)
    assert "the order of reuse is not in this trace" in words(view)


def test_a_map_of_thousands_of_blocks_keeps_its_height_and_scrolls(view_page):
    trace = scripted_run([[7] * 40], block_size=4, num_blocks=9000, max_tokens=3).trace
    view = opened(view_page, trace)
    canvas = view.page.locator(".wb-blocks-canvas")
    assert canvas.bounding_box()["height"] <= HEIGHT
    used = [block.block_id for block in moment(trace, trace.records[-1].step).blocks if block.status == "in use"]
    grid = Map(view, 9000)
    assert grid.pitch == 4
    columns = grid.columns
    centre = [((number - 1) % columns * 4 + 1, (number - 1) // columns * 4 + 1) for number in used]
    assert set(grid.pixels(centre[:-1])) == {rgb(COLOURS[0])}
    view.page.locator(".wb-blocks-map").evaluate("(map) => { map.scrollTop = 200; }")
    view.settle()
    assert rgb(COLOURS[0]) not in grid.pixels(centre)
    told = re.match(r"block (\d+) · free", grid_hover(view, 1, 1))
    assert int(told[1]) == 200 // 4 * columns + 1


@cache
def crowded_trace():
    """A thousand blocks, so small cells; some are shared, some evicted."""
    prompts = [[i % 3] * 150 + [i + 5] * 150 for i in range(12)]
    return scripted_run(prompts, block_size=2, num_blocks=1000, max_num_seqs=4, max_num_batched_tokens=250, max_tokens=12).trace


def test_small_cells_that_are_drawn_one_by_one_look_as_if_all_were_drawn(view_page):
    trace = crowded_trace()
    assert {event.kind for record in trace for event in record.block_events} >= {"allocated", "shared", "cached", "evicted", "freed"}
    view = opened(view_page, trace)
    assert Map(view, 1000).pitch < 10
    pictures = set()

    def picture():
        return view.page.locator(".wb-blocks-canvas").evaluate("(canvas) => canvas.toDataURL()")

    def check():
        shown = picture()
        for theme in ("dark", "light"):  # another theme draws everything
            view.theme(theme)
            view.page.wait_for_timeout(80)
            view.settle()
        assert picture() == shown
        pictures.add(shown)

    last = len(trace) - 1
    for step in (last // 2, last // 2 + 1, 1, last):
        go(view, step)
        check()
    click(view, "Blocks of a request")
    go(view, last // 3)
    check()
    view.page.locator(".wb-name").first.click()
    check()
    assert len(pictures) == 6


def grid_hover(view, x, y):
    view.page.locator(".wb-blocks-canvas").hover(position={"x": x, "y": y})
    view.settle()
    return view.page.locator(".wb-tip").inner_text()


def test_the_arrow_keys_walk_on_the_map_and_say_what_they_find_without_moving_the_cursor(view_page):
    trace = sharing_trace()
    view = opened(view_page, trace)
    go(view, 6)
    before = words(view)
    view.page.locator(".wb-blocks-canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        view.page.keyboard.press(key)
    view.settle()
    assert view.page.locator(".wb-blocks [role=status]").inner_text().startswith("block 3 · in use · ")
    view.page.keyboard.press("Enter")
    view.settle()
    assert view.page.locator(".wb-text h4 em").inner_text().startswith("r")
    assert words(view) == before
    view.page.keyboard.press("Escape")
    assert view.page.locator(".wb-tip").is_hidden()


def test_a_run_without_steps_says_so(view_page):
    frame, buffers = snapshot(busy_trace()[:0])
    view = view_page(frame, buffers)
    assert "the blocks appear with the first" in view.page.locator(".wb-blocks").inner_text()
    press(view, "ArrowRight")
