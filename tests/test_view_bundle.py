"""The built live view as a file: small, whole, and of correct types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "extensions" / "view"
STATIC = ROOT / "workbench" / "view" / "static"
LIMIT_BYTES = 150_000
TOTAL_BYTES = 235_000  # with the style, and uPlot, which is a file of its own
# Names of the markup languages that the DOM asks for by address; nobody fetches them.
NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml", "http://www.w3.org/1999/xlink")


@pytest.fixture(scope="module")
def script() -> str:
    return (STATIC / "view.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def library() -> str:
    return (STATIC / "uplot.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def style() -> str:
    return (STATIC / "view.css").read_text(encoding="utf-8")


def test_the_script_stays_small(script):
    assert len(script.encode()) <= LIMIT_BYTES


def test_the_view_and_all_that_it_draws_with_stay_light(script, style, library):
    assert len((script + style + library).encode()) <= TOTAL_BYTES


def test_the_script_is_one_module_that_needs_no_other(script):
    assert re.search(r"export\s*\{[^}]*\bas default\b|export default", script)
    assert not re.search(r"""(^|[;}\s])import\s*[\w{*"']""", script)
    assert len(re.findall(r"\bimport\(", script)) == 1, "uPlot, whose text comes with the view, and nothing else"


def test_nothing_is_fetched_from_anywhere(script, style):
    found = re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"'`)]*""", script + style)
    assert [address for address in found if address not in NAMESPACES] == []
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts", script)


def test_the_style_brings_along_all_that_it_shows(style):
    assert "@import" not in style
    assert all(address.startswith(("data:", "#")) for address in re.findall(r"""url\(["']?([^)"']*)""", style))


def test_the_licence_of_what_is_bundled_is_named(library):
    assert "Leon Sorokin (MIT)" in library[:200]


def test_no_text_is_put_into_the_page_as_markup():
    markup = re.compile(r"\.(inner|outer)HTML\b|insertAdjacentHTML|document\.write")
    assert [path for path in (SOURCES / "src").rglob("*.ts") if markup.search(path.read_text(encoding="utf-8"))] == []


def test_the_types_are_right():
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    compiler = SOURCES / "node_modules" / ".bin" / "tsc"
    if shutil.which("node", path=path) is None or not compiler.exists():
        pytest.skip("no Node.js or no TypeScript here; make lint brings both")
    environment = {**os.environ, "PATH": path}
    done = subprocess.run([compiler, "--noEmit"], cwd=SOURCES, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
