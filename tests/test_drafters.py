"""Every way of proposing drafts, on tiny random models: the output is that of no speculation, and the drafts are those of a naive chain.

The naive chains compute everything anew for every draft, without a cache, with transformers or plain tensors.
"""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import rms_norm, silu

from workbench import Engine
from workbench.errors import ConfigError, ModelIntegrityError
from workbench.models.eagle import load_head
from workbench.models.fingerprint import weights_fingerprint
from workbench.models.kernels import TorchKernels
from workbench.models.linear import plain
from workbench.models.loading import load_folder
from workbench.models.native import NativeKernels
from workbench.models.paths import Path as ExecutionPath
from workbench.models.quantised import GROUP, KINDS, Int8, has_kernels, rounded
from workbench.plan import PlanRow, StepPlan
from workbench.request import Request, SamplingParams
from workbench.runners.drafters.make import make_drafter, weight_bytes_of
from workbench.runners.torch_runner import TorchRunner

VARIANT, VOCAB, BLOCK = "smollm2-tied", 101, 4
TAPS = (0, 1)
TIES = 1e-3  # scores closer than that may fall either way: sums are in another order


# -- a target, and models and heads that draft for it ----------------------------------------------------------------------


def write_tokenizer(folder: Path, first: int = 33) -> None:
    """One character for each token, from the character ``first`` on."""
    tokenizer = Tokenizer(models.WordLevel({chr(first + index): index for index in range(VOCAB)}, unk_token=chr(first)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))


def change_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def copied(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.parent / name))


