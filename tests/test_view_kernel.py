"""The live view in a real kernel, with the ipykernel of the environment and with one that has no subshells."""

from __future__ import annotations

import time

import pytest
from tape_reader import Tape
from test_view_page import packed
from view_kernel import custom, view_kernel

from workbench.tape import Part

pytestmark = pytest.mark.kernel
BUTTONS_S = 0.1  # beyond the step under way, which must end first
STEP_S = 0.02

ENGINE = f"""
from scripted_cells import SpeakingRunner, speaking_engine
from workbench.view import View
engine = speaking_engine(runner=SpeakingRunner(sleep_s={STEP_S}), max_num_seqs=8)
"""


@pytest.fixture(scope="module", params=[False, True], ids=["ipykernel", "ipykernel 6"])
def kernel(request):
    with view_kernel(older=request.param) as started:
        started.run("%load_ext workbench")
        yield started


def shown_in_background(kernel, **knobs) -> str:
    """Start a long run in the background under a view; the view's comm."""
    kernel.run(ENGINE)
    kernel.run(f"run = engine.run(['a', 'b'], max_tokens=2000, background=True, **{knobs!r})\nview = View(run)")
    comm = kernel.opened_views()[-1]
    kernel.wait_for_state(comm, "running")
    return comm


def end(kernel) -> None:
    kernel.run("run.stop(); run.wait(); view.close(); engine.close()")


@pytest.mark.parametrize("control", [False, True], ids=["comm", "control"])
def test_buttons_reach_a_background_run_within_a_tenth_of_a_second(kernel, control):
    comm = shown_in_background(kernel)
    took = {}

    def press(op: str, state: str | None = None, **args) -> None:
        began = time.monotonic()
        reply = kernel.answer(comm, kernel.ask(comm, op, control=control, **args))
        assert reply["ok"], reply
        if state is not None:
            kernel.wait_for_state(comm, state)
        took[op] = time.monotonic() - began

    press("pause", "paused")
    press("step")
    press("rewind", step=2)
    assert kernel.value("run.status, engine.scheduler.step") == "('paused', 2)"
    press("resume", "running")
    press("stop", "stopped")
    end(kernel)
    slow = {op: seconds for op, seconds in took.items() if seconds > BUTTONS_S + 2 * STEP_S}
    assert len(slow) <= 1, f"seconds: {took}"  # one may be unlucky on a busy machine


def test_the_control_channel_reaches_a_run_whose_cell_waits(kernel):
    kernel.run(ENGINE)
    cell = kernel.start("%%infer --engine engine --max-tokens 3000 -o run\nHello")
    opened = len(kernel.opened_views())
    kernel.wait_for(lambda message: message["msg_type"] == "comm_open" and len(kernel.opened_views()) > opened)
    comm = kernel.opened_views()[-1]
    kernel.wait_for_state(comm, "running")
    assert kernel.answer(comm, kernel.ask(comm, "pause", control=True))["ok"]
    why = kernel.answer(comm, kernel.ask(comm, "why", control=True, step=0))
    assert why["value"]["step"] == 0
    assert kernel.answer(comm, kernel.ask(comm, "stop", control=True))["ok"]
    own = kernel.finish(cell)
    assert "stopped" in next(message["content"]["data"]["text/plain"] for message in own if message["msg_type"] == "execute_result")


def test_an_interrupt_returns_what_there_is_and_closes_the_view(kernel):
    kernel.run(ENGINE)
    opened = len(kernel.opened_views())
    cell = kernel.start("%%infer --engine engine --max-tokens 3000 -o run\nHello")
    kernel.wait_for(lambda message: message["msg_type"] == "comm_open" and len(kernel.opened_views()) > opened)
    comm = kernel.opened_views()[-1]
    kernel.wait_for_state(comm, "running")
    kernel.manager.interrupt_kernel()
    kernel.finish(cell)
    assert kernel.value("run.status, len(run.outputs[0].token_ids) > 0, engine.has_unfinished") == "('stopped', True, False)"
    closed = [message["content"]["comm_id"] for message in kernel.seen if message["msg_type"] == "comm_close"]
    assert comm in closed


