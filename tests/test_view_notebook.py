"""Notebooks with players: what is stored of a run, and what nbconvert makes of it, looked at in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter, MarkdownExporter, PythonExporter
from nbformat.v4 import new_code_cell, new_notebook
from saved_pages import beyond, opened
from test_view_page import DATA

pytestmark = pytest.mark.kernel

TESTS = Path(__file__).parent
CELLS = (
    "%load_ext workbench",
    "from scripted_cells import SpeakingRunner, speaking_engine\nengine = speaking_engine(runner=SpeakingRunner(sleep_s=0.002))",
    "%%infer --engine engine --max-tokens 40 -o run\nWho is there?\nAnd why?",
    "%%infer --engine engine --max-tokens 8 --no-player\nSmall",
    "%%infer --engine engine --max-tokens 30 --background -o later\nLater",
    "later.wait()\nimport time; time.sleep(0.5)",
    "from workbench import compare\ncompare(run, run.fork(10, max_num_seqs=1).resume())",
)
WAITED, SMALL, BACKGROUND, COMPARED = 2, 3, 4, 6
PLAYERS = 3
# What nbconvert's own pages ask for; no test reaches beyond this machine.
THEIRS = r"cdnjs\.cloudflare\.com|unpkg\.com|net::ERR_|require is not defined"


def run_through(*, store_widget_state: bool) -> nbformat.NotebookNode:
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    where = {"metadata": {"path": str(TESTS)}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=store_widget_state, resources=where)
    return client.execute()


@pytest.fixture(scope="module")
def notebooks() -> dict[bool, nbformat.NotebookNode]:
    """The notebook executed as we do it, and as nbclient does it by default."""
    return {stored: run_through(store_widget_state=stored) for stored in (False, True)}


@pytest.fixture(params=[False, True], ids=["no widget state", "with widget state"])
def notebook(request, notebooks):
    return notebooks[request.param]


@pytest.fixture
def converted(notebooks, browser, tmp_path, request):
    """The notebook as a page of nbconvert's, in a browser; this comes after ``notebooks``, as a browser allows no other loop."""
    path = tmp_path / "notebook.html"
    path.write_text(HTMLExporter().from_notebook_node(notebooks[request.param])[0])
    with opened(browser, path, ignore=THEIRS) as page:
        yield page.play(PLAYERS)


def data_of(notebook: Any, cell: int) -> list[dict[str, str]]:
    outputs = notebook.cells[cell].outputs
    assert not [output for output in outputs if output.output_type in ("error", "stream")], outputs
    return [output.data for output in outputs]


def test_nothing_is_stored_of_the_live_view(notebook):
    for cell in (WAITED, SMALL):
        place, result = data_of(notebook, cell)
        assert place == {"text/plain": "", "text/html": ""}
        assert {"text/plain", "text/html", "image/svg+xml"} == set(result)
    assert len(data_of(notebook, BACKGROUND)) == 1
    stored = [mime for cell in range(len(CELLS)) for data in data_of(notebook, cell) for mime in data]
    assert not [mime for mime in stored if "widget" in mime]


def test_runs_and_comparisons_are_stored_with_a_player_unless_it_was_left_out(notebook):
    pages = {cell: data_of(notebook, cell)[-1]["text/html"] for cell in (WAITED, SMALL, BACKGROUND, COMPARED)}
    assert {cell for cell, html in pages.items() if "<script" in html} == {WAITED, BACKGROUND, COMPARED}
    assert len(pages[SMALL]) < 30_000


def test_no_output_is_large(notebook):
    assert max(len(text) for cell in range(len(CELLS)) for data in data_of(notebook, cell) for text in data.values()) <= 200_000


def test_the_state_of_closed_widgets_holds_no_code(notebooks):
    assert "widgets" not in notebooks[False].metadata
    kept = notebooks[True].metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert kept
    assert max(len(str(state)) for state in kept.values()) < 2_000


@pytest.mark.parametrize("converted", [False, True], ids=["no widget state", "with widget state"], indirect=True)
def test_a_page_of_nbconvert_plays_every_run_and_asks_for_nothing_of_ours(converted):
    page = converted.page
    assert page.locator(".wb-saved .wb-view").count() == PLAYERS
    assert page.locator(".wb-saved svg.wb-svg").count() == 0
    said = page.locator("body").inner_text()
    assert "Error" not in said
    assert "View of" not in said
    for player in page.locator(".wb-saved .wb-view").all():
        player.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        converted.settle()
        assert player.get_by_role("slider", name="Step").input_value() == "1"
    assert [url for url in beyond(converted.requests) if not ("cdnjs" in url or "unpkg" in url)] == []


def test_a_reader_without_html_gets_the_picture_and_the_source_is_a_script(notebook):
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    assert "Who is there?" in text
    assert any(name.endswith(".svg") for name in resources["outputs"])
    assert "get_ipython().run_cell_magic('infer'" in PythonExporter().from_notebook_node(notebook)[0]


def test_a_page_that_is_cleaned_of_scripts_keeps_the_answers(notebooks):
    carried = DATA.search(data_of(notebooks[False], WAITED)[-1]["text/html"])[1]
    text, _ = HTMLExporter(sanitize_html=True).from_notebook_node(notebooks[False])
    assert carried[:100] not in text  # as text it would bury the answers
    assert "Yes, of course. Yes, of course." in text


def test_the_widget_is_loaded_before_the_first_request_comes_in():
    code = (
        "import sys; from workbench.view import display; display.kernel_here = object;"
        "assert 'workbench.view.widget' not in sys.modules; assert display.can_show(); print('workbench.view.widget' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
