"""Our forward pass against transformers, on a tiny random model of each family."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import pytest
import tiny_models as tiny
import torch

from workbench.errors import ConfigError, ModelIntegrityError, UnsupportedModelError
from workbench.models.config import read_config
from workbench.models.loading import load_folder

TOLERANCE = 1e-4
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def tokens(count: int, seed: int = 0) -> list[int]:
    return [random.Random(seed * 1000 + index).randrange(101) for index in range(count)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_logits_equal_transformers_in_one_chunk(variant: str, device: str, root: Path) -> None:
    loaded, ids = tiny.load(variant, root, device=device), tokens(60)
    ours = tiny.all_logits(loaded, tiny.new_cache(loaded, 4, 16), [tiny.row(ids, 0, 60, [2, 4, 1, 3])], 16)
    assert tiny.relative_error(ours, tiny.reference_logits(variant, ids)) <= TOLERANCE


@pytest.mark.parametrize("block_size", [1, 3, 4, 16, 64])
@pytest.mark.parametrize("chunks", [(1,) * 40, (39, 1), (7, 1, 1, 20, 11), (16, 16, 8)])
@pytest.mark.parametrize("device", DEVICES)
def test_logits_do_not_depend_on_chunks_or_block_size(device: str, chunks: tuple[int, ...], block_size: int, root: Path) -> None:
    loaded, ids = tiny.load("llama-wide-heads", root, device=device), tokens(40)
    num_blocks = -(-40 // block_size)
    kv = tiny.new_cache(loaded, num_blocks, block_size)
    blocks = random.Random(block_size).sample(range(1, num_blocks + 1), num_blocks)
    pieces, start = [], 0
    for size in chunks:
        pieces.append(tiny.all_logits(loaded, kv, [tiny.row(ids, start, start + size, blocks)], block_size))
        start += size
    assert tiny.relative_error(torch.cat(pieces), tiny.reference_logits("llama-wide-heads", ids)) <= TOLERANCE


@pytest.mark.parametrize("variant", ["llama", "qwen3", "smollm3"])
@pytest.mark.parametrize("device", DEVICES)
def test_logits_do_not_depend_on_the_other_rows_of_the_batch(variant: str, device: str, root: Path) -> None:
    """Twelve sequences of different lengths advance by random chunks, several in one pass."""
    loaded, dice, block_size = tiny.load(variant, root, device=device), random.Random(3), 4
    sequences = [tokens(length, seed) for seed, length in enumerate((5, 9, 33, 34, 1, 17, 50, 21, 8, 12, 3, 60))]
    free = random.Random(1).sample(range(1, 101), 100)
    tables = [[free.pop() for _ in range(-(-len(ids) // block_size))] for ids in sequences]
    kv, done, logits = tiny.new_cache(loaded, 100, block_size), [0] * 12, [[] for _ in sequences]
    while any(at < len(ids) for at, ids in zip(done, sequences, strict=True)):
        chosen = [i for i, ids in enumerate(sequences) if done[i] < len(ids) and dice.random() < 0.8]
        ends = [min(len(sequences[i]), done[i] + dice.choice((1, 1, 1, 2, 5, 13))) for i in chosen]
        if not chosen:
            continue
        rows = [tiny.row(sequences[i], done[i], end, tables[i]) for i, end in zip(chosen, ends, strict=True)]
        parts = tiny.all_logits(loaded, kv, rows, block_size).split([row.num_tokens for row in rows])
        for i, end, part in zip(chosen, ends, parts, strict=True):
            logits[i].append(part)
            done[i] = end
    for ids, parts in zip(sequences, logits, strict=True):
        assert tiny.relative_error(torch.cat(parts), tiny.reference_logits(variant, ids)) <= TOLERANCE


def test_recomputing_into_other_blocks_gives_the_same_logits(root: Path) -> None:
    loaded, ids = tiny.load("llama", root), tokens(30)
    kv = tiny.new_cache(loaded, 20, 4)
    tiny.all_logits(loaded, kv, [tiny.row(ids, 0, 29, list(range(1, 9)))], 4)
    stepped = tiny.all_logits(loaded, kv, [tiny.row(ids, 29, 30, list(range(1, 9)))], 4)
    recomputed = tiny.all_logits(loaded, kv, [tiny.row(ids, 0, 30, list(range(20, 12, -1)))], 4)[-1:]
    assert tiny.relative_error(recomputed, stepped) <= 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_errs_no_more_than_transformers_does(dtype: str, device: str, root: Path) -> None:
    """Both are compared with float32; 1.5 times the error of transformers' own half precision is allowed."""
    loaded, ids = tiny.load("llama", root, dtype=dtype, device=device), tokens(40)
    kv = tiny.new_cache(loaded, 10, 4)
    first = tiny.all_logits(loaded, kv, [tiny.row(ids, 0, 33, list(range(1, 11)))], 4)
    second = [tiny.all_logits(loaded, kv, [tiny.row(ids, at, at + 1, list(range(1, 11)))], 4) for at in range(33, 40)]
    exact = tiny.reference_logits("llama", ids)
    with torch.inference_mode():
        halved = copy.deepcopy(tiny.reference("llama")).to(getattr(torch, dtype))(torch.tensor([ids])).logits[0]
    assert tiny.relative_error(torch.cat([first, *second]), exact) <= 1.5 * tiny.relative_error(halved, exact)


