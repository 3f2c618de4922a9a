"""Drafts change nothing about what is sampled: chi-squared tests against the model's exact distribution, and token for token with a seed.

Each case draws 24,576 tokens, three for each of 8,192 requests, from a random model with a vocabulary of 16, whose distribution over all
outputs of three tokens is worked out from transformers' scores.  Two tables are tested, of the first and second token and of the second
and third; drafts are proposed for the last two.  False alarms: 1 in 1,000,000 for each table, were the seeds not fixed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_models
import torch
from safetensors.torch import save_file

from workbench import Engine, EngineConfig
from workbench.models.fingerprint import weights_fingerprint
from workbench.models.loading import LoadedModel
from workbench.plan import PlanRow, StepPlan
from workbench.request import Request, SamplingParams
from workbench.runners import torch_runner
from workbench.runners.drafters.base import TorchDrafter, as_asked, likeliest
from workbench.runners.drafters.make import make_drafter
from workbench.runners.drafters.model import ModelDrafter
from workbench.runners.torch_runner import TorchRunner
from workbench.sampler import SampleRow, probabilities
from workbench.scheduler import Scheduler

VOCAB, PROMPT = 16, (3, 7, 3, 7, 3)
REQUESTS, AT_ONCE, DRAFTS, BLOCK = 8192, 4096, 2, 4
TINY = dict(
    vocab_size=VOCAB, tie_word_embeddings=True, hidden_size=24, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24,
    num_hidden_layers=2, max_position_embeddings=64,
)  # fmt: skip
METHODS = ("ngram:1-3", "suffix", "draft:skip:1", "draft:int4", "draft:other", "eagle", "synthetic:0.7")
MIXED = dict(temperature=1.3, top_p=0.9, top_k=9, min_p=0.05, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=-0.4)


class Models(NamedTuple):
    """The model that is sampled from, another one of the same vocabulary, and the file of an EAGLE head."""

    target: LoadedModel
    other: LoadedModel
    head: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_models.VARIANTS, "sixteen tokens", ("llama", TINY))
        patch.setitem(tiny_models.VARIANTS, "one layer", ("llama", {**TINY, "num_hidden_layers": 1}))
        folder = tmp_path_factory.mktemp("models")
        target = tiny_models.load("sixteen tokens", folder)
        yield Models(target, tiny_models.load("one layer", folder), random_head(target, folder / "tiny.eagle.safetensors"))


def random_head(target: LoadedModel, file: Path) -> Path:
    """A head with random weights, that knows 12 of the 16 tokens."""
    torch.manual_seed(1)
    hidden, dim, ffn = 24, 12, 20
    shapes = dict(
        tap_norm=(2, hidden), fc=(hidden, 2 * hidden), embed_norm=(hidden,), feature_norm=(hidden,), qkv=(4 * dim, 2 * hidden),
        output=(hidden, 2 * dim), ffn_norm=(hidden,), gate_up=(2 * ffn, hidden), down=(hidden, ffn), norm=(hidden,),
    )  # fmt: skip
    tensors = {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}
    architecture = target.architecture
    facts = dict(
        format="workbench-eagle", version="1", taps="0,1", target_name="tiny",
        target_fingerprint=weights_fingerprint(architecture.norm, architecture.embedding),
    )  # fmt: skip
    save_file({**tensors, "draft_ids": torch.arange(2, 14, dtype=torch.int32)}, file, metadata=facts)
    return file


def config_of(method: str, **knobs: Any) -> EngineConfig:
    return EngineConfig(
        speculative=method, num_speculative_tokens=DRAFTS, block_size=BLOCK,
        max_num_seqs=AT_ONCE, max_num_batched_tokens=AT_ONCE * 8, enable_prefix_caching=False,
    ).replace(**knobs)  # fmt: skip


def runner_of(models: Models, config: EngineConfig) -> TorchRunner:
    drafter: TorchDrafter | None = None
    draws = config.draft_sample_method == "probabilistic"
    if config.speculative == "draft:other":  # not by its folder: these models have no tokenizers to be compared
        drafter = ModelDrafter(models.other, as_asked if draws else likeliest)
    elif config.speculative:
        drafter = make_drafter(f"eagle:{models.head}" if config.speculative == "eagle" else config.speculative, models.target, draws=draws)
    return TorchRunner(models.target, num_blocks=config.max_num_seqs * 3, block_size=BLOCK, drafter=drafter, num_threads=1)


def wave(runner: TorchRunner, scheduler: Scheduler, seeds: range, params: dict[str, Any]):
    """Three output tokens of each seed, and the rounds: three steps make them, with drafts or without."""
    for seed in seeds:
        scheduler.add(Request(id=f"r{seed}", prompt_token_ids=PROMPT, sampling=SamplingParams(seed=seed, max_tokens=4, **params)))
    states, steps = [scheduler.queues.states[f"r{seed}"] for seed in seeds], []
    for _ in range(3):
        if scheduler.has_unfinished:
            plan = scheduler.plan()
            steps.append(scheduler.commit(plan, runner.execute(plan)))
    return [tuple(state.token_ids[len(PROMPT) :][:3]) for state in states], steps


def draws(models: Models, config: EngineConfig, params: dict[str, Any], count: int = REQUESTS):
    """The counts of all outputs of three tokens, ``[16, 16, 16]``, and all rounds."""
    runner, counts, rounds = runner_of(models, config), torch.zeros(VOCAB**3, dtype=torch.float64), []
    for start in range(0, count, AT_ONCE):
        scheduler = Scheduler(config, num_blocks=runner.num_blocks, max_model_len=64)
        outputs, steps = wave(runner, scheduler, range(start, start + AT_ONCE), params)
        places = torch.tensor(outputs) @ torch.tensor([VOCAB**2, VOCAB, 1])
        counts += places.bincount(minlength=VOCAB**3)
        rounds += [one for record in steps for one in record.spec]
    return counts.view(VOCAB, VOCAB, VOCAB), rounds


def exact(params: dict[str, Any]) -> torch.Tensor:
    """The probability of every output of three tokens, ``[16, 16, 16]``."""
    request = Request(id="r", prompt_token_ids=PROMPT, sampling=SamplingParams(seed=0, **params))

    def after(prefixes: list[tuple[int, ...]]) -> torch.Tensor:
        with torch.inference_mode():
            scores = tiny_models.reference("sixteen tokens")(torch.tensor([[*PROMPT, *prefix] for prefix in prefixes])).logits[:, -1]
        return probabilities(scores, [SampleRow(request, (*PROMPT, *prefix), len(prefix)) for prefix in prefixes]).double()

    pairs = [(first, second) for first in range(VOCAB) for second in range(VOCAB)]
    first, second, third = after([()]), after([(token,) for token in range(VOCAB)]), after(pairs)
    return first.view(-1, 1, 1) * second.view(VOCAB, VOCAB, 1) * third.view(VOCAB, VOCAB, VOCAB)


def excess(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Chi-squared over what 1 of 1,000,000 honest samples exceeds (Wilson and Hilferty); cells that expect less than 5 are pooled."""
    common = expected >= 5
    seen = torch.cat([counts[common], counts[~common].sum()[None]])
    hoped = torch.cat([expected[common], expected[~common].sum()[None]])
    seen, hoped = seen[hoped > 0], hoped[hoped > 0]
    freedom = max(1, len(seen) - 1)
    limit = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3
    return float(((seen - hoped) ** 2 / hoped).sum()) / limit


