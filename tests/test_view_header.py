"""The header of the live view in a real browser: which run, on what, how it stands, what it came to, and how it differs from another."""

from __future__ import annotations

import pytest
from render_fixtures import ONERROR, make_trace
from view_runs import busy_trace, frame_of, press, say, step_under_cursor, two_runs

from workbench import Engine
from workbench.metrics import measure
from workbench.runners.scripted import ScriptedRunner
from workbench.view.sources import Source, letter_of

TRACE = busy_trace()
NEXT = len(TRACE)


def pills(view):
    return view.page.locator(".wb-headline .wb-pill:not(.wb-hidden)").all_inner_texts()


def figures(view):
    shown = view.page.locator(".wb-figures > :not(.wb-hidden)")
    return {each.locator("dt").inner_text(): each.locator("dd").inner_text() for each in shown.all()}


def test_the_header_tells_in_words_how_the_run_stands(view_page):
    frame, buffers = frame_of(TRACE)
    view = view_page(frame, buffers)
    assert view.page.locator(".wb-run-name").inner_text() == "run"
    words = {
        "paused": f"paused before step {NEXT}",
        "running": f"running · step {NEXT - 1}",
        "stopped": f"stopped · {NEXT} steps",
        "finished": f"finished · {NEXT} steps",
    }
    for seq, (state, told) in enumerate(words.items(), 1):
        say(view, frame, seq, state=state)
        view.page.wait_for_timeout(600)  # a running engine is drawn twice a second where motion is reduced
        assert pills(view)[1] == told


def test_a_failed_run_shows_its_error_with_the_step_and_keeps_its_steps_usable(view_page):
    error = {"type": "RuntimeError", "message": f"no memory {ONERROR}", "step": NEXT}
    view = view_page(*frame_of(TRACE, "failed", error=error))
    assert pills(view)[1] == f"failed at step {NEXT}"
    line = view.page.locator(".wb-failure")
    assert line.inner_text().startswith(f"Step {NEXT} failed with RuntimeError: no memory {ONERROR}")
    assert line.locator("img").count() == 0
    press(view, "Home", "ArrowRight")
    assert step_under_cursor(view) == 1


def test_the_figures_are_those_of_the_metrics(view_page):
    trace = make_trace(6, drafts_from=10)
    view = view_page(*frame_of(trace, "finished"))
    told, measured = figures(view), measure(trace)
    assert pills(view)[0] == "smollm2 · bf16 · cpu"
    shown = [float(told["TTFT p50"].split()[0]), *map(float, told["ITL p50 / p99"].removesuffix(" ms").split(" / "))]
    assert shown == pytest.approx([measured.ttft_ms.p50, measured.itl_ms.p50, measured.itl_ms.p99], rel=0.006)
    assert float(told["output"].split()[0]) == pytest.approx(measured.output_tokens_per_s, rel=0.006)
    assert told["prefix hits"] == f"{100 * measured.prefix_cache_hit_rate:.0f} %"
    assert float(told["tokens per verify"]) == pytest.approx(measured.mean_acceptance_length, rel=0.006)


def test_figures_that_a_run_does_not_have_are_left_out_or_dashed(view_page):
    view = view_page(*frame_of(TRACE, steps=0))
    assert figures(view) == {"TTFT p50": "–", "ITL p50 / p99": "–", "output": "–", "prefix hits": "0 %"}
    assert pills(view) == ["scripted", "paused before step 0"]


def test_the_first_difference_calls_runs_by_the_letters_of_their_tabs(view_page):
    with Engine(ScriptedRunner(), num_blocks=64, block_size=4, max_num_seqs=1) as engine:
        base = engine.run([[1] * 5, [2] * 5], max_tokens=4)
        traces = [base.trace[:], base.fork(2, max_num_seqs=2).resume().trace[:], base.fork(3, abort=["r1"]).resume().trace[:]]
    sources = [Source(trace, number) for number, trace in enumerate(traces)]
    told = [source.difference_to(sources[0])[1] for source in sources[1:]]
    assert [(" in a" in words, " in b" in words, " in c" in words) for words in told] == [(True, True, False), (True, False, True)]
    frame, buffers = two_runs(traces[0], traces[1], parent=0, fork_step=2)
    frame["runs"].append(frame["runs"][1] | {"run": 2})
    letters = view_page(frame, buffers).page.locator(".wb-run-tab .wb-letter").all_inner_texts()
    assert letters == [letter_of(source.number) for source in sources]


def test_tabs_choose_of_which_run_the_panels_speak_and_tell_what_differs(view_page):
    knobs = {"num_blocks": 64, "block_size": 4, "max_num_seqs": 1}
    with Engine(ScriptedRunner(), **knobs) as engine:
        base = engine.run([[1] * 5, [2] * 5], max_tokens=4)
        branch = base.fork(2, max_num_seqs=2).resume()
        sentence = "Step 2 differs first: in a r1 waits, in b it is admitted."
        frame, buffers = two_runs(base.trace, branch.trace, parent=0, fork_step=2, parted={"position": 2, "sentence": sentence})
        frame["runs"][1]["fork_config"] = frame["parts"][0]["status"]["config"]
        frame["parts"][-1]["status"]["config"] |= {"max_num_seqs": 2}
    view = view_page(frame, buffers)
    tabs = view.page.get_by_role("tab")
    assert [" ".join(tab.split()) for tab in tabs.all_inner_texts()] == ["a base", "b branch from step 2 · max_num_seqs 2 instead of 1"]
    assert [tab.get_attribute("aria-selected") for tab in tabs.all()] == ["true", "false"]
    say(view, frame, 1, config={**frame["parts"][0]["status"]["config"], "max_num_seqs": 3})  # the parent goes on
    view.settle()
    assert "max_num_seqs 2 instead of 1" in tabs.nth(1).inner_text()
    tabs.nth(1).click()
    view.settle()
    assert view.page.locator(".wb-run-name").inner_text() == "branch"
    assert pills(view)[1] == f"finished · {len(branch.trace)} steps"
    assert sentence in view.page.locator(".wb-parted").inner_text()
    view.page.get_by_role("button", name="Put the cursor on the first step that differs").click()
    assert step_under_cursor(view) == 2
    view.page.keyboard.press("Tab")
    tabs.nth(1).focus()
    view.page.keyboard.press("ArrowLeft")
    assert step_under_cursor(view) == 2, "arrow keys go from tab to tab, the cursor stays"
    assert view.page.locator(".wb-run-name").inner_text() == "base"
