"""The compiled kernels against plain torch, and against the portable path on whole models."""

from __future__ import annotations

import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from training.screen import projections
from workbench.models import native
from workbench.models.batch import flatten
from workbench.models.kernels import TorchKernels
from workbench.models.linear import widened
from workbench.models.loading import load_folder
from workbench.models.native_draft import NativeVocabulary
from workbench.models.paths import Path as ExecutionPath
from workbench.models.quantised import Int8
from workbench.randomness import uniform
from workbench.request import SamplingParams
from workbench.sampler import GREEDY, Draw, chances_of, drawn

LIBRARY = native.library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C compiler with OpenMP here")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("rows", [*range(1, 14), 31, 100])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (1, 8), (103, 77), (960, 576)])
def test_projection_equals_torch_for_any_shape(rows: int, outputs: int, inputs: int) -> None:
    assert LIBRARY is not None
    torch.manual_seed(rows)
    weight, bias, x = torch.randn(outputs, inputs).bfloat16(), torch.randn(outputs), torch.randn(rows, inputs)
    ours = native.NativeKernels(LIBRARY).make_linear(weight.split((outputs + 1) // 2), bias)(x)
    assert tiny.relative_error(ours, F.linear(x.double(), weight.double(), bias.double())) <= 1e-5


@pytest.mark.parametrize("rows", [*range(1, 14), 31])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (1, 8), (103, 77), (960, 576)])
def test_projection_with_int8_weights_equals_torch_for_any_shape(rows: int, outputs: int, inputs: int) -> None:
    assert LIBRARY is not None
    torch.manual_seed(rows)
    q, scale = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8), torch.rand(outputs).bfloat16()
    bias, x = torch.randn(outputs), torch.randn(rows, inputs)
    ours = native.NativeKernels(LIBRARY).make_int8_linear(q, scale, bias)(x)
    assert tiny.relative_error(ours, F.linear(x.double(), q.double() * scale.double()[:, None], bias.double())) <= 1e-5


def vocabulary_of(embedding: Tensor, ids: Tensor, screen: tuple[Tensor, Tensor] | None = None) -> NativeVocabulary:
    assert LIBRARY is not None
    kernels = native.NativeKernels(LIBRARY)
    rows = embedding[ids].float() if screen is None else embedding[ids].float() @ screen[1].T
    project = None if screen is None else kernels.make_linear([screen[0].bfloat16()], None)
    return NativeVocabulary(kernels, project, kernels.make_int8_linear(*Int8.of(rows), None), embedding, ids)


@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize(("num_ids", "size"), [(1, 16), (31, 16), (4096, 32), (4097, 32), (9001, 64)])
def test_the_likeliest_id_is_that_of_the_largest_exact_score(num_ids: int, size: int, rows: int) -> None:
    """Rough scores of int8 rows differ from exact ones by a hundredth, so that the best is always among the 128 roughly best groups."""
    torch.manual_seed(num_ids)
    embedding, ids = torch.randn(2 * num_ids, size).bfloat16(), torch.arange(0, 2 * num_ids, 2)
    hidden = torch.randn(rows, size)
    exact = hidden.double() @ embedding[ids].double().T
    assert vocabulary_of(embedding, ids).choose(hidden).ids == ids[exact.argmax(1)].tolist()


def test_the_likeliest_id_is_found_by_projections_that_keep_what_counts() -> None:
    torch.manual_seed(4)
    spread = torch.tensor([4.0] * 12 + [0.05] * 52)  # states that lie near 12 of 64 directions
    embedding, ids = torch.randn(9000, 64).bfloat16(), torch.arange(9000)
    hidden = torch.randn(500, 64) * spread
    screen = projections((hidden.double().T @ hidden.double()) / len(hidden), embedding.float(), 16)
    exact = hidden.double() @ embedding.double().T
    assert vocabulary_of(embedding, ids, screen).choose(hidden).ids == exact.argmax(1).tolist()


def test_the_likeliest_of_what_is_no_number_is_some_id() -> None:
    embedding, ids = torch.randn(5000, 16).bfloat16(), torch.arange(5000)
    found = vocabulary_of(embedding, ids).choose(torch.tensor([[float("nan")] * 16, [0.0] * 16, [float("inf")] * 16])).ids
    assert len(found) == 3
    assert all(0 <= token < 5000 for token in found)
    assert vocabulary_of(embedding, ids).choose(torch.empty(0, 16)).ids == []


@pytest.mark.parametrize("num_ids", [7, 4096])
@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.3}, {"min_p": 0.1}, {"top_k": 5}, {"top_p": 0.6}, {"top_k": 9, "top_p": 0.8, "min_p": 0.02}], ids=str
)
def test_an_id_is_drawn_as_the_sampler_draws_it(params: dict[str, float], num_ids: int) -> None:
    """All ids are candidates here, so both draw from the same distribution; a greedy row among them takes the likeliest."""
    torch.manual_seed(num_ids)
    embedding, ids, hidden = torch.randn(num_ids, 16).bfloat16(), torch.arange(num_ids), torch.randn(200, 16)
    sampling = SamplingParams(**{"temperature": 1.1, **params})
    draws = [Draw(sampling, uniform(1, row)) if row % 5 else GREEDY for row in range(200)]
    exact = hidden.double() @ embedding.double().T
    found, chances = vocabulary_of(embedding, ids).choose(hidden, draws)
    assert found == drawn(exact, draws)
    assert found[::5] == exact[::5].argmax(1).tolist()
    assert found != exact.argmax(1).tolist()
    assert chances == pytest.approx(chances_of(exact, torch.tensor(found)), rel=1e-4)