def write_head(file: Path, target, *, seed: int = 3, **facts: str) -> Path:
    """A random head whose draft vocabulary is every second id."""
    config, generator = target.config, torch.Generator().manual_seed(seed)
    hidden, ffn, kv = config.hidden_size, 40, config.num_kv_heads * config.head_dim
    sizes = {"fc": (hidden, len(TAPS) * hidden), "qkv": (hidden + 2 * kv, 2 * hidden), "output": (hidden, hidden)}
    sizes |= {"gate_up": (2 * ffn, hidden), "down": (hidden, ffn)}
    tensors = {name: 0.2 * torch.randn(*size, generator=generator) for name, size in sizes.items()}
    norms = {"tap_norm": (len(TAPS), hidden)} | dict.fromkeys(("embed_norm", "feature_norm", "ffn_norm", "norm"), (hidden,))
    tensors |= {name: 1 + 0.2 * torch.randn(*size, generator=generator) for name, size in norms.items()}
    tensors["draft_ids"] = torch.arange(0, VOCAB, 2, dtype=torch.int32)
    fingerprint = weights_fingerprint(target.architecture.norm, target.architecture.embedding)
    metadata = {"format": "workbench-eagle", "version": "1", "taps": ",".join(map(str, TAPS)), "target_name": "tiny"}
    save_file(tensors, file, metadata | {"target_fingerprint": fingerprint} | facts)
    return file


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tiny_models.save(VARIANT, tmp_path_factory.mktemp("models"))
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def target(folder):
    return load_folder(folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def other(folder):
    """Another model with the same tokens: the target with fewer layers and weights that are somewhat different."""
    other = copied(folder, "other")
    weights = load_file(other / "model.safetensors")
    torch.manual_seed(11)
    kept = {name: weight * (1 + 0.2 * torch.randn_like(weight)) for name, weight in weights.items() if "layers.2" not in name}
    save_file(kept, other / "model.safetensors", {"format": "pt"})
    change_config(other, num_hidden_layers=2)
    return other


@pytest.fixture(scope="module")
def head(folder, target):
    return write_head(folder.parent / "random.eagle.safetensors", target)


@pytest.fixture(scope="module")
def method_of(folder, other, head):
    """A method's short name in this file to what an engine is told."""
    return {"eagle": f"eagle:{head}", "draft:other": f"draft:{other}", "draft:itself": f"draft:{folder}"}


METHODS = ["ngram:1-3", "suffix", "synthetic:0.6", "eagle", "draft:skip:1", "draft:skip:2", "draft:int8", "draft:int4"]
METHODS += ["draft:other", "draft:itself"]

ROUND_AND_ROUND = [3, 8, 41] * 9
PROMPTS = [[(7 * i + j * j) % VOCAB for j in range(length)] for i, length in enumerate((33, 30, 17, 5))] + [ROUND_AND_ROUND, [55, 2, 90]]
PROMPTS += [PROMPTS[1], [*PROMPTS[1][:13], 1, 2, 3]]


@pytest.fixture(scope="module")
def stop_token(target):
    """A token that the second request says in the middle of its answer."""
    return outputs(played(target, None, ends=False))["r1"][6]


def add_requests(engine: Engine, *, sampled: bool, ends: bool, stop_token: int = 0) -> None:
    for number, prompt in enumerate(PROMPTS):
        own = {"max_tokens": 1} if ends and number == 5 else {"stop_token_ids": [stop_token]} if ends and number == 1 else {}
        temperature = 0.8 * (number % 2) if sampled else 0.0
        params = {"max_tokens": 14, "ignore_eos": True, "temperature": temperature, "seed": number, **own}
        engine.add_request({"prompt_token_ids": prompt, "arrival_step": 2 * number}, **params)


def engine_of(target, method, drafts=None, *, sampled=False, ends=True, stop_token=0, **knobs) -> Engine:
    small = {"num_blocks": 24, "block_size": BLOCK, "max_num_batched_tokens": 20, "debug": True}
    engine = Engine(target, speculative=method, num_speculative_tokens=drafts if method else None, **small | knobs)
    add_requests(engine, sampled=sampled, ends=ends, stop_token=stop_token)
    return engine


def to_the_end(engine: Engine) -> Engine:
    while engine.has_unfinished:
        engine.step()
    return engine


def played(target, method, drafts=4, **ways) -> Engine:
    return to_the_end(engine_of(target, method, drafts, **ways))


def outputs(engine: Engine) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for record in engine.trace.records:
        for sampled in record.sampled:
            found.setdefault(sampled.request_id, []).extend(sampled.token_ids)
    return found


def rounds(engine: Engine):
    return [spec for record in engine.trace.records for spec in record.spec]


def problems(engine: Engine) -> set[str]:
    return {record.draft_problem for record in engine.trace.records if record.draft_problem}


def acceptance(engine: Engine) -> float:
    verified = rounds(engine)
    return sum(spec.accepted for spec in verified) / sum(spec.proposed for spec in verified)


# -- the output --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(target, stop_token):
    return {sampled: outputs(played(target, None, sampled=sampled, stop_token=stop_token)) for sampled in (False, True)}


@pytest.mark.parametrize(("drafts", "sampled"), [(1, False), (2, False), (3, False), (4, False), (3, True)])
@pytest.mark.parametrize("method", METHODS)
def test_output_is_that_of_no_speculation(method, drafts, sampled, target, reference, method_of, stop_token):
    engine = played(target, method_of.get(method, method), drafts, sampled=sampled, stop_token=stop_token)
    assert outputs(engine) == reference[sampled]
    assert rounds(engine)
    assert not problems(engine)


@pytest.mark.parametrize("method", ["eagle", "draft:skip:2", "draft:other"])
def test_number_of_drafts_may_change_from_step_to_step(method, target, reference, method_of, stop_token):
    engine = played(target, method_of.get(method, method), "auto", stop_token=stop_token)
    assert outputs(engine) == reference[False]
    assert not problems(engine)


def test_the_workload_has_everything_that_can_go_wrong(target, method_of, stop_token):
    engine = played(target, method_of["draft:other"], stop_token=stop_token)
    records = engine.trace.records
    kinds = [{row.kind for row in record.scheduled} for record in records]
    assert any({"prefill", "verify"} <= each for each in kinds)
    assert any(record.preempted for record in records)
    assert {"evicted", "hit"} <= {event.kind for record in records for event in record.block_events}
    assert any(row.kind == "prefill" and row.end < len(PROMPTS[1]) for record in records for row in record.scheduled)
    assert {finished.reason for record in records for finished in record.finished} == {"stop", "length"}
    assert {spec.accepted for spec in rounds(engine)} >= {0, 1, 2}


@pytest.mark.parametrize("method", ["eagle", "draft:skip:1", "draft:int8", "draft:other"])
def test_a_request_that_fills_the_pool_alone_gets_as_many_drafts_as_have_slots(method, target, method_of):
    def alone(method):
        engine = Engine(target, speculative=method, num_blocks=6, block_size=BLOCK, enable_prefix_caching=False, debug=True)
        engine.add_request({"prompt_token_ids": PROMPTS[0][:9]}, max_tokens=15, ignore_eos=True)
        return to_the_end(engine)

    drafted = alone(method_of.get(method, method))
    assert outputs(drafted) == outputs(alone(None))
    assert not problems(drafted)


@pytest.mark.parametrize(("method", "fit"), [("eagle", 3), ("draft:skip:1", 2), ("draft:int8", 2), ("draft:other", 2)])
def test_without_slots_ahead_there_are_fewer_drafts(method, fit, target, method_of):
    """The newest token is at position 6 of 8: it has a slot, and so has one draft; the head reads one position behind."""
    runner = TorchRunner(target, num_blocks=4, block_size=BLOCK, drafter=make_drafter(method_of.get(method, method), target))
    asked = Request(id="r", prompt_token_ids=tuple(PROMPTS[1][:6]), sampling=SamplingParams.of(max_tokens=20, ignore_eos=True))
    for blocks, expected in (([3, 1], fit), ([3, 1, 2], 4)):
        row = PlanRow(asked, "prefill", 0, 6, list(asked.prompt_token_ids), blocks, True)
        output = runner.execute(StepPlan(0, BLOCK, (row,), 4, 100))
        assert output.proposed is not None, output.draft_problem
        assert len(output.proposed[0]) == expected


# -- the drafts --------------------------------------------------------------------------------------------------------------


def chain(scores_after, token_ids, count):
    """``count`` tokens, each the likeliest after those before; ``None`` from where two are as likely, for nobody knows which comes."""
    drafts: list[int] = []
    while len(drafts) < count:
        best = scores_after([*token_ids, *drafts]).topk(2)
        if best.values[0] - best.values[1] < TIES:
            return None
        drafts.append(int(best.indices[0]))
    return drafts


def transformers_model(folder: Path, num_layers=None):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.model.layers = model.model.layers[:num_layers]
    return model


def naive_scores(model):
    def scores_after(token_ids):
        with torch.inference_mode():
            return model(torch.tensor([token_ids])).logits[0, -1]

    return scores_after


class NaiveHead:
    """The head on whole sequences: features by transformers, its layer in plain tensors, nothing kept."""

    def __init__(self, file: Path, folder: Path, config) -> None:
        self.weights, self.model, self.config = load_file(file), transformers_model(folder), config
        self.embedding = self.model.get_input_embeddings().weight

    def drafts(self, token_ids, count):
        with torch.inference_mode():
            seen = self.model(torch.tensor([token_ids[:-1]]), output_hidden_states=True).hidden_states
            taps = [seen[tap + 1][0] for tap in TAPS]
            features = torch.cat([self.norm(tap, weight) for tap, weight in zip(taps, self.weights["tap_norm"], strict=True)], 1)
            entries, known, drafts = list(features @ self.weights["fc"].T), list(token_ids), []
            while True:
                hidden = self.last_output(torch.stack(entries), known[1:])
                best = (self.norm(hidden, self.weights["norm"]) @ self.embedding[::2].T).topk(2)
                if best.values[0] - best.values[1] < TIES:
                    return None
                drafts.append(2 * int(best.indices[0]))
                if len(drafts) == count:
                    return drafts
                entries.append(hidden)
                known.append(drafts[-1])

    def norm(self, values, weight):
        return rms_norm(values, weight.shape, weight, self.config.rms_norm_eps)

    def last_output(self, g, following):
        weights, dim = self.weights, self.config.head_dim
        embedded = self.norm(self.embedding[torch.tensor(following)], weights["embed_norm"])
        qkv = torch.cat([embedded, self.norm(g, weights["feature_norm"])], 1) @ weights["qkv"].T
        heads = qkv.view(len(g), -1, dim).transpose(0, 1)
        queries, keys, values = heads.split([self.config.num_heads, self.config.num_kv_heads, self.config.num_kv_heads])
        group = self.config.num_heads // self.config.num_kv_heads
        keys, values = (part.repeat_interleave(group, 0) for part in (self.turned(keys), values))
        odds = (self.turned(queries)[:, -1:] @ keys.transpose(1, 2) / dim**0.5).softmax(-1)
        hidden = g[-1] + (odds @ values).flatten() @ weights["output"].T
        gate, up = (self.norm(hidden, weights["ffn_norm"]) @ weights["gate_up"].T).chunk(2)
        return hidden + (silu(gate) * up) @ weights["down"].T

    def turned(self, heads):
        angles = torch.outer(torch.arange(heads.shape[1]), torch.tensor(self.config.rope_inv_freq, dtype=torch.float32))
        first, second = heads.chunk(2, -1)
        return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def assert_drafts_are(engine: Engine, drafts_of) -> None:
    """Compare every proposal of a run with ``drafts_of(known tokens, count)``."""
    known = {name: list(request.prompt_token_ids) for name, request in engine.trace.requests.items()}
    compared = ties = 0
    for record in engine.trace.records:
        for sampled in record.sampled:
            known[sampled.request_id] += sampled.token_ids
        for proposed in record.proposed:
            expected = drafts_of(known[proposed.request_id], len(proposed.token_ids))
            ties += expected is None
            compared += 1
            assert expected is None or list(proposed.token_ids) == expected, f"step {record.step}, {proposed.request_id}"
    assert compared > 10
    assert ties < compared / 10


@pytest.mark.parametrize("method", ["draft:skip:1", "draft:skip:2", "draft:other"])
def test_drafts_of_a_model_are_those_of_a_naive_chain(method, target, folder, other, method_of):
    drafter = transformers_model(other) if method == "draft:other" else transformers_model(folder, int(method[-1]))
    engine = played(target, method_of.get(method, method), 3)
    assert_drafts_are(engine, lambda known, count: chain(naive_scores(drafter), known, count))


def one_after_the_other(target, method, *prompts, **knobs) -> Engine:
    """A run with room for all, in which every prompt finds those before it in the cache."""
    engine = Engine(target, speculative=method, num_speculative_tokens=3, block_size=BLOCK, num_blocks=60, debug=True, **knobs)
    for number, prompt in enumerate(prompts):
        asked = {"prompt_token_ids": prompt, "arrival_step": 3 * number}
        engine.add_request(asked, max_tokens=14, ignore_eos=True, temperature=0)
    return to_the_end(engine)


def test_drafts_of_a_head_are_those_of_a_naive_chain(target, folder, head, method_of):
    assert_drafts_are(played(target, method_of["eagle"], 4), NaiveHead(head, folder, target.config).drafts)


def test_a_head_uses_no_entry_that_knows_what_another_request_said_after_a_block(target, folder, head, method_of):
    """The entry of a block's last position holds the token after it, which is another one here."""
    engine = one_after_the_other(target, method_of["eagle"], PROMPTS[1], [*PROMPTS[1][:12], 1, 2, 3, 4])
    row = next(row for record in engine.trace.records for row in record.scheduled if row.request_id == "r1")
    assert row.num_cached == 8
    assert_drafts_are(engine, NaiveHead(head, folder, target.config).drafts)


@pytest.mark.parametrize("method", ["draft:skip:2", "draft:other"])
def test_a_newcomer_that_verifies_placeholders_gets_drafts_like_any_other(method, target, folder, other, method_of, reference):
    """All of its prompt but one token is in the cache, so it is padded with drafts that nobody proposed."""
    engine = one_after_the_other(target, method_of.get(method, method), PROMPTS[0], PROMPTS[0])
    first = next(spec for spec in rounds(engine) if spec.request_id == "r1")
    assert (first.proposed, first.accepted, first.draft_ms) == (3, 0, 0)
    assert outputs(engine)["r0"] == outputs(engine)["r1"] == reference[False]["r0"]
    drafter = transformers_model(other) if method == "draft:other" else transformers_model(folder, 2)
    assert_drafts_are(engine, lambda known, count: chain(naive_scores(drafter), known, count))


def test_a_draft_model_that_is_the_target_is_always_right(target, method_of):
    engine = played(target, method_of["draft:itself"], 4, ends=False)
    assert acceptance(engine) == 1


def test_a_draft_model_that_is_the_target_and_draws_as_it_does_is_always_right(target, method_of):
    draws = {"sampled": True, "ends": False}
    assert acceptance(played(target, method_of["draft:itself"], 4, draft_sample_method="probabilistic", **draws)) == 1
    assert acceptance(played(target, method_of["draft:itself"], 4, **draws)) < 0.9


@pytest.mark.parametrize("method", ["eagle", "draft:skip:2", "draft:int8", "draft:other"])
def test_drafts_that_are_drawn_change_no_token(method, target, reference, method_of, stop_token):
    for sampled in (False, True):
        ways = {"sampled": sampled, "stop_token": stop_token, "draft_sample_method": "probabilistic"}
        engine = played(target, method_of.get(method, method), 3, **ways)
        assert outputs(engine) == reference[sampled]
        assert rounds(engine)
        assert not problems(engine)


@pytest.mark.parametrize("method", ["eagle", "draft:skip:2", "draft:int8", "draft:other"])
def test_greedy_requests_get_the_same_drafts_whether_drafts_are_drawn_or_not(method, target, method_of):
    one, other = (
        drafts_and_tokens(played(target, method_of.get(method, method), 3, draft_sample_method=way)) for way in ("greedy", "probabilistic")
    )
    assert one == other


@pytest.mark.parametrize("way", ["greedy", "probabilistic"])
@pytest.mark.parametrize("method", ["eagle", "draft:skip:2", "draft:other"])
def test_drafts_end_where_it_is_too_unlikely_that_all_are_right(method, way, target, method_of, reference, stop_token):
    """The higher the threshold, the fewer; the outputs are the same."""
    ways = {"sampled": way == "probabilistic", "stop_token": stop_token, "draft_sample_method": way}
    lengths = []
    for least in (0.0, 0.003, 0.1, 0.999):
        engine = played(target, method_of.get(method, method), 4, min_draft_probability=least, **ways)
        assert outputs(engine) == reference[ways["sampled"]]
        assert not problems(engine)
        lengths.append(sum(spec.proposed for spec in rounds(engine)) / max(1, len(engine.trace.records)))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[1] > 0


def test_the_chance_of_a_draft_is_the_models_own_probability(target, folder, method_of):
    scores_after, least = naive_scores(transformers_model(folder)), 0.0005
    engine = one_after_the_other(target, method_of["draft:itself"], PROMPTS[0][:9], PROMPTS[2][:7], min_draft_probability=least)

    def likely(known, count):
        drafts, chance = [], 1.0
        while len(drafts) < count:
            scores = scores_after([*known, *drafts])
            chance *= float(scores.softmax(-1).max())
            if chance < least:
                break
            drafts.append(int(scores.argmax()))
        return drafts

    known = {name: list(request.prompt_token_ids) for name, request in engine.trace.requests.items()}
    ends = {name: len(token_ids) + 14 for name, token_ids in known.items()}
    lengths = set()
    for record in engine.trace.records:
        proposed = {each.request_id: list(each.token_ids) for each in record.proposed}
        for sampled in record.sampled:
            name = sampled.request_id
            known[name] += sampled.token_ids
            drafts = proposed.get(name, [])
            assert drafts == likely(known[name], min(3, ends[name] - len(known[name]) - 1))
            lengths.add(len(drafts))
    assert len(lengths) > 1


def test_a_target_given_by_name_as_its_own_draft_model_is_not_loaded_twice(target, method_of):
    assert make_drafter(method_of["draft:itself"], target).model is target


def test_synthetic_drafts_are_right_at_their_rate(target):
    assert acceptance(played(target, "synthetic:1", 3, ends=False)) == 1
    assert acceptance(played(target, "synthetic:0", 3, ends=False)) == 0


def test_the_more_bits_the_better_the_drafts(target):
    found = [acceptance(played(target, method, 3, ends=False)) for method in ("draft:skip:1", "draft:int4", "draft:int8")]
    assert found == sorted(found)
    assert found[-1] > 0.75


# -- going back --------------------------------------------------------------------------------------------------------------


def drafts_and_tokens(engine: Engine):
    return [(record.step, record.proposed, record.sampled, record.scheduled) for record in engine.trace.records]


@pytest.mark.parametrize("budget", [1 << 28, 0], ids=["blocks put back", "computed again"])
@pytest.mark.parametrize("method", ["suffix", "synthetic:0.6", "eagle", "draft:skip:1", "draft:int4", "draft:other"])
def test_drafts_after_going_back_are_those_of_an_undisturbed_run(method, budget, target, method_of):
    described = method_of.get(method, method)
    straight = drafts_and_tokens(played(target, described, 3, sampled=True))
    engine = engine_of(target, described, 3, sampled=True, undo_memory_bytes=budget)
    for _ in range(14):
        engine.step()
    twin = engine.fork(9)
    engine.rewind(6)
    for _ in range(5):
        engine.step()
    again = Engine.from_trace(engine.trace, target)
    for each in (twin, engine, again):
        assert drafts_and_tokens(to_the_end(each)) == straight


# -- times -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ngram:1-3", "eagle", "draft:skip:1", "draft:other"])
def test_rounds_share_the_time_of_drafting_and_of_verifying(method, target, method_of):
    engine = played(target, method_of.get(method, method), 3, num_blocks=200)
    records = engine.trace.records
    for before, record in pairwise(records):
        timing, shares = record.timing, record.spec
        assert sum(spec.verify_ms for spec in shares) <= (timing.prepare_ms + timing.forward_ms + timing.sample_ms) * (1 + 1e-9)
        assert all(spec.verify_ms > 0 and spec.draft_ms > 0 for spec in shares)
        assert bool(before.proposed) <= (before.timing.draft_ms > 0)
        assert sum(spec.draft_ms for spec in shares) == pytest.approx(before.timing.draft_ms if shares else 0)


def test_without_drafts_no_time_goes_into_them(target):
    assert {record.timing.draft_ms for record in played(target, None).trace.records} == {0}


# -- rounding ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "inputs"), [(8, 96), (4, 96), (4, 72)])
def test_rounding_errs_by_half_a_step_at_most(bits, inputs):
    weight = torch.randn(48, inputs, generator=torch.Generator().manual_seed(1))
    kept = KINDS[bits].of(weight)
    scale = kept.scale.float().repeat_interleave(inputs if bits == 8 else GROUP, -1).view(48, -1)[:, :inputs]
    # Scales and middles are kept in bf16: the ends of a range may lie a little outside of what they reach.
    slack = weight.abs().amax() * 2**-8
    assert bool(((kept.values() - weight).abs() <= scale / 2 + slack).all())
    assert KINDS[bits].of(torch.zeros(16, inputs)).values().abs().amax() < 1e-6


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("has_bias", [False, True])
def test_kernels_for_rounded_weights_give_what_the_widened_weights_give(bits, has_bias):
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(32, 64, generator=generator), torch.randn(16, 64, generator=generator)]
    bias, inputs = torch.randn(48, generator=generator) if has_bias else None, torch.randn(5, 64, generator=generator)
    if not has_kernels(torch.cat(weights)):
        pytest.skip("torch has no vector code for rounded weights on this machine")
    torchs_own = ExecutionPath(TorchKernels(torch.float32, torch.device("cpu")), plain, torch.float32, torch.float32, "torch")
    found = rounded(bits, torchs_own)(weights, bias)(inputs)
    expected = plain([KINDS[bits].of(torch.cat(weights)).values()], bias)(inputs)
    assert not torch.equal(found, expected)  # another way of computing it
    assert found.dtype == torch.float32
    assert tiny_models.relative_error(found, expected) < 2e-2


