"""docs/fidelity.md names only what exists, and its counts are those of the recordings."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from workbench.config import EngineConfig
from workbench.events import Reason, Verdict
from workbench.request import SamplingParams

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
RECORDINGS = ROOT / "tests" / "data" / "vllm-0.32.0"
FILES = sorted(set(re.findall(r"`((?:tests|workbench|docs|benchmarks)/[\w./-]+)(?:::\w+)?`", PAGE)))
TESTS = sorted(set(re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_named_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_every_test_that_is_named_exists(file, name):
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def counted() -> dict[str, tuple[int, int]]:
    """Cases and steps of each recording."""
    found = {}
    for path in RECORDINGS.glob("*.jsonl.gz"):
        with gzip.open(path, "rt") as lines:
            steps = [len(json.loads(line)["steps"]) for line in lines]
        found[path.name.split(".")[0]] = (len(steps), sum(steps))
    return found


def test_the_table_of_recordings_counts_what_is_there():
    rows = re.findall(r"^\| `?(\w+)`? \| [^|]*\| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.M)
    stated = {name: (int(cases.replace(",", "")), int(steps.replace(",", ""))) for name, cases, steps in rows}
    total = stated.pop("all")
    assert stated == counted()
    assert total == tuple(map(sum, zip(*stated.values(), strict=True)))


def test_the_count_of_recorded_look_ups_is_right():
    with gzip.open(ROOT / "tests" / "data" / "vllm-0.32.0-ngram" / "cases.jsonl.gz", "rt") as lines:
        assert f"({sum(1 for _ in lines):,} recorded answers)" in PAGE


def test_the_defaults_that_differ_are_those_of_the_code():
    rows = {cells[0].strip(): cells[2].strip() for cells in re.findall(r"^\| ([^|]+)\|([^|]+)\|([^|]+)\|[^|]+\|$", PAGE, re.M)}
    sampling, config = SamplingParams(), EngineConfig()
    assert float(rows["`temperature`"]) == sampling.temperature
    assert int(rows["`max_tokens`"]) == sampling.max_tokens
    assert rows["`max_num_seqs`, `max_num_batched_tokens`"] == f"{config.max_num_seqs}, {config.max_num_batched_tokens}"


def test_reasons_that_are_named_are_the_schedulers():
    assert Verdict.REJECTED in PAGE
    assert Reason.NEVER_FITS in PAGE