@pytest.mark.parametrize("variant", ["llama", "qwen2", "rope-llama3", "smollm3"])
def test_config_is_the_same_whether_or_not_the_file_states_the_defaults(variant: str, root: Path, tmp_path: Path) -> None:
    folder = tiny.save(variant, root)
    raw = json.loads((folder / "config.json").read_text())
    for key in ("head_dim", "attention_bias", "mlp_bias", "use_sliding_window", "sliding_window", "no_rope_layers"):
        raw.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path) == read_config(folder)


def test_config_written_by_transformers_4_reads_the_same(root: Path, tmp_path: Path) -> None:
    folder = tiny.save("rope-llama3", root)
    raw = json.loads((folder / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path) == read_config(folder)


def test_sliding_window_limits_the_context_to_where_it_changes_nothing(root: Path) -> None:
    assert read_config(tiny.save("mistral-windowed", root)).max_positions == 64
    assert read_config(tiny.save("rope-longrope", root)).max_positions == 128


def test_foreign_architecture_is_refused_with_the_supported_list(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}))
    with pytest.raises(UnsupportedModelError, match=r"mamba.*MambaForCausalLM.*Llama.*SmolLM3.*Mistral.*Qwen2.*Qwen3"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"num_key_value_heads": 4}, "6 query heads for 4 KV heads"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}, "RoPE of type 'spiral'"),
    ],
)
def test_unsupported_feature_is_named(changes: dict[str, object], message: str, root: Path, tmp_path: Path) -> None:
    raw = json.loads((tiny.save("llama", root) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, **changes}))
    with pytest.raises(UnsupportedModelError, match=message):
        read_config(tmp_path)


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelIntegrityError, match=r"no config\.json"):
        read_config(tmp_path)


def test_truncated_or_missing_weights_are_refused(root: Path, tmp_path: Path) -> None:
    folder = tiny.save("llama", root)
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(ModelIntegrityError, match=r"no model\.safetensors"):
        load_folder(tmp_path, dtype="float32", device="cpu")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelIntegrityError, match="no readable safetensors"):
        load_folder(tmp_path, dtype="float32", device="cpu")


def test_weights_of_another_shape_are_refused(root: Path, tmp_path: Path) -> None:
    folder = tiny.save("llama", root)
    shutil.copy(folder / "model.safetensors", tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "intermediate_size": 80}))
    with pytest.raises(ModelIntegrityError, match=r"gate_proj.*\(72, 48\).*\(80, 48\)"):
        load_folder(tmp_path, dtype="float32", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_absent_cuda_is_a_clear_error(root: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        tiny.load("llama", root, device="cuda")