def test_ten_thousand_steps_drop_no_message_and_lose_no_step(kernel):
    kernel.run("from scripted_cells import SpeakingRunner, speaking_engine\nfrom workbench.view import View")
    kernel.run("engine = speaking_engine(num_blocks=800, max_num_seqs=1)\nrun = engine.run(['a'] * 4, max_tokens=2500, paused=True)")
    kernel.run("view = View(run)")
    comm = kernel.opened_views()[-1]
    kernel.run("run.resume()")
    kernel.run("import time; time.sleep(0.5)")
    kernel.drain(0.5)
    frames = [(content, buffers) for content, buffers in kernel.frames(comm) if content["kind"] == "frame"]
    assert [content["seq"] for content, _ in frames] == list(range(len(frames)))
    tape = Tape()
    for content, buffers in frames:
        for part in content["parts"]:
            if "tape" in part:
                tape.read(Part(part["tape"], buffers[part["tape"]["buffer"]]))
    assert len(tape.steps) == 10_000 == int(kernel.value("len(run.trace)"))
    assert len(frames) <= 40 + 25 * float(kernel.value("run.metrics.duration_s")), "more than twenty messages a second"
    kernel.run("view.close(); engine.close()")


def test_a_late_browser_gets_everything_and_the_first_one_nothing_twice(kernel):
    comm = shown_in_background(kernel)
    kernel.drain(0.3)
    kernel.answer(comm, kernel.ask(comm, "pause"))
    kernel.ask(comm, "hello", client="second", have=-1)
    content = custom(kernel.wait_for(lambda message: "to" in custom(message, comm)), comm)
    held = sum(part["tape"]["count"] for part in content["parts"])
    assert content["to"] == "second"
    assert held == int(kernel.value("len(run.trace)"))
    assert content["runs"][0]["meta"]["block_size"] == 16
    end(kernel)


def test_after_fifty_runs_of_a_cell_no_widget_thread_or_engine_is_left(kernel):
    kernel.run("import gc, threading, weakref\nfrom ipywidgets import Widget\nfrom workbench.engine import Engine")
    kernel.run(ENGINE.replace(str(STEP_S), "0.0"))
    cell = "%%infer --engine engine --max-tokens 4 -o run\nHello\nthere"
    count = "[len(Widget.widgets if hasattr(Widget, 'widgets') else Widget._instances)]"
    kernel.run(cell)
    before = kernel.value(count)
    for _ in range(50):
        kernel.run(cell)
    kernel.run("import time; time.sleep(3.5)")
    assert kernel.value(count) == before
    left = "sorted(thread.name for thread in threading.enumerate() if thread.name.startswith('workbench'))"
    assert kernel.value(left) == "[]"
    kernel.run(LEAVES_NOTHING)
    for _ in range(3):
        kernel.run("look()")
    kernel.run("time.sleep(1.5)")  # the views' threads end when they have nothing to do
    assert kernel.value("(gc.collect(), [ref() for ref in refs])[1]") == "[None, None, None]"


LEAVES_NOTHING = """
refs = []
def look():
    engine = speaking_engine()
    refs.append(weakref.ref(engine))
    view = View(engine.run(['a'], max_tokens=3))
    view.close()
"""


def test_a_failing_run_stands_in_the_view_with_the_step_and_its_error(kernel):
    kernel.run("from scripted_cells import SpeakingRunner, speaking_engine\nfrom workbench.view import View")
    kernel.run("def fall(step):\n    if step == 5: raise ValueError('the tensor is on fire')")
    kernel.run("engine = speaking_engine(runner=SpeakingRunner(before_step=fall))\nrun = engine.run(['a'], max_tokens=50, paused=True)")
    kernel.run("view = View(run)")
    comm = kernel.opened_views()[-1]
    kernel.run("run.resume(background=True)")
    failed = kernel.wait_for_state(comm, "failed")
    assert failed["parts"][0]["status"]["error"] == {"type": "ValueError", "message": "the tensor is on fire", "step": 5}
    assert kernel.value("len(run.trace)") in ("5", "6")
    refused = kernel.answer(comm, kernel.ask(comm, "step"))
    assert not refused["ok"]
    assert "over (failed)" in refused["error"]
    assert kernel.answer(comm, kernel.ask(comm, "rewind", step=3))["ok"]
    kernel.run("view.close()")


