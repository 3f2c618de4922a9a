from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
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
    assert all(f"make {target}" in text for target in ("lab", "test", "lint", "bench", "clean"))


def test_ci_runs_lint_and_test_and_nothing_else():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (.*)$", script, re.M) == ["lint", "test"]
    assert "set -euo pipefail" in script
