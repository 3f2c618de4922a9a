"""The live view in Notebook 7 with a real kernel and the real model."""

from __future__ import annotations

import pytest
from jupyter_lab import opened_notebook
from test_view_lab import BACKGROUND, LOAD, Screen

pytest.importorskip("notebook", minversion="7", reason="Notebook 7 is not installed")
pytestmark = [pytest.mark.kernel, pytest.mark.model, pytest.mark.slow]
# What Notebook 7 says of its own plugins when it opens a page is not the view's mistake.
THEIRS = r"notebook_core"


def test_a_background_run_grows_is_paused_stepped_and_ended(browser, lab):
    lab.write("seven.ipynb", LOAD, BACKGROUND)
    with opened_notebook(browser, lab, "seven.ipynb", height=1500, seven=True, ignore=THEIRS) as notebook:
        notebook.run_cell(0)
        notebook.run_cell(1)
        screen = Screen(notebook, 1)
        screen.wait_for_state(r"running · step \d+")
        before = screen.step
        screen.wait_until(lambda: screen.step > before + 3, "no step came")
        screen.key("Space")
        screen.wait_for_state("paused before step")
        newest = screen.step
        screen.key("ArrowRight")
        screen.wait_until(lambda: screen.step == newest + 1, "the engine took no step")
        screen.key("ArrowLeft", times=3)
        screen.wait_until(lambda: screen.step == newest - 2, "the cursor did not go back")
        screen.press("Stop")
        screen.wait_until(lambda: "stopped" in notebook.text(1), "the result did not come", 60)
