"""The scheduler against recordings of vLLM 0.32.0's own, every field of every step."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from workbench.conformance import replay

RECORDINGS = Path(__file__).parent / "data" / "vllm-0.32.0"
FIELDS = (
    "scheduled", "admitted", "resumed", "preempted", "drafts", "running", "waiting",
    "block_tables", "free_blocks", "finished", "free_blocks_after",
)  # fmt: skip


def cases(profile: str) -> list[dict]:
    with gzip.open(RECORDINGS / f"{profile}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("profile", sorted(path.name.split(".")[0] for path in RECORDINGS.glob("*.jsonl.gz")))
def test_every_decision_equals_vllms(profile):
    for case in cases(profile):
        for recorded, ours in zip(case["steps"], replay(case), strict=True):
            for field in FIELDS:
                place = f"{profile} seed {case['seed']} step {recorded['step']} {field}"
                assert ours[field] == recorded[field], place
            assert list(ours["scheduled"]) == list(recorded["scheduled"]), place


def test_the_recordings_hold_all_that_they_are_said_to_hold():
    counts = {path.name.split(".")[0]: len(cases(path.name.split(".")[0])) for path in RECORDINGS.glob("*.jsonl.gz")}
    assert sum(counts.values()) == 224
    assert counts["textbook"] == 14
