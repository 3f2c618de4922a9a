"""The harness of the tests in a real JupyterLab, proved on plain cells and a small widget."""

from __future__ import annotations

import pytest
from jupyter_lab import opened_notebook

pytestmark = pytest.mark.kernel

WIDGET = '''
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = """
    export default { render({ model, el }) {
        const button = Object.assign(document.createElement("button"), { className: "counter", textContent: "0" });
        button.onclick = () => { model.set("count", model.get("count") + 1); model.save_changes(); };
        model.on("change:count", () => { button.textContent = model.get("count"); });
        el.append(button);
    } };
    """
    count = traitlets.Int(0).tag(sync=True)

counter = Counter()
counter
'''


@pytest.fixture(scope="module")
def notebook(browser, lab):
    lab.write("cells.ipynb", "print('hello'); 6 * 7", WIDGET, "counter.count", "1 / 0", "import time\nwhile True: time.sleep(0.05)")
    with opened_notebook(browser, lab, "cells.ipynb") as opened:
        yield opened


def test_a_cell_is_run_and_read(notebook):
    notebook.run_cell(0)
    assert notebook.text(0) == "hello\n\n42"
    assert notebook.output(0).first.inner_text().strip() == "hello"


def test_a_widget_speaks_with_its_kernel(notebook):
    notebook.run_cell(1)
    button = notebook.output(1).locator("button.counter")
    button.click()
    button.filter(has_text="1").wait_for()
    notebook.run_cell(2)
    assert notebook.text(2) == "1"


def test_an_error_is_read_like_any_output(notebook):
    notebook.run_cell(3)
    assert notebook.text(3) == "ZeroDivisionError: division by zero"


def test_a_running_cell_is_interrupted_by_the_notebooks_stop(notebook):
    notebook.run_cell(4, wait=False)
    notebook.cell(4).locator(".jp-InputPrompt", has_text="[*]").wait_for()
    notebook.interrupt()
    notebook.wait_until_idle(timeout_s=20)
    assert notebook.text(4).startswith("KeyboardInterrupt")


def test_all_cells_run_in_order_and_are_saved(browser, lab):
    lab.write("all.ipynb", "numbers = [1]", "numbers.append(2)", "numbers")
    with opened_notebook(browser, lab, "all.ipynb") as opened:
        opened.run_all()
        opened.save()
        assert opened.text(2) == "[1, 2]"
    assert lab.read("all.ipynb").cells[2].outputs[0]["data"]["text/plain"] == "[1, 2]"


def test_a_reloaded_page_finds_its_kernel_again(browser, lab):
    lab.write("again.ipynb", "kept = 5", "kept")
    with opened_notebook(browser, lab, "again.ipynb") as opened:
        opened.run_cell(0)
        opened.save()
        opened.reload()
        opened.run_cell(1)
        assert opened.text(1) == "5"


def test_a_reader_opens_a_notebook_without_starting_a_kernel(browser, lab):
    lab.write("read.ipynb", "1 + 1")
    with opened_notebook(browser, lab, "read.ipynb", kernel=False) as opened:
        assert opened.cell(0).is_visible()
        assert opened.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session === null")