def test_of_many_ids_the_drawn_one_is_nearly_always_the_samplers() -> None:
    """The others are left out of the distribution: here they weigh a hundredth, and what they weigh moves the rest by as much."""
    torch.manual_seed(2)
    embedding, ids, hidden = torch.randn(20000, 64).bfloat16(), torch.arange(20000), torch.randn(300, 64)
    draws = [Draw(SamplingParams(temperature=1.0), uniform(2, row)) for row in range(300)]
    exact = hidden.double() @ embedding.double().T
    found = vocabulary_of(embedding, ids).choose(hidden, draws).ids
    same = sum(one == other for one, other in zip(found, drawn(exact, draws), strict=True))
    assert same > 0.9 * len(draws)


def test_a_draw_from_what_is_no_number_is_some_id() -> None:
    embedding, ids, draw = torch.randn(5000, 16).bfloat16(), torch.arange(5000), Draw(SamplingParams(temperature=1.0, top_p=0.5), 0.999)
    hidden = torch.tensor([[float("nan")] * 16, [0.0] * 16, [float("inf")] * 16, [3e38] * 16])
    assert all(0 <= token < 5000 for token in vocabulary_of(embedding, ids).choose(hidden, [draw] * 4).ids)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 8), (103, 77), (960, 576)])
def test_a_row_gets_the_same_bits_whatever_rows_are_beside_it(kind: str, outputs: int, inputs: int) -> None:
    assert LIBRARY is not None
    torch.manual_seed(1)
    kernels, x = native.NativeKernels(LIBRARY), torch.randn(29, inputs)
    if kind == "bf16":
        linear = kernels.make_linear([torch.randn(outputs, inputs).bfloat16()], torch.randn(outputs))
    else:
        linear = kernels.make_int8_linear(torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8), torch.rand(outputs), None)
    whole = linear(x)
    for first, end in itertools.combinations(range(len(x) + 1), 2):
        assert torch.equal(linear(x[first:end].contiguous()), whole[first:end])


