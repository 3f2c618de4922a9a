"""Going back and forking with the real model: tokens, text and logits to the last bit."""

from __future__ import annotations

import pytest
import torch
from test_rebuild import face

from workbench import Engine
from workbench.models import load_model

PROMPTS = [
    {"prompt": "What is gravity?", "max_tokens": 20},
    {"prompt": "What is gravity? Answer in one line.", "max_tokens": 14, "temperature": 0.9, "seed": 3},
    {"prompt": "Name three primes.", "max_tokens": 18, "temperature": 0.7, "top_p": 0.9, "arrival_step": 2},
    {"prompt": "Write one line about rain.", "max_tokens": 16, "arrival_step": 4},
    {"prompt": "What is gravity?", "max_tokens": 8, "arrival_step": 9},
    {"prompt": "Why is the sky blue? Say it to a child of five.", "max_tokens": 12, "stop": [" "], "arrival_step": 11},
]
KNOBS = {"num_blocks": 9, "block_size": 16, "max_num_seqs": 4, "max_num_batched_tokens": 48, "debug": True}


@pytest.fixture(scope="module")
def model():
    return load_model("smollm2")


class Watched:
    """A run, and the logits of each of its steps."""

    def __init__(self, run) -> None:
        self.run, self.logits = run, {}
        run._on_step = self.keep

    def keep(self, record) -> None:
        logits = self.run.engine.runner.last_logits
        self.logits[record.step] = None if logits is None or not record.scheduled else logits


def watched(model, **knobs) -> Watched:
    engine = Engine(model, **{**KNOBS, **knobs})
    engine.runner.keep_logits = True
    seen = Watched(engine.run([dict(prompt) for prompt in PROMPTS], paused=True))
    seen.run.resume()
    return seen


@pytest.fixture(scope="module")
def straight(model):
    return watched(model)


def assert_same_future(mine: Watched, theirs: Watched, at: int) -> None:
    assert [output.token_ids for output in mine.run.outputs] == [output.token_ids for output in theirs.run.outputs]
    assert [output.text for output in mine.run.outputs] == [output.text for output in theirs.run.outputs]
    for record, other in zip(mine.run.trace.records[at:], theirs.run.trace.records[at:], strict=True):
        for field in ("scheduled", "decisions", "block_events", "sampled", "running", "waiting", "kv_after", "finished"):
            assert getattr(record, field) == getattr(other, field), (record.step, field)
        a, b = mine.logits[record.step], theirs.logits[record.step]
        assert (a is None and b is None) or torch.equal(a, b), f"logits of step {record.step}"


def test_the_workload_has_what_makes_going_back_hard(straight):
    records = straight.run.trace.records
    kinds = {event.kind for record in records for event in record.block_events}
    assert {"hit", "shared", "evicted", "cached", "freed"} <= kinds
    assert any(record.preempted for record in records)
    assert any(row.num_cached for record in records for row in record.scheduled)
    assert any(output.stop_reason == " " for output in straight.run.outputs)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("undo_memory_bytes", [256 * 2**20, 0])
def test_a_fork_runs_on_to_the_same_bits(model, straight, share, undo_memory_bytes):
    original = straight if undo_memory_bytes else watched(model, undo_memory_bytes=0)
    at = int(share * len(original.run.trace))
    before = face(original.run.engine.scheduler)
    branch = Watched(original.run.fork(at))
    branch.run.resume()
    assert_same_future(branch, straight, at)
    assert face(original.run.engine.scheduler) == before


def test_a_rewound_run_goes_on_to_the_same_bits_and_again(model, straight):
    seen = watched(model)
    for at in (len(seen.run.trace) - 1, 14, 19, 5, 0):
        seen.run.rewind(at)
        assert seen.run.engine.last_restored.steps_recomputed == 0
        seen.run.resume()
        assert_same_future(seen, straight, 0)


def test_beyond_the_undo_memory_the_run_says_what_was_computed_again(model, straight):
    seen = watched(model, undo_memory_bytes=0)
    seen.run.rewind(15)
    assert str(seen.run.engine.last_restored).startswith("back at step 15; the undo memory of 0 MiB reaches back to step ")
    assert "so 15 steps were computed again" in str(seen.run.engine.last_restored)
    seen.run.resume()
    assert_same_future(seen, straight, 0)


def test_branches_share_weights_and_nothing_else(straight):
    run = straight.run
    branch = run.fork(12, num_blocks=14, edit={"r0": {"temperature": 1.0}})
    assert branch.engine.runner.loaded is run.engine.runner.loaded
    assert branch.engine.runner.kv[0].data_ptr() != run.engine.runner.kv[0].data_ptr()
    tokens, tensors = [output.token_ids for output in run.outputs], [layer.clone() for layer in run.engine.runner.kv]
    branch.resume()
    assert [output.token_ids for output in run.outputs] == tokens
    assert all(torch.equal(mine, kept) for mine, kept in zip(run.engine.runner.kv, tensors, strict=True))
    assert branch.outputs[0].token_ids[:4] == tokens[0][:4], "what was written before the fork stays"
    assert branch.outputs[0].token_ids != tokens[0]
