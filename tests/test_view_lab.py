"""The live view in a real JupyterLab with a real kernel and the real model, used as a person uses it."""

from __future__ import annotations

import re
import shutil
import time

import pytest
from jupyter_lab import opened_notebook
from view_page import pixel

pytestmark = [pytest.mark.kernel, pytest.mark.model, pytest.mark.slow]

LOAD = "%load_ext workbench"
PROMPTS = "What is gravity?\nTell me a story about a ship.\nName five animals of the sea.\nWhy is the sky blue?"
BACKGROUND = f"%%infer --background --max-tokens 160 --ignore-eos --num-blocks 40 --max-num-seqs 2 -o run\n{PROMPTS}"
WIDGET = "application/vnd.jupyter.widget-view+json"
# What the page says when its kernel is taken away is not the view's mistake.
KERNEL_GONE = r"Failed to fetch|WebSocket|kernel|Canceled|404|ERR_|Comm not found"
# Nor is what JupyterLab's widget manager says where there has never been one.
NO_KERNEL = r"null \(reading 'kernel'\)"


class Screen:
    """A view on the page, by what a person reads and presses."""

    def __init__(self, notebook, cell: int) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.el = notebook.cell(cell).locator(".wb-view").first
        self.el.wait_for(timeout=60_000)

    @property
    def state(self) -> str:
        return self.el.locator(".wb-state").text_content()

    def wait_for_state(self, words: str, timeout_s: float = 60) -> str:
        """The state once it matches."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if re.search(words, self.state):
                return self.state
            time.sleep(0.05)
        raise AssertionError(f"the state is {self.state!r}, not {words!r}; the view says {self.message!r}")

    @property
    def step(self) -> int:
        return int(re.search(r"(\d+) /", self.el.locator(".wb-follow").text_content())[1])

    @property
    def message(self) -> str:
        return self.el.locator(".wb-message").text_content()

    def text(self) -> str:
        return self.el.locator(".wb-text").inner_text()

    def press(self, name: str) -> None:
        self.el.get_by_role("button", name=name, exact=False).first.click()

    def key(self, key: str, times: int = 1) -> None:
        self.el.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def wait_until(self, holds, what: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)


@pytest.fixture(scope="module")
def notebook(browser, lab):
    lab.write("live.ipynb", LOAD, BACKGROUND)
    with opened_notebook(browser, lab, "live.ipynb", height=1500) as opened:
        opened.run_cell(0)
        opened.run_cell(1)
        yield opened


@pytest.fixture
def screen(notebook):
    return Screen(notebook, 1)


def test_text_and_timeline_grow_while_the_run_goes_on(screen):
    screen.wait_for_state(r"running · step \d+")
    before, text = screen.step, screen.text()
    screen.wait_until(lambda: screen.step > before + 3, "no step came")
    screen.wait_until(lambda: screen.text() != text, "no text came")
    assert screen.el.locator(".wb-timeline canvas").first.get_attribute("aria-label")


def test_space_pauses_arrows_step_and_text_is_unwritten(screen, notebook):
    screen.key("Space")
    screen.wait_for_state("paused before step")
    newest = screen.step
    screen.key("ArrowRight", times=2)  # in quick succession: the second waits until the engine has taken the first
    screen.wait_until(lambda: screen.step == newest + 2, "the engine did not take two steps")
    written = screen.text()
    screen.key("ArrowLeft", times=5)
    screen.wait_until(lambda: screen.step == newest - 3, f"the cursor is at {screen.step}")
    screen.wait_until(lambda: screen.text() != written, "the text did not go back")


def test_a_waiting_request_says_why_it_waits(screen):
    row = screen.el.locator(".wb-why-row").filter(has_text="r3")
    row.wait_for(timeout=20_000)
    assert "max_num_seqs" in row.inner_text()
    chip = row.locator(".wb-chip")
    chip.first.wait_for(timeout=30_000)
    assert "max_num_seqs" in chip.first.inner_text()


def test_hovering_a_waiting_cell_tells_its_reason(screen):
    canvas = screen.el.locator(".wb-timeline canvas").first
    box = canvas.bounding_box()
    found = ""
    for y in range(40, int(box["height"]), 6):
        screen.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + y)
        tip = screen.el.locator(".wb-tip").text_content()
        if "r3" in tip or "r2" in tip:
            found = tip
            break
    assert "max_num_seqs" in found


def test_a_suggested_change_runs_as_a_branch_beside_its_parent(screen):
    screen.el.locator(".wb-why-row").filter(has_text="r3").locator(".wb-chip").first.click()
    screen.wait_until(lambda: screen.el.get_by_role("tab").count() == 2, "no branch appeared")
    screen.wait_until(lambda: screen.el.locator(".wb-timeline canvas").count() >= 2, "the branch has no timeline")
    screen.wait_until(lambda: "first difference" in screen.el.inner_text() or "differ" in screen.el.inner_text(), "no first difference", 60)


def test_a_reloaded_page_finds_the_run_again(notebook):
    notebook.save()
    notebook.page.wait_for_timeout(500)
    notebook.reload()
    screen = Screen(notebook, 1)
    screen.wait_for_state("paused|running|finished")
    screen.wait_until(lambda: screen.step > 5, "the steps did not come back")
    pixels = {pixel(notebook.page, ".wb-blocks canvas", x, 12) for x in range(8, 200, 4)}
    assert len(pixels) > 1, "the block map is empty"


def test_stop_ends_the_run_and_its_static_result_takes_the_place(notebook):
    notebook.run_cell(1)
    screen = Screen(notebook, 1)
    screen.wait_for_state(r"running · step \d+")
    screen.press("Stop")
    screen.wait_until(lambda: "stopped" in notebook.text(1), "the result did not come", 60)
    assert "wb-run" in notebook.outputs(1)[0]["data"]["text/html"]


def test_a_waiting_cell_can_be_paused_and_stopped_by_its_buttons(browser, lab):
    lab.write("waiting.ipynb", LOAD, f"%%infer --max-tokens 400 --ignore-eos --num-blocks 80 -o run\n{PROMPTS}")
    with opened_notebook(browser, lab, "waiting.ipynb", height=1500) as notebook:
        notebook.run_cell(0)
        notebook.run_cell(1, wait=False)
        screen = Screen(notebook, 1)
        screen.wait_for_state(r"running · step \d+")
        screen.key("Space")
        screen.wait_for_state("paused before step")
        paused = screen.step
        time.sleep(0.5)
        assert screen.step == paused
        screen.press("Stop")
        notebook.wait_until_idle()
        assert "stopped" in notebook.text(1)


def test_a_saved_notebook_is_scrubbed_without_a_kernel(browser, lab):
    lab.write("saved.ipynb", LOAD, f"%%infer --max-tokens 12 --num-blocks 40 --max-num-seqs 2 -o run\n{PROMPTS}")
    with opened_notebook(browser, lab, "saved.ipynb", height=1500) as notebook:
        notebook.run_all()
        notebook.save()
        notebook.page.wait_for_timeout(500)
    assert "widgets" not in lab.read("saved.ipynb").metadata
    with opened_notebook(browser, lab, "saved.ipynb", kernel=False, height=1500) as notebook:
        screen = Screen(notebook, 1)
        screen.wait_for_state("finished")
        end, whole = screen.step, screen.text()
        screen.key("ArrowLeft", times=6)
        screen.wait_until(lambda: screen.step == end - 6, "the cursor did not move")
        screen.wait_until(lambda: screen.text() != whole, "the text did not go back")
        screen.press("Fork")
        assert "run.view()" in screen.message


@pytest.mark.parametrize(
    ("face", "away_s"),
    [("--background", 0), ("--background", 6), ("", 0)],
    ids=["loaded before the end", "loaded after the end", "loaded while the cell waited"],
)
def test_a_page_that_was_reloaded_shows_and_saves_the_result_when_the_run_ends(browser, lab, face, away_s):
    name = f"reloaded{face}{away_s}.ipynb"
    tokens = 60 if away_s else 200
    lab.write(name, LOAD, f"%%infer {face} --max-tokens {tokens} --ignore-eos --num-blocks 120 -o run\n{PROMPTS}")
    with opened_notebook(browser, lab, name, height=1500) as notebook:
        notebook.run_cell(0)
        notebook.run_cell(1, wait=bool(face))
        Screen(notebook, 1).wait_for_state(r"running · step \d+")
        notebook.save()
        notebook.page.wait_for_timeout(300)
        if away_s:
            notebook.page.goto("about:blank")
            time.sleep(away_s)
            notebook.page.go_back()
        else:
            notebook.page.reload()
        notebook.wait_until_open()
        screen = Screen(notebook, 1)
        screen.wait_until(lambda: WIDGET not in notebook.outputs(1)[0]["data"], "the view was not replaced by the result", 90)
        notebook.save()
        notebook.page.wait_for_timeout(500)
    assert not [output for output in lab.read(name).cells[1].outputs if WIDGET in output.data]
    shutil.copy(lab.folder / name, lab.folder / f"away-{name}")  # a notebook of that name has no kernel that might still run
    with opened_notebook(browser, lab, f"away-{name}", kernel=False, height=1500, ignore=NO_KERNEL) as notebook:
        screen = Screen(notebook, 1)
        screen.wait_for_state("finished")
        end = screen.step
        screen.key("ArrowLeft", times=6)
        screen.wait_until(lambda: screen.step == end - 6, "the cursor did not move")


def test_two_browsers_on_one_kernel_show_the_same_run(browser, lab):
    lab.write("two.ipynb", LOAD, f"%%infer --paused --keep-live --max-tokens 20 --num-blocks 40 -o run\n{PROMPTS}")
    with opened_notebook(browser, lab, "two.ipynb", height=1500) as first:
        first.run_all()
        one = Screen(first, 1)
        first.save()
        with opened_notebook(browser, lab, "two.ipynb", height=1500) as second:
            two = Screen(second, 1)
            two.wait_for_state("paused before step 0")
            two.key("Space")
            one.wait_for_state("finished")
            two.wait_for_state("finished")
            assert one.step == two.step


def test_a_restarted_kernel_leaves_a_page_that_says_so(browser, lab):
    lab.write("restart.ipynb", LOAD, f"%%infer --paused --max-tokens 20 --num-blocks 40 -o run\n{PROMPTS}")
    with opened_notebook(browser, lab, "restart.ipynb", height=1500, ignore=KERNEL_GONE) as notebook:
        notebook.run_all()
        screen = Screen(notebook, 1)
        screen.wait_for_state("paused before step 0")
        notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        notebook.wait_until_idle()
        notebook.run_all()
        again = Screen(notebook, 1)
        again.wait_for_state("paused before step 0")
        again.key("ArrowRight")
        again.wait_until(lambda: again.state.startswith("paused before step 1"), "the new run does not step")
