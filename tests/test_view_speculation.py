"""The speculation panel, in a real browser, against the metrics and records of the same trace."""

from __future__ import annotations

import re

import pytest
from render_fixtures import speculative_run
from view_plots import crowded_trace, speculative_trace
from view_runs import frame_of, press

from workbench.metrics import measure
from workbench.render.palette import LOOKS

TRACE = speculative_trace()
ROUNDS = [spec for record in TRACE.records for spec in record.spec]
SCREEN = {"width": 1100, "height": 1700}
PINK = tuple(int(LOOKS["verify"].colour[i : i + 2], 16) for i in (1, 3, 5))
BARS = ".wb-speculation canvas.wb-acceptance"
TOP, BOTTOM, WIDEST = 16, 16, 104  # CSS pixels above, below, and of a bar's place (bars.ts)


@pytest.fixture
def view(view_page):
    return view_page(*frame_of(TRACE, live=False), **SCREEN)


def shares():
    """``(accepted, of those that had the draft and accepted all before it)`` of each draft position."""
    came = [[spec.accepted > place for spec in ROUNDS if spec.accepted >= place < spec.proposed] for place in range(3)]
    return [(sum(right), len(right)) for right in came]


def test_a_run_without_drafts_has_no_such_panel(view_page):
    view = view_page(*frame_of(crowded_trace(), live=False))
    assert not view.page.locator(".wb-speculation").is_visible()


def test_acceptance_by_position_is_that_of_the_metrics_and_the_conditional_rate_stands_beside_it(view):
    said = view.page.locator(BARS).get_attribute("aria-label")
    rates = measure(TRACE).acceptance_per_position
    assert said.startswith(f"Acceptance by position, {len(ROUNDS)} rounds: ")
    found = re.findall(r"draft (\d) (\d+) % of all(?:, (\d+) % of those that came to it)?", said)
    assert [int(place) for place, _, _ in found] == [1, 2, 3]
    assert [int(share) for _, share, _ in found] == [pytest.approx(100 * rate, abs=0.51) for rate in rates]
    assert [int(given) for _, _, given in found[1:]] == [pytest.approx(100 * count / before, abs=0.51) for count, before in shares()[1:]]


def test_hovering_a_bar_gives_the_counts(view):
    box = view.page.locator(BARS).bounding_box()
    slot = min(WIDEST, box["width"] / 3)
    view.page.mouse.move(box["x"] + 1.5 * slot, box["y"] + 80)
    (_, _), (count, before), _ = shares()
    lines = view.page.locator(".wb-tip").inner_text().split("\n")
    assert lines[0].startswith(f"draft 2: accepted in {count} of {len(ROUNDS)} rounds, ")
    assert lines[1].startswith(f"of the {before} that came to it: ")
    assert lines[2] == f"proposed in {sum(spec.proposed > 1 for spec in ROUNDS)}"


def test_bars_are_as_high_as_the_share_of_all_rounds_and_ticks_as_that_of_those_that_came_so_far(view):
    box = view.page.locator(BARS).bounding_box()
    slot, room = min(WIDEST, box["width"] / 3), box["height"] - TOP - BOTTOM
    for place, (count, before) in enumerate(shares()):
        left = (place + 0.5) * slot - min(44, 0.6 * slot) / 2
        top = TOP + (1 - count / len(ROUNDS)) * room
        assert view.pixel(BARS, left + 2, top + 3)[:3] == pytest.approx(PINK, abs=3)
        assert view.pixel(BARS, left + 2, top - 3)[:3] != pytest.approx(PINK, abs=40)
        if place:
            tick = TOP + (1 - count / before) * room
            assert [view.pixel(BARS, left - 2, tick + shift)[3] > 0 for shift in (-4, 0, 4)] == [False, True, False]


READ_CHIPS = """rows => rows.map((row) => [row.querySelector("b").textContent, [...row.querySelectorAll(".wb-draft")].map((chip) =>
    [chip.textContent, [...chip.classList].filter((each) => each !== "wb-draft").map((each) => each.replace("wb-", ""))])])"""