def both_tables(counts: torch.Tensor, distribution: torch.Tensor) -> list[float]:
    expected = distribution * counts.sum()
    return [excess(counts.sum(axis), expected.sum(axis)) for axis in (2, 0)]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        *((method, {"temperature": 0.8}) for method in METHODS),
        ("ngram:1-3", {"temperature": 1.0, "top_p": 0.8}),
        ("eagle", {"temperature": 1.2, "top_k": 8}),
        ("draft:skip:1", {"temperature": 1.0, "min_p": 0.2}),
        ("suffix", {"temperature": 0.9, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.4}),
        ("draft:skip:1", MIXED),
        ("eagle drawn", {"temperature": 0.8}),
        ("eagle drawn", {"temperature": 1.2, "top_k": 8}),
        ("draft:other drawn", {"temperature": 1.0, "top_p": 0.8}),
        ("draft:skip:1 drawn", MIXED),
    ],
    ids=str,
)
def test_tokens_come_as_often_as_the_model_alone_would_draw_them(models, method, params):
    method, _, drawn = method.partition(" ")
    counts, rounds = draws(models, config_of(method, draft_sample_method="probabilistic" if drawn else "greedy"), params)
    accepted = sum(one.accepted for one in rounds)
    assert accepted > 100
    assert sum(one.proposed for one in rounds) - accepted > 100
    distribution = exact(params)
    assert counts[distribution == 0].sum() == 0
    assert max(both_tables(counts, distribution)) < 1


