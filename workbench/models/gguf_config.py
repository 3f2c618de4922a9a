"""What a GGUF header says about a model, as a ``config.json`` of Hugging Face layout.

Only the Llama family is known here.  Mistral files call themselves ``llama``; the maths is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workbench.errors import ModelIntegrityError, UnsupportedModelError
from workbench.models.gguf import GGUFFile

# GGUF architecture -> (model_type, class name) of the config that describes the same network.
ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "smollm3": ("smollm3", "SmolLM3ForCausalLM"),
}

# Architectures whose q and k rows the GGUF converter reorders from rotate-half to interleaved rotary pairs.
INTERLEAVED_ROTARY = frozenset({"llama", "smollm3"})

_INTEGERS = (
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "context_length", "expert_count", "rope.scaling.original_context_length",
)  # fmt: skip
_NUMBERS = ("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor")
_REQUIRED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length")
_DEFAULT_ROPE_THETA = 10_000.0


def model_config(file: GGUFFile) -> dict[str, Any]:
    """The config of ``file``'s model; raises :class:`UnsupportedModelError` for what our forward pass does not run."""
    _refuse_foreign(file)
    model_type, class_name = ARCHITECTURES[file.architecture]
    hidden_size, num_heads = file.get("embedding_length"), file.get("attention.head_count")
    config: dict[str, Any] = {
        "architectures": [class_name],
        "model_type": model_type,
        "hidden_size": hidden_size,
        "intermediate_size": file.get("feed_forward_length"),
        "num_hidden_layers": file.get("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": file.get("attention.head_count_kv", num_heads),
        "head_dim": file.get("attention.key_length", hidden_size // num_heads),
        "max_position_embeddings": file.get("context_length"),
        "rms_norm_eps": _clean(file.get("attention.layer_norm_rms_epsilon", 1e-6)),
        "rope_theta": _clean(file.get("rope.freq_base", _DEFAULT_ROPE_THETA)),
        "rope_scaling": _rope_scaling(file),
        "vocab_size": _num_embeddings(file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    if model_type != "qwen2":  # Qwen2 always has q, k and v biases and no switch for them
        config["attention_bias"] = _has_attention_bias(file)
    if model_type == "llama":
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in file.tensors
    return config


def _refuse_foreign(file: GGUFFile) -> None:
    name = file.path.name
    if file.architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        problem = f"{name} holds a model of architecture {file.architecture!r}"
        raise UnsupportedModelError(f"{problem}; supported in GGUF: {known} (Mistral files say llama)")
    if file.get("expert_count"):
        raise UnsupportedModelError(f"{name} is a mixture of {file.get('expert_count')} experts; only dense models are supported")
    by_layer = [key for key in _INTEGERS if isinstance(file.get(key), list)]
    if by_layer:
        raise UnsupportedModelError(f"{name} gives {by_layer[0]} layer by layer; only models with equal layers are supported")
    _check_numbers(file)


def _check_numbers(file: GGUFFile) -> None:
    """Refuse numbers that contradict each other, before anything is computed from them."""
    prefix = file.architecture
    file.check_kinds({f"{prefix}.{key}": ("one", int) for key in _INTEGERS})
    file.check_kinds({f"{prefix}.{key}": ("one", float) for key in _NUMBERS} | {f"{prefix}.rope.scaling.type": ("one", str)})
    for key in _REQUIRED:
        if not file.get(key):
            raise ModelIntegrityError(f"{file.path.name} says {prefix}.{key} is {file.get(key)!r}: the header is damaged or incomplete")
    num_heads = file.get("attention.head_count")
    num_kv_heads = file.get("attention.head_count_kv", num_heads)
    head_dim = file.get("attention.key_length", file.get("embedding_length") // num_heads)
    if not num_kv_heads or num_heads % num_kv_heads or not head_dim or head_dim % 2:
        problem = f"{file.path.name} has {num_heads} heads for {num_kv_heads} KV heads, of {head_dim} values each"
        raise ModelIntegrityError(f"{problem}: the header is damaged")


def _num_embeddings(file: GGUFFile) -> int:
    info = file.tensors.get("token_embd.weight")
    if info is None or len(info.shape) != 2:
        raise ModelIntegrityError(f"{file.path.name} has no token embedding (token_embd.weight): it is not a complete model")
    return info.shape[0]


def _has_attention_bias(file: GGUFFile) -> bool:
    present = [f"blk.0.attn_{part}.bias" in file.tensors for part in ("q", "k", "v", "output")]
    if any(present) and not all(present):
        raise UnsupportedModelError(f"{file.path.name} has attention biases on some projections only; supported are all four, or none")
    return all(present)


def _rope_scaling(file: GGUFFile) -> dict[str, Any] | None:
    if "rope_freqs.weight" in file.tensors:
        return _llama3_scaling(file)
    kind, factor = file.get("rope.scaling.type", "none"), file.get("rope.scaling.factor", 1.0)
    if kind == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": _clean(factor)}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = file.get("rope.scaling.original_context_length", file.get("context_length"))
    elif kind != "linear":
        raise UnsupportedModelError(f"{file.path.name} scales its rotary embedding by {kind!r}; supported in GGUF: linear, yarn, llama3")
    return scaling


def _llama3_scaling(file: GGUFFile) -> dict[str, Any]:
    """Find Llama 3's scaling parameters from the per-frequency factors that GGUF keeps instead of them.

    The published models share the low and high frequency factors 1 and 4 and an original context of 8,192; only
    ``factor`` differs.  The guess is checked by computing the factors again (Llama 3.1's formula).
    """
    stored = [float(value) for value in file.tensor("rope_freqs.weight").reshape(-1)]
    if not stored or not min(stored) > 0 or not math.isfinite(max(stored)):
        raise ModelIntegrityError(f"{file.path.name} has rotary frequency factors that are no positive numbers: the file is damaged")
    guess = {"rope_type": "llama3", "factor": _clean(max(stored)), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    guess["original_max_position_embeddings"] = 8192
    computed = llama3_factors(len(stored), file.get("rope.freq_base", _DEFAULT_ROPE_THETA), guess)
    if not all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(stored, computed, strict=True)):
        problem = f"{file.path.name} has rotary frequency factors that are not Llama 3's"
        raise UnsupportedModelError(f"{problem}: use the model's safetensors instead")
    return guess


def llama3_factors(count: int, theta: float, scaling: dict[str, Any]) -> Sequence[float]:
    """By how much Llama 3's RoPE scaling divides each of ``count`` rotary frequencies."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    factors = []
    for index in range(count):
        wavelength = 2 * math.pi * theta ** (index / count)
        smooth = (context / wavelength - low) / (high - low)
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


def _clean(value: float) -> float:
    """A float32 that stood for a decimal number, as that number: 9.99999974e-06 is 1e-05."""
    return float(f"{value:.7g}")
