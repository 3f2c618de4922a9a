"""Going back with real tensors, tiny models and every device there is: logits to the last bit, on any walk through time."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import Engine
from workbench.runners.torch_runner import TorchRunner

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MOVES = st.sampled_from(["rewind", "fork", "park"])
PROMPTS = [
    {"prompt_token_ids": [(7 * i + j * j) % 101 for j in range(length)], "arrival_step": 2 * i, "temperature": 0.9 * (i % 2), "seed": i}
    for i, length in enumerate((9, 30, 30, 17, 5, 30))
]
PROMPTS[2]["prompt_token_ids"] = PROMPTS[1]["prompt_token_ids"]
PROMPTS[5]["prompt_token_ids"] = PROMPTS[1]["prompt_token_ids"]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=CUDA)])
def device(request):
    return request.param


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def tiny(tmp_path_factory, device, request):
    return tiny_models.load(request.param, tmp_path_factory.mktemp("tiny"), device=device)


def engine_of(loaded, **knobs) -> Engine:
    runner = TorchRunner(loaded, num_blocks=22, block_size=4)
    runner.keep_logits = True
    engine = Engine(runner, **{"num_blocks": 22, "block_size": 4, "max_num_batched_tokens": 24, "debug": True, **knobs})
    for prompt in PROMPTS:
        engine.add_request(dict(prompt), max_tokens=14, ignore_eos=True)
    return engine


def step(engine: Engine):
    record = engine.step()
    logits = engine.runner.last_logits if record.scheduled else None
    return record, logits


def to_the_end(engine: Engine):
    taken = []
    while engine.has_unfinished:
        taken.append(step(engine))
    return taken


def assert_equal(mine, theirs) -> None:
    assert len(mine) == len(theirs)
    for (record, logits), (other, expected) in zip(mine, theirs, strict=True):
        for field in ("scheduled", "decisions", "block_events", "sampled", "running", "waiting", "finished"):
            assert getattr(record, field) == getattr(other, field), (record.step, field)
        assert logits is expected is None or torch.equal(logits, expected), f"logits of step {record.step}"


@pytest.fixture(scope="module")
def straight(tiny):
    return to_the_end(engine_of(tiny))


def test_the_workload_preempts_evicts_and_hits(straight):
    records = [record for record, _ in straight]
    assert any(record.preempted for record in records)
    assert {"evicted", "hit"} <= {event.kind for record in records for event in record.block_events}


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1 << 28, 20_000, 0]), st.lists(st.tuples(st.integers(0, 20), MOVES), max_size=4), st.data())
def test_any_walk_through_time_keeps_every_bit(tiny, straight, budget, moves, data):
    engine = engine_of(tiny, undo_memory_bytes=budget)
    for steps, move in moves:
        for _ in range(steps):
            if engine.has_unfinished:
                record, logits = step(engine)
                assert_equal([(record, logits)], [straight[record.step]])
        at = data.draw(st.integers(0, len(engine.trace)))
        if move == "rewind":
            engine.rewind(at)
        elif move == "fork":
            engine = engine.fork(at)
        else:
            engine.park()
    at = len(engine.trace)
    assert_equal(to_the_end(engine), straight[at:])


def test_a_fork_has_blocks_of_its_own_on_the_same_weights(tiny, straight):
    engine = engine_of(tiny)
    for _ in range(12):
        engine.step()
    kept = [layer.clone() for layer in engine.runner.kv]
    twin = engine.fork(7, num_blocks=40)
    assert twin.runner.loaded is engine.runner.loaded
    assert twin.runner.kv[0].shape[1] == 41
    to_the_end(twin)
    assert all(torch.equal(mine, before) for mine, before in zip(engine.runner.kv, kept, strict=True))
    assert_equal(to_the_end(engine), straight[12:])
