"""GGUF files: converted to what they were made from, and refused with one line when something is wrong with them."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import gguf_files as files
import numpy as np
import pytest
import tiny_models as tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import ModelError, ModelIntegrityError, UnsupportedModelError
from workbench.models.convert import convert_gguf
from workbench.models.gguf import GGUFFile
from workbench.models.gguf_config import llama3_factors
from workbench.models.loading import load_folder
from workbench.models.safetensors_file import to_bf16

FAMILIES = ["llama", "llama-one-kv-head-each", "llama-wide-heads", "llama-biased", "smollm2-tied", "smollm3"]
FAMILIES += ["mistral", "qwen2", "qwen2-tied", "qwen3"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return files.write(tmp_path_factory.mktemp("gguf") / "plain.gguf")


def convert(source, folder):
    folder.mkdir()
    convert_gguf(source, folder)
    return folder


def refusal(source, tmp_path, error):
    """The one line with which the file is refused."""
    with pytest.raises(error) as caught:
        convert(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("variant", FAMILIES)
def test_a_converted_file_has_exactly_the_weights_it_was_made_from(variant, tmp_path):
    from safetensors.torch import load_file

    weights = load_file(convert(files.write(tmp_path / "m.gguf", variant), tmp_path / "out") / "model.safetensors")
    for name, value in tiny.reference(variant).state_dict().items():
        if name in weights or name != "lm_head.weight":
            assert torch.equal(weights[name], value.to(torch.bfloat16)), name


@pytest.mark.parametrize("variant", FAMILIES)
def test_transformers_computes_the_same_with_the_converted_folder(variant, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = convert(files.write(tmp_path / "m.gguf", variant), tmp_path / "out")
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        converted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
        original = AutoModelForCausalLM.from_config(tiny.reference(variant).config, dtype=torch.float32).eval()
        original.load_state_dict({name: value.to(torch.bfloat16).float() for name, value in tiny.reference(variant).state_dict().items()})
        assert tiny.relative_error(converted, original(ids).logits) < 1e-5


@pytest.mark.parametrize("variant", ["llama", "qwen2", "qwen3", "smollm3"])
def test_our_forward_pass_loads_the_converted_folder(variant, tmp_path):
    loaded = load_folder(convert(files.write(tmp_path / "m.gguf", variant), tmp_path / "out"), dtype="float32")
    assert loaded.facts.num_parameters > 0


@pytest.mark.parametrize("variant", ["llama", "qwen2", "qwen3"])
def test_weights_equal_those_of_transformers_own_gguf_reader(variant, tmp_path):
    from safetensors.torch import load_file
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    source = files.write(tmp_path / "m.gguf", variant)
    theirs = load_gguf_checkpoint(str(source), return_tensors=True, model_to_load=tiny.reference(variant))["tensors"]
    ours = load_file(convert(source, tmp_path / "out") / "model.safetensors")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name].to(torch.bfloat16)) for name in ours)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1", "Q4_0", "Q5_1", "BF16"])
def test_a_quantised_tensor_is_read_as_the_gguf_package_reads_it(kind, tmp_path):
    import gguf

    values = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    quantised = gguf.quantize(values, gguf.GGMLQuantizationType[kind])
    writer = gguf.GGUFWriter(str(tmp_path / "q.gguf"), "llama")
    writer.add_tensor("t", quantised, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(tmp_path / "q.gguf") as file:
        read = file.tensor("t")
    assert read.shape == values.shape
    assert np.array_equal(read, gguf.dequantize(quantised, gguf.GGMLQuantizationType[kind]))
    assert np.abs(read - values).max() < 0.5


def test_rounding_to_bf16_is_torchs():
    bits = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, np.inf, -np.inf, 1e-45, 3.4e38, 1.00390625, 1.01171875])])
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    ours = torch.from_numpy(to_bf16(values).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(torch.isnan(ours), torch.isnan(theirs))
    assert torch.equal(ours[~torch.isnan(ours)], theirs[~torch.isnan(theirs)])


def test_llama3_rope_factors_become_the_config_they_came_from(tmp_path):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    config = LlamaConfig(head_dim=64, rope_parameters={**scaling, "rope_theta": 500000.0})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    theirs = 1 / (500000.0 ** (torch.arange(0, 64, 2) / 64)) / scaled
    assert np.allclose(llama3_factors(32, 500000.0, scaling), theirs.numpy(), rtol=1e-5)

    tensors = files.tensors_of("llama")
    factors = np.array(llama3_factors(4, 500000.0, scaling), dtype=np.float32)
    source = files.write(tmp_path / "m.gguf", tensors=tensors | {"rope_freqs.weight": factors}, llama__rope__freq_base=500000.0)
    config_json = json.loads((convert(source, tmp_path / "out") / "config.json").read_text())
    assert config_json["rope_scaling"] == scaling


def test_unknown_rope_factors_are_refused(tmp_path):
    tensors = files.tensors_of("llama") | {"rope_freqs.weight": np.float32([1, 2, 3, 4])}
    assert "rotary" in refusal(files.write(tmp_path / "m.gguf", tensors=tensors), tmp_path, UnsupportedModelError)


def test_yarn_scaling_is_carried_over(tmp_path):
    source = files.write(
        tmp_path / "m.gguf", "qwen2", qwen2__rope__scaling__type="yarn", qwen2__rope__scaling__factor=4.0,
        qwen2__rope__scaling__original_context_length=64,
    )  # fmt: skip
    config = json.loads((convert(source, tmp_path / "out") / "config.json").read_text())
    assert config["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def test_decimal_settings_lose_their_float32_noise(tmp_path):
    config = json.loads((convert(files.write(tmp_path / "m.gguf"), tmp_path / "out") / "config.json").read_text())
    assert config["rms_norm_eps"] == tiny.reference("llama").config.rms_norm_eps


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "not a GGUF file" in refusal(tmp_path / "x.gguf", tmp_path, ModelIntegrityError)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"")
    assert "0 bytes" in refusal(tmp_path / "x.gguf", tmp_path, ModelIntegrityError)


def test_another_version_is_refused_by_its_number(plain, tmp_path):
    data = plain.read_bytes()
    (tmp_path / "x.gguf").write_bytes(data[:4] + struct.pack("<I", 9) + data[8:])
    assert "version 9" in refusal(tmp_path / "x.gguf", tmp_path, UnsupportedModelError)


def test_a_big_endian_file_is_refused_as_such(plain, tmp_path):
    data = plain.read_bytes()
    (tmp_path / "x.gguf").write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])
    assert "big-endian" in refusal(tmp_path / "x.gguf", tmp_path, UnsupportedModelError)


def test_truncated_weights_are_refused_with_both_sizes(plain, tmp_path):
    data = plain.read_bytes()
    (tmp_path / "x.gguf").write_bytes(data[:-1000])
    message = refusal(tmp_path / "x.gguf", tmp_path, ModelIntegrityError)
    assert "truncated" in message
    assert f"{len(data) - 1000:,}" in message


def test_a_header_cut_anywhere_is_refused(plain, tmp_path):
    data, source = plain.read_bytes(), tmp_path / "x.gguf"
    with GGUFFile(plain) as file:
        header_end = min(info.offset for info in file.tensors.values())
    for cut in {*range(1, 200), *range(200, header_end, 37)}:
        source.write_bytes(data[:cut])
        with pytest.raises(ModelIntegrityError):
            GGUFFile(source)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_in_the_header_is_refused_or_harmless_but_never_a_traceback(plain, tmp_path_factory, data):
    content = bytearray(plain.read_bytes())
    with GGUFFile(plain) as file:
        header_end = min(info.offset for info in file.tensors.values())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header_end - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "x.gguf").write_bytes(content)
    with suppress(ModelError):
        convert(folder / "x.gguf", folder / "out")


def test_a_foreign_architecture_is_refused_by_name(tmp_path):
    message = refusal(files.write(tmp_path / "m.gguf", architecture="mamba"), tmp_path, UnsupportedModelError)
    assert "'mamba'" in message
    assert "llama" in message


def test_a_mixture_of_experts_is_refused(tmp_path):
    assert "8 experts" in refusal(files.write(tmp_path / "m.gguf", llama__expert_count=8), tmp_path, UnsupportedModelError)


WRONG_KINDS = {
    "tokenizer__ggml__eos_token_id": "two",
    "tokenizer__ggml__tokens": "text",
    "tokenizer__ggml__merges": [1, 2],
    "llama__block_count": "three",
    "llama__rope__freq_base": "x",
    "llama__attention__head_count_kv": 4,
}


@pytest.mark.parametrize("key", WRONG_KINDS)
def test_a_value_of_the_wrong_kind_is_refused(tmp_path, key):
    refusal(files.write(tmp_path / "m.gguf", **{key: WRONG_KINDS[key]}), tmp_path, ModelIntegrityError)


def test_values_that_differ_by_layer_are_refused(tmp_path):
    source = files.write(tmp_path / "m.gguf", llama__attention__head_count_kv=[2, 2, 1])
    assert "layer by layer" in refusal(source, tmp_path, UnsupportedModelError)


def test_a_missing_tensor_is_named(tmp_path):
    tensors = files.tensors_of("llama")
    del tensors["blk.1.ffn_up.weight"]
    assert "'blk.1.ffn_up.weight'" in refusal(files.write(tmp_path / "m.gguf", tensors=tensors), tmp_path, ModelIntegrityError)


def test_a_missing_embedding_is_named(tmp_path):
    tensors = files.tensors_of("llama")
    del tensors["token_embd.weight"]
    assert "token_embd.weight" in refusal(files.write(tmp_path / "m.gguf", tensors=tensors), tmp_path, ModelIntegrityError)


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path):
    tensors = files.tensors_of("llama")
    tensors["blk.0.attn_k.weight"] = tensors["blk.0.attn_k.weight"][:8]
    message = refusal(files.write(tmp_path / "m.gguf", tensors=tensors), tmp_path, ModelIntegrityError)
    assert "(8, 48)" in message
    assert "(16, 48)" in message


def test_a_tensor_that_would_be_ignored_is_refused(tmp_path):
    tensors = files.tensors_of("llama") | {"blk.0.attn_sinks.weight": np.zeros(4, np.float32)}
    assert "'blk.0.attn_sinks.weight'" in refusal(files.write(tmp_path / "m.gguf", tensors=tensors), tmp_path, UnsupportedModelError)


def test_an_unknown_pre_tokenizer_is_refused_by_name(tmp_path):
    message = refusal(files.write(tmp_path / "m.gguf", tokenizer__ggml__pre="martian"), tmp_path, UnsupportedModelError)
    assert "'martian'" in message
    assert "smollm" in message


def test_an_unknown_kind_of_tokenizer_is_refused_by_name(tmp_path):
    assert "'t5'" in refusal(files.write(tmp_path / "m.gguf", tokenizer__ggml__model="t5"), tmp_path, UnsupportedModelError)


def test_a_special_id_outside_the_vocabulary_is_refused(tmp_path):
    message = refusal(files.write(tmp_path / "m.gguf", tokenizer__ggml__eos_token_id=5000), tmp_path, ModelIntegrityError)
    assert "5000" in message


def test_more_tokens_than_embeddings_are_refused(tmp_path):
    tensors = files.tensors_of("llama")
    tensors["token_embd.weight"] = tensors["token_embd.weight"][:50]
    assert "tokens" in refusal(files.write(tmp_path / "m.gguf", tensors=tensors), tmp_path, ModelIntegrityError)


def test_progress_counts_every_tensor(plain, tmp_path):
    seen = []
    (tmp_path / "out").mkdir()
    convert_gguf(plain, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]
