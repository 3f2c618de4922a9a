"""The same tokens whatever the scheduler does: chunks, block sizes, batch mixes, cache, preemption.

A greedy token may differ from the reference only where the reference's two best logits are closer than ``EPSILON``: batch
shape changes the order of float additions, and a tie closer than that may fall either way.  Every test counts such places.
"""

from __future__ import annotations

import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import Engine
from workbench.models import load_model
from workbench.runners.torch_runner import TorchRunner

EPSILON = 1e-3  # in logits, float32

PROMPTS = [
    "What is gravity?",
    "Name three primes.",
    "Write one line about rain.",
    "What is gravity, and who described it first?",
    "Translate to French: the cat sleeps on the warm stone wall in the evening sun while the town goes quiet.",
    "Count from one to ten.",
]


def outputs(run):
    return [(output.token_ids, [entry.top_logprobs[0] - entry.top_logprobs[1] for entry in output.logprobs]) for output in run.outputs]


def differences(reference, got):
    """Places where two sets of outputs part ways; each must be a tie of the reference."""
    ties = []
    for number, ((wanted, gaps), (tokens, _)) in enumerate(zip(reference, got, strict=True)):
        for position, (want, have) in enumerate(zip(wanted, tokens, strict=False)):
            if want != have:
                assert gaps[position] < EPSILON, f"prompt {number}, token {position}: {have} instead of {want}, gap {gaps[position]:.4f}"
                ties.append((number, position))
                break
        else:
            assert len(wanted) == len(tokens)
    return ties


# -- a tiny random model: any scheduling at all --------------------------------------------------------------------------


CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")])


@pytest.fixture(scope="module", params=["cpu", CUDA])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, device):
    return tiny_models.load("llama", tmp_path_factory.mktemp("tiny"), device=device)


TOKENS = [[(7 * i + j * j) % 101 for j in range(length)] for i, length in enumerate((3, 17, 40, 40, 9, 25))]


def without_tokenizer(loaded, *, num_blocks=64, block_size=16, **knobs):
    """An engine that reads token ids only: a random model has no words."""
    runner = TorchRunner(loaded, num_blocks=num_blocks, block_size=block_size)
    return Engine(runner, num_blocks=num_blocks, block_size=block_size, **knobs)


def alone(loaded):
    """Each prompt by itself, in one chunk, nothing cached."""
    found = []
    for number, prompt in enumerate(TOKENS):
        engine = without_tokenizer(loaded, num_blocks=64, enable_prefix_caching=False, max_num_batched_tokens=256)
        found += outputs(engine.run([prompt[:] if number != 3 else TOKENS[2]], max_tokens=16, ignore_eos=True, logprobs=2))
    return found


@pytest.fixture(scope="module")
def reference(tiny):
    return alone(tiny)


@settings(max_examples=40, deadline=None)
@given(
    block_size=st.sampled_from([1, 3, 4, 16]),
    pool_tokens=st.integers(60, 300),
    budget=st.integers(2, 64),
    seqs=st.integers(1, 6),
    threshold=st.sampled_from([0, 5]),
    caching=st.booleans(),
    policy=st.sampled_from(["fcfs", "priority"]),
    batching=st.sampled_from(["continuous", "static"]),
)
def test_no_way_of_scheduling_changes_a_token(tiny, reference, block_size, pool_tokens, budget, seqs, threshold, caching, policy, batching):
    engine = without_tokenizer(
        tiny, block_size=block_size, num_blocks=-(-pool_tokens // block_size), max_num_batched_tokens=budget, max_num_seqs=seqs,
        long_prefill_token_threshold=threshold, enable_prefix_caching=caching, policy=policy, batching=batching, debug=True,
    )  # fmt: skip
    prompts = [
        {"prompt_token_ids": TOKENS[2] if i == 3 else prompt, "arrival_step": 2 * (i % 3), "priority": i % 2}
        for i, prompt in enumerate(TOKENS)
    ]
    differences(reference, outputs(engine.run(prompts, max_tokens=16, ignore_eos=True, logprobs=2)))


def test_preemption_and_prefix_hits_happen_in_these_tests(tiny, reference):
    engine = without_tokenizer(tiny, block_size=4, num_blocks=24, max_num_batched_tokens=48, debug=True)
    prompts = [TOKENS[2] if i == 3 else prompt for i, prompt in enumerate(TOKENS)]
    run = engine.run(prompts, max_tokens=16, ignore_eos=True, logprobs=2)
    assert run.metrics.num_preemptions > 0
    assert run.metrics.prefix_cache_hit_rate > 0
    differences(reference, outputs(run))


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(tiny):
    def sampled(engine, prompts):
        return engine.run(prompts, max_tokens=20, temperature=0.8, top_p=0.95, ignore_eos=True, seed=11).outputs[0].token_ids

    by_itself = sampled(without_tokenizer(tiny, num_blocks=64), [TOKENS[1]])
    in_company = sampled(without_tokenizer(tiny, num_blocks=64, max_num_batched_tokens=13), [TOKENS[1], TOKENS[2], TOKENS[5]])
    assert by_itself == in_company


def test_the_same_engine_seed_gives_the_same_run_and_another_one_does_not(tiny):
    def sampled(seed):
        run = without_tokenizer(tiny, seed=seed).run(TOKENS, max_tokens=12, temperature=1.0, ignore_eos=True)
        return [output.token_ids for output in run.outputs]

    assert sampled(1) == sampled(1) != sampled(2)


# -- the embedded model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(device):
    return load_model("smollm2", dtype="float32", device=device)


@pytest.fixture(scope="module")
def smollm2_reference(smollm2):
    found = []
    for prompt in PROMPTS:
        engine = Engine(smollm2, num_blocks=64, enable_prefix_caching=False, max_num_batched_tokens=512)
        found += outputs(engine.run([prompt], max_tokens=24, logprobs=2))
    return found


@pytest.mark.model
@pytest.mark.parametrize(
    "knobs",
    [
        {"max_num_batched_tokens": 7},
        {"max_num_batched_tokens": 64, "max_num_seqs": 2},
        {"block_size": 1, "num_blocks": 600},
        {"block_size": 5, "num_blocks": 120},
        {"block_size": 64, "num_blocks": 16},
        {"enable_prefix_caching": False},
        {"num_blocks": 13, "max_num_batched_tokens": 96},
        {"batching": "static", "max_num_seqs": 3},
        {"long_prefill_token_threshold": 9},
    ],
    ids=lambda knobs: ",".join(f"{name}={value}" for name, value in knobs.items()),
)
def test_smollm2_says_the_same_however_it_is_scheduled(smollm2, smollm2_reference, knobs, record_property):
    engine = Engine(smollm2, **{"num_blocks": 64, "debug": True, **knobs})
    run = engine.run(PROMPTS, max_tokens=24, logprobs=2)
    if knobs.get("num_blocks") == 13:
        assert run.metrics.num_preemptions > 0
    ties = differences(smollm2_reference, outputs(run))
    record_property("tokens that fell the other way in a tie", len(ties))
