from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.read(NOTEBOOKS / "00_start.ipynb", as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", store_widget_state=False, resources=where).execute()


def outputs_of(notebook) -> list[dict]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.model
@pytest.mark.kernel
class TestStart:
    def results(self, executed) -> list[dict]:
        return [output["data"] for output in outputs_of(executed) if output.output_type == "execute_result"]

    def test_no_cell_complains(self, executed):
        kinds = [(output.output_type, output.get("name")) for output in outputs_of(executed)]
        assert ("stream", "stderr") not in kinds
        assert "error" not in [kind for kind, _ in kinds]

    def test_the_result_is_text_html_and_a_picture(self, executed):
        first = next(data for data in self.results(executed) if "text/html" in data)
        assert {"text/plain", "text/html", "image/svg+xml"} <= set(first)
        assert "gravity" in first["text/html"].lower()
        assert "<svg" in first["text/html"]
        assert "<script" not in first["text/html"]

    def test_a_second_question_hits_the_prefix_cache(self, executed):
        counts = next(data["text/plain"] for data in self.results(executed) if data["text/plain"].startswith("["))
        first, second = (int(part) for part in counts.strip("[]").split(","))
        assert (first < second, second % 16) == (True, 0)

    def test_the_urgent_request_is_served_before_the_earlier_one(self, executed):
        text = next(data["text/plain"] for data in self.results(executed) if "urgent" in data["text/plain"])
        assert "Urgent: what is 2 + 2?" in text

    def test_the_saved_notebook_stays_small(self, executed):
        assert len(nbformat.writes(executed)) < 400_000


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
class TestCommitted:
    def test_notebooks_are_valid(self, path):
        nbformat.validate(nbformat.read(path, as_version=4))

    def test_notebooks_hold_no_outputs_and_no_widget_state(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
        assert "widgets" not in notebook.metadata
