"""Three pictures of the whole view, compared with what somebody looked at and found good.

``WORKBENCH_UPDATE_GOLDEN=1`` takes new ones; look at them before they are committed.
"""

from __future__ import annotations

import msgspec
import pytest
from browser import assert_looks_like
from scripted_cells import speaking_engine

from workbench.events import StepTiming
from workbench.tape import snapshot
from workbench.trace import Trace
from workbench.view.sources import Source

TOLERANCE = 0.02  # of the pixels: text is drawn a little differently from one build of the browser to the next


def steady(trace: Trace) -> Trace:
    """The same steps on a clock that runs alike on every machine: a millisecond and a half, and a tenth for each token read."""
    records, now_s = [], 0.0
    for record in trace:
        timing = StepTiming(plan_ms=0.2, prepare_ms=0.1, forward_ms=1.0 + 0.1 * record.tokens.used, sample_ms=0.1, commit_ms=0.1)
        arrived = tuple([msgspec.structs.replace(each, arrival_s=now_s) for each in record.arrived])
        records.append(msgspec.structs.replace(record, start_s=now_s, timing=timing, arrived=arrived))
        now_s += timing.total_ms / 1e3
    return Trace(trace.config, trace.model, trace.requests.values(), records, trace.fidelity, trace.token_texts)


@pytest.fixture(scope="module")
def run():
    engine = speaking_engine(num_blocks=24, block_size=4, max_num_seqs=3, max_num_batched_tokens=24)
    prompts = ["What is gravity?", "What is gravity, though?", {"prompt": "Name three primes.", "arrival_step": 4}, "Why is the sky blue?"]
    return engine.run(prompts, max_tokens=28, ignore_eos=True, chat=False)


def frame_of(*traces: Trace):
    """One frame of several traces, the second of which parts from the first."""
    frames = [snapshot(trace, name=name) for trace, name in zip(traces, ("run", "branch"), strict=False)]
    whole, buffers = frames[0]
    for number, (frame, more) in enumerate(frames[1:], 1):
        whole["runs"].append({**frame["runs"][0], "run": number, "parent": 0, "fork_step": 10})
        for part in frame["parts"]:
            whole["parts"].append({**part, "run": number, "tape": {**part["tape"], "buffer": len(buffers)}})
        buffers = [*buffers, *more]
    return whole, buffers


def show(view_page, frame, step: int, **look):
    view = view_page(*frame, height=1300, **look)
    slider = view.page.locator(".wb-view input[type=range]").first
    slider.evaluate("(el, step) => { el.value = step; el.dispatchEvent(new Event('input', {bubbles: true})); }", step)
    view.page.wait_for_timeout(1300)  # the line of words below follows at most once a second
    view.page.evaluate("() => document.activeElement?.blur()")
    return view


def test_a_run_in_the_light_theme_looks_as_it_did(view_page, run):
    view = show(view_page, frame_of(steady(run.trace)), 12, width=1180)
    assert_looks_like(view.screenshot(".wb-view"), "view-light", TOLERANCE)


def test_a_branch_beside_its_parent_in_the_dark_theme_looks_as_it_did(view_page, run):
    branch = run.fork(10, num_blocks=40).resume()
    view = show(view_page, frame_of(steady(run.trace), steady(branch.trace)), 20, width=1180, theme="dark")
    assert_looks_like(view.screenshot(".wb-view"), "view-dark-branch", TOLERANCE)


def test_a_narrow_page_looks_as_it_did(view_page, run):
    view = show(view_page, frame_of(steady(run.trace)), 12, width=640)
    assert_looks_like(view.screenshot(".wb-view"), "view-narrow", TOLERANCE)


def test_a_source_of_the_same_trace_packs_what_the_snapshot_holds(run):
    trace = steady(run.trace)
    part = Source(trace, 0).news()
    assert part is not None
    assert part.buffer == snapshot(trace)[1][0]