def wide_target(tmp_path, monkeypatch):
    """A target that runs on compiled kernels."""
    wide_heads = {"tie_word_embeddings": True, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    monkeypatch.setitem(tiny_models.VARIANTS, "tied wide heads", ("llama", wide_heads))
    folder = tiny_models.save("tied wide heads", tmp_path)
    write_tokenizer(folder)
    target = load_folder(folder, dtype="bfloat16", device="cpu")
    if not isinstance(target.path.kernels, NativeKernels):
        pytest.skip("no C compiler here")
    return target


@pytest.mark.parametrize("least", [0.0, 0.02])
@pytest.mark.parametrize("way", ["greedy", "probabilistic"])
@pytest.mark.parametrize(("drafts", "block_size", "num_blocks"), [(1, 4, 40), (4, 4, 40), (6, 16, 12), (3, 1, 60), (5, 4, 16)])
def test_drafting_in_one_compiled_call_is_what_its_operations_give_one_by_one(
    drafts, block_size, num_blocks, way, least, tmp_path, monkeypatch
):
    target = wide_target(tmp_path, monkeypatch)
    method = f"eagle:{write_head(tmp_path / 'wide.eagle.safetensors', target)}"
    proposed = []
    for in_one_call in (True, False):
        ways = {"sampled": way == "probabilistic", "draft_sample_method": way, "min_draft_probability": least}
        engine = engine_of(target, method, drafts, block_size=block_size, num_blocks=num_blocks, **ways)
        assert engine.runner.drafter.compiled is not None
        if not in_one_call:
            engine.runner.drafter.compiled = None
        proposed.append([record.proposed for record in to_the_end(engine).trace.records])
        assert not any(record.draft_problem for record in engine.trace.records)
    assert proposed[0] == proposed[1]
    if least:
        return
    assert max(len(one.token_ids) for some in proposed[0] for one in some) == drafts
    assert drafts == 1 or {len(one.token_ids) for some in proposed[0] for one in some} >= {1, drafts}  # rows of unlike lengths


@pytest.mark.parametrize("rank", [8, 64])
def test_projections_for_screening_change_no_draft_of_a_small_vocabulary(rank, tmp_path, monkeypatch):
    """Up to 4,096 ids all are scored exactly, however rough the screen."""
    target = wide_target(tmp_path, monkeypatch)
    head = write_head(tmp_path / "wide.eagle.safetensors", target)
    with safe_open(head, "pt") as file:
        facts = file.metadata()
    screen = {name: torch.randn(rank, 64) for name in ("screen.hidden", "screen.rows")}
    save_file(load_file(head) | screen, tmp_path / "screened.safetensors", facts)
    drafts = [
        [record.proposed for record in to_the_end(engine_of(target, f"eagle:{tmp_path / name}", 4)).trace.records]
        for name in ("wide.eagle.safetensors", "screened.safetensors")
    ]
    assert drafts[0] == drafts[1]
    assert any(drafts[0])


def test_a_head_in_int8_is_read_as_the_values_that_it_stands_for(head, target, tmp_path):
    tensors = load_file(head)
    kept = {name: Int8.of(tensors[name]) for name in ("fc", "qkv", "output", "gate_up", "down")}
    scales = {f"{name}.scale": matrix.scale for name, matrix in kept.items()}
    with safe_open(head, "pt") as file:
        facts = file.metadata()
    save_file(tensors | {name: matrix.q for name, matrix in kept.items()} | scales, tmp_path / "int8", facts | {"version": "2"})
    save_file(tensors | {name: matrix.values() for name, matrix in kept.items()}, tmp_path / "float", facts)
    rounded, widened = load_head(tmp_path / "int8", target), load_head(tmp_path / "float", target)
    hidden = target.config.hidden_size
    for name, width in {"fc": len(TAPS) * hidden, "qkv": 2 * hidden, "output": hidden, "gate_up": hidden, "down": 40}.items():
        assert torch.equal(getattr(rounded, name)(torch.eye(width)), getattr(widened, name)(torch.eye(width)))


def test_rounding_leaves_the_target_as_it_is_and_shares_what_it_does_not_round(target):
    before = [weight.clone() for weight in (target.architecture.embedding, target.architecture.norm)]
    copy = make_drafter("draft:int4", target).copy
    assert copy.head is target.architecture.head
    assert copy.embedding is target.architecture.embedding
    assert copy.layers[1].input_norm is target.architecture.layers[1].input_norm
    assert all(map(torch.equal, before, (target.architecture.embedding, target.architecture.norm)))


# -- what does not go together -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("draft", "write draft:int8, draft:int4, draft:skip:N or draft:MODEL"),
        ("draft:", "write draft:int8, draft:int4, draft:skip:N or draft:MODEL"),
        ("eagle:", "write eagle or eagle:PATH"),
        ("draft:int3", "write draft:int8, draft:int4, draft:skip:N or draft:MODEL"),
        ("draft:skip", "write draft:int8, draft:int4, draft:skip:N or draft:MODEL"),
        ("draft:skip:-1", "write draft:int8, draft:int4, draft:skip:N or draft:MODEL"),
        ("draft:skip:0", "has 3: keep 1 to 2"),
        ("draft:skip:3", "has 3: keep 1 to 2"),
        ("draft:nosuchmodel", "unknown model 'nosuchmodel'"),
        ("draft:./no/such/folder", "there is no file or folder"),
        ("eagle", "no EAGLE head for smollm2-tied comes with the package"),
        ("eagle:no-such-file", "there is no EAGLE head 'no-such-file'"),
    ],
)
def test_a_method_that_cannot_be_is_refused_in_one_line(method, words, target):
    with pytest.raises(ConfigError) as refused:
        make_drafter(method, target)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_head_for_other_weights_is_refused(tmp_path, target):
    file = write_head(tmp_path / "foreign.safetensors", target, target_fingerprint="0123456789abcdef", target_name="another-model")
    with pytest.raises(ConfigError, match=r"trained for another-model \(weights 0123456789abcdef\), but smollm2-tied has weights"):
        make_drafter(f"eagle:{file}", target)


