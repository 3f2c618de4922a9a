"""The scheduler against recordings of vLLM 0.32.0's own, every field of every step."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from workbench import ConfigError, TraceError
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


def edited(change) -> dict:
    case = cases("spec")[0]
    change(case)
    return case


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda case: case.pop("steps"), "not a recorded case: Object missing required field `steps`"),
        (lambda case: case["config"].pop("num_blocks"), "not a recorded case: Object missing required field `num_blocks`"),
        (lambda case: case["requests"][0].update(prompt="text"), "not a recorded case: Expected `array`, got `str`"),
        (lambda case: case["steps"][2].update(arrived=["r99"]), "step 2 of the case names 'r99', which is none of its requests: r0, r1"),
        (lambda case: case["steps"][3].update(sampled={}), "step 3: r0 verifies 3 drafts and needs 1 to 4 tokens, the case holds 0:"),
        (lambda case: case["steps"][3]["sampled"].update(r0=[1] * 9), "needs 1 to 4 tokens, the case holds 9"),
    ],
)
def test_a_case_that_was_edited_or_is_none_says_what_is_wrong(change, message):
    with pytest.raises(TraceError, match=message):
        list(replay(edited(change)))


def test_a_foreign_file_is_no_case():
    with pytest.raises(TraceError, match="not a recorded case: Expected `object`, got `array`"):
        replay([1, 2, 3])


def test_settings_that_no_engine_has_are_refused_by_name():
    with pytest.raises(ConfigError, match="block_size must be at least 1, not 0"):
        list(replay(edited(lambda case: case["config"].update(block_size=0))))
