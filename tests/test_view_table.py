"""The data tables of the live view in a real browser, against the records of the same trace."""

from __future__ import annotations

import pytest
from view_runs import busy_trace, click, frame_of, press, step_under_cursor

TRACE = busy_trace()
LAST = len(TRACE) - 1
ROWS = 25


@pytest.fixture
def tables(view_page):
    view = view_page(*frame_of(TRACE, "finished", live=False))
    press(view, "Home")
    click(view, "Show steps and requests as tables")
    return view


def rows(view, table):
    return view.page.locator(".wb-table table").nth(table).evaluate(
        "table => [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.textContent))"
    )  # fmt: skip


def numbers(record):
    kv = record.kv
    ms = record.duration_ms
    return [
        str(record.step), f"{ms:.1f}" if ms >= 1 else f"{ms:.3g}", f"{record.tokens.used} / {record.tokens.limit}",
        str(len(record.running)), str(len(record.waiting)), str(kv.in_use), str(kv.cached), str(kv.free),
    ]  # fmt: skip


def test_the_table_of_steps_holds_the_numbers_of_the_records(tables):
    assert [row[:8] for row in rows(tables, 0)] == [numbers(record) for record in TRACE.records[:ROWS]]
    click(tables, "Show later steps")
    assert [row[:8] for row in rows(tables, 0)] == [numbers(record) for record in TRACE.records[-ROWS:]]
    head = tables.page.locator(".wb-table table").first.locator("thead th")
    assert {cell.get_attribute("scope") for cell in head.all()} == {"col"}
    assert tables.page.locator(".wb-table caption").first.inner_text() == f"Steps {LAST - ROWS + 1} to {LAST} of run"


def test_it_says_in_words_what_happened_in_a_step(tables):
    told = {int(row[0]): row[8] for row in rows(tables, 0)}
    for record in TRACE.records[:ROWS]:
        words = told[record.step]
        assert bool(record.admitted or record.preempted or record.finished or record.arrived or record.commands) == bool(words), record
        ended = [end.request_id for end in record.finished]
        for names, what in ((record.admitted, "admitted"), (record.preempted, "preempted"), (ended, "finished (length)")):
            assert (f"{', '.join(names)} {what}" in words) if names else (what not in words), record
    assert told[0] == "r0, r1, r2, r3, r4 arrived; r0, r1, r2 admitted"
    assert told[8] == "r2 preempted"
    assert told[11] == "r0, r1 finished (length)"
    assert told[12] == "r2 admitted"


def test_the_table_of_requests_tells_how_each_stands_at_the_cursor(tables):
    for step in (0, 7, 8, 12, 18):
        press(tables, "Home", *["ArrowRight"] * step)
        seen = {row[0]: row for row in rows(tables, 1)}
        record = TRACE.records[step]
        assert set(seen) == {decision.request_id for decision in record.decisions}
        done = TRACE.records[: step + 1]
        for name, (_, state, computed, cached, out, _why) in seen.items():
            ran = [(each.step, row) for each in done for row in each.scheduled if row.request_id == name]
            lost = max((each.step for each in done if name in each.preempted), default=-1)
            held = [row for at, row in ran if at > lost]
            assert int(computed) == (held[-1].end if held else 0), (step, name)
            assert int(cached) == (held[0].num_cached if held else 0), (step, name)
            assert int(out) == sum(len(entry.token_ids) for each in done for entry in each.sampled if entry.request_id == name)
            assert state == (
                next((row.kind for at, row in ran if at == step), None) or ("preempted" if name in record.preempted else "waits")
            )


def test_a_click_on_a_row_moves_the_cursor_and_the_row_says_that_it_is_there(tables):
    click(tables, "Go to step 9")
    assert step_under_cursor(tables) == 9
    current = tables.page.locator(".wb-table tr[aria-current=step]")
    assert current.count() == 1
    assert current.locator("th").inner_text() == "9"
    press(tables, "End")
    assert current.locator("th").inner_text() == str(LAST), "the window goes with the cursor"


def test_a_waiting_request_says_why_without_a_kernel(tables):
    press(tables, "ArrowRight")
    why = {row[0]: row[5] for row in rows(tables, 1)}
    assert why["r3"] == "3 requests run already (max_num_seqs)"
    assert why["r0"] == ""
