from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_view_page import DATA, without_scripts

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run_through(name: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", store_widget_state=False, resources=where).execute()


@pytest.fixture(scope="module")
def executed():
    return run_through("00_start.ipynb")


@pytest.fixture(scope="module")
def why_and_back():
    return run_through("01_why_and_back.ipynb")


@pytest.fixture(scope="module")
def guess_ahead():
    return run_through("03_guess_ahead.ipynb")


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

    def test_the_result_can_be_played_and_is_small_with_or_without_its_player(self, executed):
        first = next(data["text/html"] for data in self.results(executed) if "text/html" in data)
        assert len(DATA.findall(first)) == 1
        assert len(first) <= 300_000
        assert len(without_scripts(first)) <= 60_000

    def test_a_second_question_hits_the_prefix_cache(self, executed):
        counts = next(data["text/plain"] for data in self.results(executed) if data["text/plain"].startswith("["))
        first, second = (int(part) for part in counts.strip("[]").split(","))
        assert (first < second, second % 16) == (True, 0)

    def test_the_urgent_request_is_served_before_the_earlier_one(self, executed):
        text = next(data["text/plain"] for data in self.results(executed) if "urgent" in data["text/plain"])
        assert "Urgent: what is 2 + 2?" in text

    def test_the_saved_notebook_stays_small(self, executed):
        assert len(nbformat.writes(executed)) < 600_000  # two players in it


@pytest.mark.model
@pytest.mark.kernel
class TestWhyAndBack:
    @pytest.fixture
    def executed(self, why_and_back):
        return why_and_back

    def texts(self, executed) -> list[str]:
        return [output["data"]["text/plain"] for output in outputs_of(executed) if output.output_type == "execute_result"]

    def test_no_cell_complains(self, executed):
        kinds = [(output.output_type, output.get("name")) for output in outputs_of(executed)]
        assert ("stream", "stderr") not in kinds
        assert "error" not in [kind for kind, _ in kinds]

    def test_the_decision_the_suggestion_and_its_branch_are_shown(self, executed):
        told = "\n".join(self.texts(executed))
        assert "r4 was not admitted in step 2: it needs 2 blocks and 0 are free" in told
        assert "what if     With " in told
        assert "They part in step 2: r4 runs" in told

    def test_going_back_and_on_gives_the_same_run_again(self, executed):
        lanes = [[line for line in text.splitlines() if "dddd" in line] for text in self.texts(executed) if "finished · 48 steps" in text]
        assert len(lanes) == 2
        assert lanes[0] == lanes[1]

    def test_three_policies_treat_the_same_pool_differently(self, executed):
        printed = "".join(output.text for output in outputs_of(executed) if output.output_type == "stream")
        steps = dict(re.findall(r"(fcfs|guaranteed_no_evict|lpm) +(\d+) steps", printed))
        assert len(set(steps.values())) == 3
        assert re.search(r"guaranteed_no_evict +\d+ steps, 0 preemptions", printed)


@pytest.mark.model
@pytest.mark.kernel
class TestGuessAhead:
    def printed(self, guess_ahead) -> str:
        return "".join(output.text for output in outputs_of(guess_ahead) if output.output_type == "stream")

    def test_no_cell_complains(self, guess_ahead):
        kinds = [(output.output_type, output.get("name")) for output in outputs_of(guess_ahead)]
        assert ("stream", "stderr") not in kinds
        assert "error" not in [kind for kind, _ in kinds]

    def test_a_round_emits_one_token_more_than_it_accepted(self, guess_ahead):
        rounds = re.findall(r"4 proposed, (\d) accepted, (\d) emitted", self.printed(guess_ahead))
        assert rounds
        assert all(int(emitted) == int(accepted) + 1 for accepted, emitted in rounds)

    def test_the_tokens_are_those_of_no_speculation(self, guess_ahead):
        assert "same tokens: True" in self.printed(guess_ahead)

    def test_coins_fall_as_the_formula_says(self, guess_ahead):
        lines = re.findall(r"([\d.]+) ± ([\d.]+) tokens a round in \d+ rounds, by the formula ([\d.]+)", self.printed(guess_ahead))
        assert len(lines) == 3
        assert all(abs(float(mean) - float(wanted)) < 4 * float(error) for mean, error, wanted in lines)

    def test_auto_tells_its_choices(self, guess_ahead):
        assert re.search(r"drafts?: [\d.]+ tokens in [\d.]+ ms instead of 1 in", self.printed(guess_ahead))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
class TestCommitted:
    def test_notebooks_are_valid(self, path):
        nbformat.validate(nbformat.read(path, as_version=4))

    def test_notebooks_hold_no_outputs_and_no_widget_state(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
        assert "widgets" not in notebook.metadata
