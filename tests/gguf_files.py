"""Small GGUF files for tests, written by the ``gguf`` package from the tiny models, and a wheel to ship one in."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny_models as tiny
import torch

# How llama.cpp names what transformers calls otherwise.
RENAMED = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
REORDERED = ("llama", "mistral", "smollm3")


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """101 tokens, their types and merges: three control tokens, letters and a few words."""
    words = ["th", "the", "Ġthe", "in", "ing"]
    tokens = ["<|unk|>", "<|im_start|>", "<|im_end|>", "Ġ", "Ċ", *"abcdefghijklmnopqrstuvwxyz0123456789.,?!", *words]
    tokens += [f"<extra{number}>" for number in range(101 - len(tokens))]
    types = [3, 3, 3] + [1] * (len(tokens) - 3)
    return tokens, types, ["t h", "th e", "Ġ the", "i n", "in g"]


def gguf_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, *module, kind = name.split(".")
    return f"blk.{layer}.{RENAMED['.'.join(module)]}.{kind}"


def interleave(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k: rows ``i`` and ``i + head_dim/2`` of each head become neighbours."""
    head_dim = rows.shape[0] // num_heads
    order = [head * head_dim + half * head_dim // 2 + pair for head in range(num_heads) for pair in range(head_dim // 2) for half in (0, 1)]
    return rows[order]


def tensors_of(variant: str) -> dict[str, np.ndarray]:
    """The tiny model's weights, rounded to bf16, as a GGUF file stores them."""
    model = tiny.reference(variant)
    config = model.config
    stored = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = value.to(torch.bfloat16).float().numpy()
        if config.model_type in REORDERED and (".q_proj." in name or ".k_proj." in name):
            values = interleave(values, config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads)
        stored[gguf_name(name)] = values
    return stored


def write(
    path: Path, variant: str = "llama", *, architecture: str | None = None, tensors: dict[str, np.ndarray] | None = None, **extra: Any
) -> Path:
    """Write a tiny model; ``extra`` metadata has dots as double underscores, a value of ``None`` leaves a key out."""
    config = tiny.reference(variant).config
    family = architecture or {"mistral": "llama"}.get(config.model_type, config.model_type)
    tokens, types, merges = vocabulary()
    values: dict[str, Any] = {
        "block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
    }  # fmt: skip
    if getattr(config, "head_dim", None):
        values["attention.key_length"] = config.head_dim
    values = {f"{family}.{key}": value for key, value in values.items()}
    values |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.bos_token_id": 1,
               "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 2,
               "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
               "tokenizer.chat_template": TEMPLATE}  # fmt: skip
    values |= {key.replace("__", "."): value for key, value in extra.items()}
    writer = gguf.GGUFWriter(str(path), family)
    for key, value in values.items():
        _add(writer, key, value)
    for name, array in (tensors_of(variant) if tensors is None else tensors).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, member: str, content: bytes, *, others: dict[str, bytes] | None = None) -> Path:
    """A wheel ``tiny-gguf-model 1.0`` that holds ``content`` at ``member``."""
    info = "tiny_gguf_model-1.0.dist-info"
    path = folder / "tiny_gguf_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        for name, data in (others or {}).items():
            archive.writestr(name, data)
        requires = "Requires-Dist: no-such-package-here"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-gguf-model\nVersion: 1.0\n{requires}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)
