from __future__ import annotations

import doctest
import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import workbench
from workbench._docs import knob_tables
from workbench._knobs import knobs
from workbench.config import EngineConfig
from workbench.request import SamplingParams

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_knob_tables_are_up_to_date():
    assert (ROOT / "docs" / "knobs.md").read_text(encoding="utf-8") == knob_tables(), "run: python -m workbench._docs"


def test_every_knob_has_a_doc_line():
    assert all(knob.doc and not knob.doc.endswith(".") for settings in (EngineConfig, SamplingParams) for knob in knobs(settings))


def test_every_file_that_the_readme_links_to_exists():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_every_module_of_the_package_is_in_the_readmes_tree():
    modules = {path.stem for path in (ROOT / "workbench").glob("*.py")} - {"__init__"}
    folders = {path.name for path in (ROOT / "workbench").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert not [name for name in modules | folders if not re.search(rf"\b{name}\b", README)]


def test_the_picture_of_the_readme_is_inert():
    svg = (ROOT / "docs" / "run.svg").read_text(encoding="utf-8")
    assert "<script" not in svg
    assert not re.search(r"(href|src)\s*=\s*[\"']http", svg)


@pytest.mark.model
def test_the_sessions_of_the_readme_are_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "displayhook", lambda value: None if value is None else print(repr(value)))
    sessions = re.findall(r"```python\n(>>> .*?)```", README, re.S)
    examples = [doctest.DocTestParser().get_examples(session) for session in sessions]
    assert [len(part) for part in examples] == [8, 6]
    names: dict[str, object] = {}
    for example in (example for part in examples for example in part):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(example.source, "README", "single"), names)
        assert without_times(printed.getvalue()) == without_times(example.want), example.source
    names["engine"].close()


def without_times(text: str) -> str:
    return re.sub(r"[\d,.]+ ms", "… ms", text)


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "THIRD_PARTY.md"])
def test_the_papers_of_the_project_are_there(name):
    assert len((ROOT / name).read_text(encoding="utf-8")) > 500


def test_the_package_describes_itself():
    assert workbench.__doc__