def without(tensors, facts, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}, {key: fact for key, fact in facts.items() if key != name}


DAMAGE = {
    "no down": (lambda tensors, facts: without(tensors, facts, "down"), "damaged EAGLE head"),
    "no draft_ids": (lambda tensors, facts: without(tensors, facts, "draft_ids"), "damaged EAGLE head"),
    "no taps": (lambda tensors, facts: without(tensors, facts, "taps"), "damaged EAGLE head"),
    "no fc": (lambda tensors, facts: without(tensors, facts, "fc"), "fc should have the shape"),
    "taps in words": (lambda tensors, facts: (tensors, facts | {"taps": "0,one"}), "damaged EAGLE head"),
    "a layer too far": (lambda tensors, facts: (tensors, facts | {"taps": "1,3"}), "reads layer 3 of smollm2-tied, which has 3 (0 to 2)"),
    "a layer before": (lambda tensors, facts: (tensors, facts | {"taps": "-1,2"}), "reads layer -1 of smollm2-tied"),
    "unknown ids": (lambda tensors, facts: (tensors | {"draft_ids": tensors["draft_ids"] + 3}, facts), "damaged EAGLE head"),
    "negative ids": (lambda tensors, facts: (tensors | {"draft_ids": tensors["draft_ids"] - 1}, facts), "damaged EAGLE head"),
    "ids in a square": (lambda tensors, facts: (tensors | {"draft_ids": tensors["draft_ids"][:, None]}, facts), "damaged EAGLE head"),
    "a flat down": (lambda tensors, facts: (tensors | {"down": tensors["down"][0]}, facts), "damaged EAGLE head"),
    "a flat screen": (
        lambda tensors, facts: (tensors | {f"screen.{name}": torch.zeros(5) for name in ("hidden", "rows")}, facts),
        "screen.hidden should have the shape",
    ),
    "half a screen": (
        lambda tensors, facts: (tensors | {"screen.hidden": torch.zeros(4, tensors["fc"].shape[0])}, facts),
        "screen.rows should have the shape",
    ),
    "another format": (lambda tensors, facts: (tensors, facts | {"format": "other"}), "is no EAGLE head of format"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_head_is_refused_in_one_line(damage, tmp_path, target, head):
    with safe_open(head, framework="pt") as file:
        tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)
    broken, (change, words) = tmp_path / "broken.safetensors", DAMAGE[damage]
    tensors, facts = change(tensors, facts)
    save_file(tensors, broken, facts)
    refused_with_a_remedy(f"eagle:{broken}", target, words, "take another file, or speculate with ngram or suffix")


def refused_with_a_remedy(method, target, *words):
    with pytest.raises(ModelIntegrityError) as refused:
        make_drafter(method, target)
    assert all(each in str(refused.value) for each in words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "cut short"])