def chips(view):
    """The rounds on the screen: ``[request, [[text, kinds]…]]``."""
    return view.page.locator(".wb-round").evaluate_all(READ_CHIPS)


def expected(step):
    """The same from the records."""
    record, before = TRACE.at(step), TRACE.at(step - 1)
    proposed = {entry.request_id: entry.token_ids for entry in before.proposed}
    sampled = {entry.request_id: entry.token_ids for entry in record.sampled}
    found = []
    for spec in sorted(record.spec, key=lambda spec: int(spec.request_id[1:])):
        drafts = proposed[spec.request_id][: spec.proposed]
        fates = ["accepted"] * spec.accepted + ["rejected"] + ["unreached"] * spec.proposed
        row = [[f"⟨{token}⟩", [fate]] for token, fate in zip(drafts, fates, strict=False)]
        if spec.emitted > spec.accepted:
            row.append([f"⟨{sampled[spec.request_id][-1]}⟩", ["bonus" if spec.rejected_at is None else "corrected"]])
        found.append([spec.request_id, row])
    return found


def test_the_drafts_of_the_step_at_the_cursor_are_shown_with_what_became_of_them(view):
    press(view, "Home")
    assert chips(view) == []
    assert view.page.get_by_text("no drafts were verified in this step").is_visible()
    for step in range(1, 12):
        press(view, "ArrowRight")
        assert chips(view) == expected(step)
        assert view.page.get_by_text(f"drafts of step {step}", exact=True).is_visible()


def test_a_kind_of_chip_is_known_by_more_than_its_colour(view):
    press(view, "Home", "ArrowRight")
    look = "el => [getComputedStyle(el, '::before').content, getComputedStyle(el).textDecorationLine, getComputedStyle(el).borderStyle]"
    names = ("accepted", "rejected", "unreached", "bonus", "corrected")
    looks = {name: tuple(view.page.locator(f".wb-draft.wb-{name}").first.evaluate(look)) for name in names}
    assert len(set(looks.values())) == len(looks)
    assert looks["rejected"][1] == "line-through"


def test_tokens_per_round_are_those_of_all_rounds(view):
    mean = sum(spec.emitted for spec in ROUNDS) / len(ROUNDS)
    said = view.page.locator(".wb-speculation .wb-plot").get_attribute("aria-label")
    assert f"on average {mean:.2f} in {len(ROUNDS)} rounds" in said


def test_rounds_that_were_taken_back_count_no_more(view_page):
    frame, buffers = frame_of(TRACE)
    view = view_page(frame, buffers, **SCREEN)
    view.page.emulate_media(reduced_motion="no-preference")
    short, less = frame_of(TRACE, steps=8)
    part = short["parts"][0]
    part["tape"] |= {"requests": [], "strings": [], "owner_sets": [], "vocab": [[], []]}
    view.push({"kind": "frame", "seq": 1, "parts": [part]}, less)
    left = sum(len(record.spec) for record in TRACE.records[:8])
    assert f", {left} rounds: " in view.page.locator(BARS).get_attribute("aria-label")


def test_a_round_tells_what_proposing_and_verifying_took_and_the_header_how_drafts_are_proposed(view_page):
    view = view_page(*frame_of(speculative_run().trace, live=False), **SCREEN)
    press(view, "Home", *["ArrowRight"] * 4)
    assert view.page.locator(".wb-round").inner_text().replace("\n", " ").endswith("10 ms draft, 30 ms verify")
    assert view.page.get_by_text("eagle, auto, at most 6 drafts", exact=True).is_visible()
    assert view.page.get_by_text("drafts chosen").is_visible()


def test_the_line_of_the_drafts_chosen_is_there_only_where_they_were(view):
    assert not view.page.get_by_text("drafts chosen").is_visible()
    assert view.page.get_by_text("3 drafts", exact=True).is_visible()