def test_placeholders_change_nothing(models):
    """A padding draft (-1) is never right; one that stands behind a real draft is read when that is accepted."""
    distribution, runner = exact({"temperature": 0.8}), runner_of(models, EngineConfig(max_num_seqs=AT_ONCE))
    likeliest = int(distribution.sum((1, 2)).argmax())
    for drafts in ((-1, -1), (likeliest, -1)):
        firsts, seconds = torch.zeros(VOCAB, dtype=torch.float64), torch.zeros(VOCAB, dtype=torch.float64)
        for start in range(0, 5 * AT_ONCE, AT_ONCE):
            requests = [
                Request(id=f"r{seed}", prompt_token_ids=PROMPT, sampling=SamplingParams(seed=seed, temperature=0.8))
                for seed in range(start, start + AT_ONCE)
            ]
            rows = [
                PlanRow(request, "verify", 0, len(PROMPT) + DRAFTS, PROMPT, (2 * place + 1, 2 * place + 2), True, drafts)
                for place, request in enumerate(requests)
            ]
            for emitted in runner.execute(StepPlan(0, BLOCK, tuple(rows))).token_ids:
                firsts[emitted[0]] += 1
                assert len(emitted) == 1 + (emitted[0] == drafts[0])
                if len(emitted) == 2:
                    seconds[emitted[1]] += 1
        assert excess(firsts, distribution.sum((1, 2)) * firsts.sum()) < 1
        second = distribution[likeliest].sum(1) / distribution[likeliest].sum()
        assert seconds.sum() == (firsts[likeliest] if drafts[0] == likeliest else 0)
        assert excess(seconds, second * seconds.sum()) < 1


def test_a_rule_that_keeps_every_draft_is_found_out(models, monkeypatch):
    """The tests above can fail: half of their draws shows it."""

    def keep_all(drafts, tokens):
        return [*drafts, tokens[-1]]

    monkeypatch.setattr(torch_runner, "verify_greedy", keep_all)
    counts, _ = draws(models, config_of("draft:skip:1"), {"temperature": 0.8}, count=AT_ONCE)
    assert min(both_tables(counts, exact({"temperature": 0.8}))) > 2


SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.2, "top_k": 5},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 0.0, "repetition_penalty": 1.4, "frequency_penalty": 0.5},
    MIXED,
]


def tokens_of(models: Models, config: EngineConfig) -> list[tuple[int, ...]]:
    runner = runner_of(models, config)
    with Engine(runner, config=config, num_blocks=runner.num_blocks, debug=True) as engine:
        prompts = [
            {"prompt_token_ids": [(3 * i + j * j) % (5 + i % 4) for j in range(4 + 3 * i)], "seed": 100 + i, "arrival_step": i, **sampling}
            for i, sampling in enumerate(SAMPLINGS)
        ]
        run = engine.run(prompts, max_tokens=30)
        assert (config.speculative is None) is (run.metrics.mean_acceptance_length is None)
        assert not any(record.draft_problem for record in engine.trace.records)
    return [output.token_ids for output in run.outputs]


FEW = {"max_num_seqs": 4, "max_num_batched_tokens": 24, "enable_prefix_caching": True}  # they queue, and prompts come in chunks


@pytest.fixture(scope="module")
def undrafted(models):
    return tokens_of(models, config_of("ngram", speculative=None, num_speculative_tokens=None, **FEW))


@pytest.mark.parametrize("method", ["draft:skip:1", "draft:int4", "draft:other", "eagle"])
def test_with_a_seed_every_token_is_the_one_without_drafts_where_drafts_are_drawn(models, undrafted, method):
    assert tokens_of(models, config_of(method, num_speculative_tokens=4, draft_sample_method="probabilistic", **FEW)) == undrafted


@pytest.mark.parametrize("drafts", [4, "auto"])
@pytest.mark.parametrize("method", METHODS)
def test_with_a_seed_every_token_is_the_one_without_drafts(models, undrafted, method, drafts):
    assert tokens_of(models, config_of(method, num_speculative_tokens=drafts, **FEW)) == undrafted