def test_a_file_that_is_no_safetensors_file_is_refused_as_head_and_as_draft_model(content, tmp_path, target, head, other):
    file, folder = tmp_path / "broken.safetensors", copied(other, f"broken-{content!r:.5}")
    file.write_bytes(head.read_bytes()[:5000] if content is None else content)
    refused_with_a_remedy(f"eagle:{file}", target, "broken.safetensors is no readable safetensors file", "take another file")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000] if content is None else content)
    refused_with_a_remedy(f"draft:{folder}", target, f"speculative='draft:{folder}' cannot draft", "or take another draft model")


def test_a_draft_model_with_another_tokenizer_is_refused(other, target):
    shifted = copied(other, "shifted")
    write_tokenizer(shifted, first=34)
    with pytest.raises(ConfigError, match=r"shifted cannot draft for smollm2-tied: their tokenizers differ \(token 0 is"):
        make_drafter(f"draft:{shifted}", target)


def test_a_draft_model_whose_tokenizer_splits_otherwise_is_refused(other, target):
    words = copied(other, "words")
    settings = json.loads((words / "tokenizer.json").read_text())
    settings["pre_tokenizer"] = None
    (words / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="a sample text becomes 1 tokens"):
        make_drafter(f"draft:{words}", target)


def test_a_draft_model_without_the_tokenizer_is_refused(other, target):
    silent = copied(other, "silent")
    (silent / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json missing"):
        make_drafter(f"draft:{silent}", target)


def test_a_draft_model_with_another_number_of_tokens_is_refused(folder, target):
    larger = copied(folder, "larger")
    weights = load_file(larger / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file(weights | {name: torch.cat([weights[name], weights[name][:3]])}, larger / "model.safetensors", {"format": "pt"})
    change_config(larger, vocab_size=VOCAB + 3)
    with pytest.raises(ConfigError, match="it knows 104 tokens, the target 101"):
        make_drafter(f"draft:{larger}", target)


def test_a_draft_model_that_reads_less_is_refused(other, target):
    short = copied(other, "short")
    change_config(short, max_position_embeddings=128)
    with pytest.raises(ConfigError, match="it reads at most 128 tokens, and requests may have 256: choose"):
        make_drafter(f"draft:{short}", target)
    assert make_drafter(f"draft:{short}", target, max_model_len=128).model.name == "short"


def test_memory_of_drafts_comes_out_of_the_same_budget(target, other, head):
    layer_bytes = 16 * target.facts.kv_bytes_per_token // target.config.num_layers  # of one block
    for method, own in ((f"draft:{other}", 2), (f"eagle:{head}", 1), ("draft:int8", 0)):
        engine = Engine(target, speculative=method, kv_cache_memory_bytes=1 << 20)
        assert engine.scheduler.kv.pool.num_blocks == (1 << 20) // (layer_bytes * (target.config.num_layers + own))
        held = sum(layer.nbytes for layer in (*engine.runner.kv, *engine.runner.drafter.kv))
        assert held == engine.runner.block_bytes * (engine.scheduler.kv.pool.num_blocks + 1)


SHARED = ("ngram:1-3", "suffix", "synthetic:0.6", "draft:skip:1", "draft:itself")
PROJECTIONS = 3 * (72 * 72 * 2 + 72 * 24 * 2 + 3 * 72 * 72)  # numbers in those of the target


@pytest.mark.parametrize("method", SHARED)
def test_a_drafter_made_of_the_targets_own_weights_takes_no_memory_for_them(method, target, method_of):
    assert weight_bytes_of(make_drafter(method_of.get(method, method), target), target) == 0


def test_what_only_drafts_need_is_counted_to_the_last_tensor(target, other, head, method_of):
    """A model may keep its LM head a second time, laid out otherwise, and rounded weights may be widened again: hence two bounds."""
    with safe_open(head, framework="pt") as file:
        in_file = sum(file.get_tensor(name).numel() for name in file.keys() if name != "draft_ids")  # noqa: SIM118 (not a dict)
    in_model = sum(weight.numel() for weight in load_file(other / "model.safetensors").values())
    least = {"eagle": 4 * (in_file + 51 * 72), "draft:other": 4 * in_model, "draft:int8": PROJECTIONS, "draft:int4": PROJECTIONS // 2}
    most = {"eagle": 1.1, "draft:other": 2.0, "draft:int8": 4.2, "draft:int4": 8.4}
    for method, size in least.items():
        found = weight_bytes_of(make_drafter(method_of.get(method, method), target), target)
        assert size <= found <= most[method] * size, method


@pytest.mark.parametrize("method", ["eagle", "draft:other", "draft:int8", "draft:int4"])
def test_the_weights_of_drafts_leave_less_memory_for_blocks(method, target, method_of, monkeypatch):
    method = method_of.get(method, method)
    drafter = make_drafter(method, target)
    block_bytes = BLOCK * (target.facts.kv_bytes_per_token + drafter.kv_bytes_per_token)
    weights = target.facts.weight_bytes + weight_bytes_of(drafter, target)

    def blocks(memory_bytes, **knobs):
        monkeypatch.setattr("workbench.assembly.memory_limit_bytes", lambda: memory_bytes)
        return Engine(target, speculative=method, block_size=BLOCK, **knobs).scheduler.kv.pool.num_blocks

    assert blocks(weights + 3 * block_bytes) == blocks(weights + 3 * block_bytes, num_blocks=3) == 3
    assert blocks(weights + 3 * block_bytes - 1) == 2
    with pytest.raises(ConfigError, match=r"3 blocks of 4 tokens take .* for drafts \(speculative=.*\): lower num_blocks to 2 or less"):
        blocks(weights + 3 * block_bytes - 1, num_blocks=3)
    with pytest.raises(ConfigError, match=rf"lower kv_cache_memory_bytes to {3 * block_bytes - 1:,} or less"):
        blocks(weights + 3 * block_bytes - 1, kv_cache_memory_bytes=3 * block_bytes)
    with pytest.raises(ConfigError, match=r"memory holds not one block of 4 tokens .* choose other drafts, such as ngram, or a smaller"):
        blocks(weights + block_bytes - 1)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_draft_model_may_run_its_own_code_only_where_models_may(trusted, target, other, monkeypatch):
    asked = {}

    def resolve(name, *, trust_remote_code=False):
        asked["resolve"] = name, trust_remote_code
        return other

    def load_model(name, *, trust_remote_code=False, **ways):
        asked["load_model"] = name, trust_remote_code
        return load_folder(other, dtype="float32", device="cpu")

    monkeypatch.setattr("workbench.runners.drafters.model.resolve", resolve)
    monkeypatch.setattr("workbench.runners.drafters.model.load_model", load_model)
    engine = Engine(target, speculative="draft:owner/name", trust_remote_code=trusted, num_blocks=8)
    assert engine.runner.drafter.model.name == "other"
    assert asked == {"resolve": ("owner/name", trusted), "load_model": ("owner/name", trusted)}