def test_a_token_gets_the_same_logits_alone_in_a_chunk_and_beside_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes verifying drafts, batching and chunked prefill change nothing, not even where two tokens are nearly as likely."""
    monkeypatch.setattr("workbench.models.paths._has_bf16_units", lambda: False)
    loaded = tiny.load("llama-wide-heads", root, dtype="bfloat16")
    ids, others = ([random.Random(seed).randrange(101) for _ in range(40)] for seed in (1, 2))
    alone, beside = tiny.new_cache(loaded, 8, 16), tiny.new_cache(loaded, 8, 16)
    one_by_one = torch.cat([tiny.all_logits(loaded, alone, [tiny.row(ids, at, at + 1, [4, 2, 5])], 16) for at in range(40)])
    parts = []
    for start, end in ((0, 17), (17, 22), (22, 23), (23, 40)):
        rows = [tiny.row(ids, start, end, [4, 2, 5]), tiny.row(others, start, end, [1, 3, 6])]
        parts.append(tiny.all_logits(loaded, beside, rows, 16)[: end - start])
    assert torch.equal(torch.cat(parts), one_by_one)


def test_rms_norm_adds_in_place_and_equals_torch() -> None:
    assert LIBRARY is not None
    hidden, delta, weight = torch.randn(11, 43), torch.randn(11, 43), torch.randn(43)
    expected = hidden + delta
    ours = native.NativeKernels(LIBRARY).add_rms_norm(hidden, delta, weight, 1e-5)
    assert torch.equal(hidden, expected)
    assert tiny.relative_error(ours, F.rms_norm(expected, (43,), weight, 1e-5)) <= 1e-5


def test_silu_equals_torch_from_tiny_to_huge() -> None:
    assert LIBRARY is not None
    gate = torch.cat([torch.linspace(-200, 200, 4000), torch.linspace(-1, 1, 96)]).view(2, -1)
    both = torch.cat([gate, torch.ones_like(gate)], -1)
    assert torch.allclose(native.NativeKernels(LIBRARY).silu_mul(both), F.silu(gate), rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("heads", [(6, 6), (6, 3), (9, 3), (8, 2), (14, 2)])
@pytest.mark.parametrize("block_size", [1, 5, 16])
def test_attention_equals_the_torch_kernels(heads: tuple[int, int], block_size: int, root: Path) -> None:
    """Prefill chunks and decodes with contexts up to 300 tokens in one batch; only rounding of the cached bf16 keys is shared."""
    assert LIBRARY is not None
    (query_heads, kv_heads), dim, dice = heads, 32, random.Random(block_size)
    base = tiny.load("qwen3", root).config
    config = base.__class__(**{
        **{name: getattr(base, name) for name in base.__struct_fields__},
        "num_heads": query_heads, "num_kv_heads": kv_heads, "head_dim": dim, "rope_inv_freq": tuple(0.7**i for i in range(dim // 2)),
    })  # fmt: skip
    spans = [(0, 9), (299, 300), (63, 64), (64, 65), (120, 137), (0, 1)]
    free = dice.sample(range(1, 1000), 999)
    rows = [tiny.row([1] * end, start, end, [free.pop() for _ in range(-(-end // block_size))]) for start, end in spans]
    torch.manual_seed(0)
    kv = torch.randn(2, 1000, block_size, kv_heads, dim).bfloat16()
    qkv = torch.randn(sum(end - start for start, end in spans), (query_heads + 2 * kv_heads) * dim)
    norms = (torch.rand(dim), torch.rand(dim))
    outputs, caches = [], []
    for kernels in (native.NativeKernels(LIBRARY), TorchKernels(torch.float32, torch.device("cpu"))):
        cache = kv.clone()
        outputs.append(kernels.attend(qkv.clone(), norms, True, cache, kernels.prepare(flatten(rows, block_size, [0] * len(rows)), config)))
        caches.append(cache.float())
    assert tiny.relative_error(outputs[0], outputs[1]) <= 2e-3  # one bf16 rounding may fall the other way
    assert tiny.relative_error(caches[0], caches[1]) <= 2**-8
    assert (caches[0] == caches[1]).float().mean() > 0.999


@pytest.mark.parametrize("variant", ["llama-wide-heads", "qwen3-biased"])
def test_whole_model_equals_the_portable_path(variant: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.models.paths._has_bf16_units", lambda: False)  # with them, many rows are rounded to bf16
    ids = [random.Random(index).randrange(101) for index in range(70)]
    fast = tiny.load(variant, root, dtype="bfloat16")
    assert "compiled C" in fast.facts.path
    portable = ExecutionPath(TorchKernels(torch.float32, torch.device("cpu")), widened, torch.bfloat16, torch.float32, "portable")
    monkeypatch.setattr("workbench.models.loading.choose_path", lambda *_: portable)
    slow = load_folder(tiny.save(variant, root), dtype="bfloat16", device="cpu")
    logits = []
    for loaded in (fast, slow):
        kv = tiny.new_cache(loaded, 5, 16)
        chunks = [tiny.row(ids, start, end, [4, 2, 5, 1, 3]) for start, end in ((0, 50), (50, 51), (51, 70))]
        parts = [tiny.all_logits(loaded, kv, [chunk], 16) for chunk in chunks]
        logits.append(torch.cat(parts))
    assert tiny.relative_error(*logits) <= 5e-3


def test_without_a_compiler_the_portable_path_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    loaded = tiny.load("llama-wide-heads", root, dtype="bfloat16")
    assert "compiled C" not in loaded.facts.path
    assert len(tiny.all_logits(loaded, tiny.new_cache(loaded, 1, 16), [tiny.row([1, 2, 3], 0, 3, [1])], 16)) == 3


def test_few_rows_and_many_rows_go_different_ways_to_the_same_result():
    from workbench.models.linear import by_rows, plain, widened

    torch.manual_seed(3)
    weight, bias = torch.randn(40, 32).to(torch.bfloat16), torch.randn(40)
    seen = []

    def watched(make, name):
        def made(weights, bias):
            linear = make(weights, bias)
            return lambda inputs: (seen.append((name, len(inputs), inputs.dtype)), linear(inputs))[1]

        return made

    linear = by_rows(watched(widened, "few"), watched(plain, "many"), border=4)([weight], bias)
    inputs = torch.randn(9, 32)
    expected = inputs @ weight.float().T + bias
    assert torch.allclose(linear(inputs[:4]), expected[:4], atol=1e-4)
    assert torch.allclose(linear(inputs), expected, atol=0.2)
    assert linear(inputs).dtype == torch.float32
    assert [entry[0] for entry in seen] == ["few", "many", "many"]
    assert seen[1][2] == torch.bfloat16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_computes_the_same() -> None:
    """The child has none of the parent's threads and must not wait for them."""
    assert LIBRARY is not None
    linear, x = native.NativeKernels(LIBRARY).make_linear([torch.randn(960, 576).bfloat16()], None), torch.randn(8, 576)
    expected = linear(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(linear(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_threads_of_one_process_may_run_at_once() -> None:
    """Engines in two threads share the pool: one gets it, the other works alone meanwhile."""
    assert LIBRARY is not None
    linear, x = native.NativeKernels(LIBRARY).make_linear([torch.randn(960, 576).bfloat16()], None), torch.randn(7, 576)
    expected = linear(x)
    with ThreadPoolExecutor(4) as workers:
        results = list(workers.map(lambda _: [torch.equal(linear(x), expected) for _ in range(200)], range(4)))
    assert all(all(equal) for equal in results)
