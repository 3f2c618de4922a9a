"""Runs for tests of the view's screen: a recorded trace as the frame of a live, a finished or a failed run, and where its cursor stands."""

from __future__ import annotations

import base64
import json
import re
from functools import cache

from render_fixtures import scripted_run

from workbench.tape import snapshot

PROMPTS = ([7] * 9, [7] * 8 + [1], [2] * 12, [3] * 30, [4] * 6)


@cache
def busy_trace():
    """A trace with waiting, chunks, prefix hits, preemptions and ends: 5 requests on a pool that is too small for them."""
    return scripted_run(list(PROMPTS), block_size=4, num_blocks=12, max_num_seqs=3, max_num_batched_tokens=16, max_tokens=12).trace


def frame_of(trace, state="paused", *, live=True, steps=None, error=None, **info):
    """The frame and buffers of the first ``steps`` steps of ``trace``, as a run in ``state``."""
    part = trace if steps is None else trace[:steps]
    frame, buffers = snapshot(part, state=state)
    frame["runs"][0] |= {"live": live, **info}
    for each in frame["parts"]:
        each["status"] |= {} if error is None else {"error": error}
    return frame, buffers


def two_runs(first, second, **info):
    """One frame with two runs on it, both live; ``info`` goes to the second."""
    frame, buffers = frame_of(first, "finished", name="base")
    other, more = frame_of(second, "finished", name="branch", **info)
    for part in other["parts"]:
        part["run"] = 1
        part["tape"]["buffer"] += len(buffers)
    frame["runs"].append(other["runs"][0] | {"run": 1})
    return {**frame, "parts": frame["parts"] + other["parts"]}, [*buffers, *more]


OPS = ("why", "pause", "resume", "step", "stop", "rewind", "fork", "change", "abort", "add")


def paused_view(view_page):
    """The whole run, paused after its last step, before a kernel that answers everything."""
    view = view_page(*frame_of(busy_trace()))
    for op in OPS:
        view.answer(op)
    return view


def stand_still(view, *, reduced_motion="no-preference"):
    """Take the page's clock in hand: it goes on by ``view.page.clock.run_for`` only."""
    view.page.emulate_media(reduced_motion=reduced_motion)
    view.page.clock.install()
    view.page.clock.pause_at("2100-01-01")


def step_under_cursor(view):
    """The number of the step that the slider stands on."""
    view.settle()
    return int(re.search(r"\d+", view.page.get_by_role("slider", name="Step").get_attribute("aria-valuetext"))[0])


def press(view, *keys):
    """Press keys with the focus on the view itself."""
    view.page.locator(".wb-view").focus()
    for key in keys:
        view.page.keyboard.press(key)
    view.settle()


def click(view, name):
    """Press a button by (the beginning of) its name."""
    view.page.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).first.click()
    view.settle()


def asked(view, op):
    """What the view has asked of the kernel, without the envelope."""
    envelope = ("kind", "id", "client", "op", "run")
    return [{key: value for key, value in each.items() if key not in envelope} for each in view.asked(op)]


def say(view, frame, seq, **status):
    """Tell the view another status of its run."""
    state = json.loads(json.dumps(frame["parts"][-1]["status"])) | status
    view.push({"kind": "frame", "seq": seq, "parts": [{"run": 0, "status": state}]})


def open_saved(view, frame, buffers):
    """Show a saved run on the page, instead of the view over the stub kernel."""
    view.destroy()
    view.page.evaluate(
        """async ([frame, texts]) => {
            const { play } = await import("/view.js");
            const buffers = texts.map((text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
            const el = document.createElement("div");
            document.body.append(el);
            await play(el, { frame, whys: [] }, buffers);
        }""",
        [frame, [base64.b64encode(buffer).decode() for buffer in buffers]],
    )
    view.settle()