def test_what_a_view_cannot_do_is_answered_in_one_line(kernel):
    comm = shown_in_background(kernel)
    asks = {
        "there is no op 'dance'": {"op": "dance"},
        "there is no run 7": {"op": "pause", "run": 7},
        "a step is a whole number": {"op": "why", "step": "x"},
        "not in this trace": {"op": "why", "step": 10**6},
        "the prompt is empty": {"op": "add", "prompt": "  "},
        "not in the engine": {"op": "abort", "request": "nobody"},
        "got none": {"op": "change", "knobs": {}},
        "num_blocks": {"op": "change", "knobs": {"num_blocks": 3}},
        "changes of a fork": {"op": "fork", "step": 1, "changes": "x"},
    }
    for words, ask in asks.items():
        reply = kernel.answer(comm, kernel.ask(comm, **ask))
        assert not reply["ok"]
        assert words in reply["error"]
        assert "\n" not in reply["error"]
    assert kernel.value("run.status") == "'running'"
    end(kernel)


def test_a_fork_joins_the_view_as_a_branch_and_says_where_it_parts(kernel):
    comm = shown_in_background(kernel)
    kernel.drain(0.2)
    kernel.answer(comm, kernel.ask(comm, "pause"))
    reply = kernel.answer(comm, kernel.ask(comm, "fork", step=3, changes={"abort": ["r1"]}, resume=True))
    assert reply["value"] == {"run": 1}
    parted = kernel.wait_for(lambda message: custom(message, comm).get("kind") == "parted")
    assert custom(parted, comm)["run"] == 1
    fresh = [content for content, _ in kernel.frames(comm) if len(content.get("runs", ())) == 1 and content["runs"][0]["run"] == 1]
    assert (fresh[0]["runs"][0]["parent"], fresh[0]["runs"][0]["fork_step"]) == (0, 3)
    kernel.run("view.runs[1].stop()")
    end(kernel)


def test_two_runs_in_one_view_say_where_they_part(kernel):
    kernel.run(ENGINE.replace(str(STEP_S), "0.0"))
    kernel.run("one = engine.run(['a', 'b'], max_tokens=5)\ntwo = one.fork(2, max_num_seqs=1, abort=['r1']).resume()")
    kernel.run("view = View(one, two)")
    comm = kernel.opened_views()[-1]
    kernel.drain(1.5)
    parted = next(content for content, _ in kernel.frames(comm) if content["kind"] == "parted")
    assert (parted["run"], parted["position"]) == (1, 2)
    assert parted["sentence"].startswith("They part in step 2")
    kernel.run("view.close(); engine.close()")


def test_a_result_waits_for_the_branches_in_its_view_and_plays_them_too(kernel):
    kernel.run(ENGINE)
    kernel.seen.clear()
    cell = kernel.start("%%infer --engine engine --max-tokens 60 --background -o run\nHello")
    kernel.finish(cell)
    comm = kernel.opened_views()[-1]
    kernel.wait_for_state(comm, "running")
    kernel.answer(comm, kernel.ask(comm, "pause"))
    assert kernel.answer(comm, kernel.ask(comm, "fork", step=1, changes={"max_num_seqs": 2}))["ok"]
    kernel.ask(comm, "resume")
    kernel.wait_for_state(comm, "finished")
    kernel.drain(0.5)
    assert not results(kernel), "the branch is paused, and somebody looks at it"
    kernel.ask(comm, "resume", run=1)
    kernel.wait_for(lambda message: message["msg_type"] == "update_display_data")
    page, _ = packed(results(kernel)[-1])
    assert [run["name"] for run in page["saved"]["frame"]["runs"]] == ["run", "run, forked at step 1"]
    kernel.run("engine.close()")


def results(kernel) -> list[str]:
    """What took the place of views."""
    return [
        message["content"]["data"]["text/html"]
        for message in kernel.seen
        if message["msg_type"] == "update_display_data" and message["content"]["data"].get("text/html")
    ]
