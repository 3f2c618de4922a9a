"""``ModelConfig``: what our forward pass needs to know of a model, read from its ``config.json``.

A ``config.json`` that states everything (as those of SmolLM2, Qwen and Mistral do) is read with the standard library alone,
because importing transformers costs seconds.  Where a value is left out, or RoPE is scaled, transformers' own
config classes and RoPE functions answer, so that its defaults and formulas are never guessed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from workbench.errors import ModelIntegrityError, UnsupportedModelError

FAMILIES: dict[str, str] = {
    "llama": "Llama (and SmolLM2)",
    "smollm3": "SmolLM3",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
}

_REQUIRED = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size",
    "vocab_size", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "hidden_act",
)  # fmt: skip

# Keys whose absence does not mean "none" but a default of transformers' config class.
_REQUIRED_OF = {"mistral": ("sliding_window",), "qwen3": ("head_dim",), "smollm3": ("no_rope_layers",)}

# Families whose transformers code reads these switches; the others ignore them.
_ATTENTION_BIAS = ("llama", "smollm3", "qwen3")
_MLP_BIAS = ("llama", "smollm3")

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of one Llama-family model.

    ``rope_inv_freq`` holds ``head_dim / 2`` inverse frequencies (float32 values) and ``rope_scaling`` the factor on cos and sin, both as
    transformers computes them.  ``rope_layers[i]`` says whether layer ``i`` rotates at all (SmolLM3 skips some).
    ``max_positions`` is the longest context in which this forward pass equals the reference: a sliding window, or the point
    where ``longrope`` or ``dynamic`` would change frequencies under keys that are cached already, lowers it.
    """

    family: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    rms_norm_eps: float
    max_positions: int
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    rope_inv_freq: tuple[float, ...]
    rope_scaling: float
    rope_layers: tuple[bool, ...]

    @property
    def architecture(self) -> str:
        """The family's name as people write it."""
        return FAMILIES[self.family].split(" ")[0]

    @property
    def num_parameters(self) -> int:
        """Weights without norms and biases, which do not count beside them."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
        mlp = 3 * self.hidden_size * self.ffn_size
        return self.num_layers * (attention + mlp) + (1 if self.tied_embeddings else 2) * self.vocab_size * self.hidden_size

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token adds to the KV cache, over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim


def read_config(folder: Path, *, trust_remote_code: bool = False) -> ModelConfig:
    """Read ``folder/config.json``.

    Raises :class:`UnsupportedModelError` for an architecture or feature outside the Llama family, and
    :class:`ModelIntegrityError` when the file is missing or is not a config.
    """
    raw = _read_json(folder / "config.json")
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise UnsupportedModelError(
            f"{folder.name} is a {family!r} model ({', '.join(raw.get('architectures') or ['no architecture named'])}); "
            f"supported families: {', '.join(FAMILIES.values())}. Choose a model of one of these"
        )
    if not _is_complete(raw):
        raw = _completed(folder, trust_remote_code)
    return _from_complete(raw, folder)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelIntegrityError(f"{path.parent} has no config.json: give a folder in Hugging Face layout") from None
    except (OSError, ValueError) as error:
        raise ModelIntegrityError(f"{path} cannot be read as JSON ({error}): download the model again") from None
    if not isinstance(raw, dict):
        raise ModelIntegrityError(f"{path} holds no JSON object: download the model again")
    return raw


def _is_complete(raw: dict[str, Any]) -> bool:
    stated = all(raw.get(key) is not None for key in _REQUIRED)
    return stated and all(key in raw for key in _REQUIRED_OF.get(raw["model_type"], ())) and _rope_parameters(raw)["rope_theta"] is not None


def _completed(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """The config with transformers' defaults filled in."""
    from transformers import AutoConfig

    completed: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).to_dict()
    return completed


def _from_complete(raw: dict[str, Any], folder: Path) -> ModelConfig:
    family = raw["model_type"]
    if raw["hidden_act"] != "silu":
        raise UnsupportedModelError(f"{folder.name} uses the activation {raw['hidden_act']!r}; supported: 'silu' (SwiGLU)")
    num_heads, num_kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
    if num_heads % num_kv_heads:
        raise UnsupportedModelError(f"{folder.name} has {num_heads} query heads for {num_kv_heads} KV heads: the first must be a multiple")
    head_dim = raw.get("head_dim") or raw["hidden_size"] // num_heads
    inv_freq, scaling, rope_limit = _rope(raw, head_dim, folder)
    bias = family in _ATTENTION_BIAS and bool(raw.get("attention_bias", False))
    return ModelConfig(
        family=family,
        num_layers=raw["num_hidden_layers"],
        hidden_size=raw["hidden_size"],
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ffn_size=raw["intermediate_size"],
        vocab_size=raw["vocab_size"],
        rms_norm_eps=raw["rms_norm_eps"],
        max_positions=min(rope_limit, _sliding_window(raw) or rope_limit),
        tied_embeddings=bool(raw["tie_word_embeddings"]),
        qkv_bias=bias or family == "qwen2",
        output_bias=bias,
        mlp_bias=family in _MLP_BIAS and bool(raw.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
        rope_inv_freq=inv_freq,
        rope_scaling=scaling,
        rope_layers=tuple(bool(use) for use in raw.get("no_rope_layers") or [1] * raw["num_hidden_layers"]),
    )


def _sliding_window(raw: dict[str, Any]) -> int | None:
    """The window, where some layer uses one; up to its length it changes nothing."""
    window: int | None = raw.get("sliding_window")
    if raw["model_type"] == "mistral":
        return window
    return window if raw.get("use_sliding_window") else None


def _rope_parameters(raw: dict[str, Any]) -> dict[str, Any]:
    """RoPE settings from either layout: ``rope_parameters`` (transformers 5) or ``rope_theta`` + ``rope_scaling``."""
    old = {"rope_theta": raw.get("rope_theta"), **(raw.get("rope_scaling") or {})}
    merged: dict[str, Any] = {**old, **(raw.get("rope_parameters") or {})}
    merged.setdefault("rope_type", merged.get("type", "default"))
    return merged


def _rope(raw: dict[str, Any], head_dim: int, folder: Path) -> tuple[tuple[float, ...], float, int]:
    """Inverse frequencies, the factor on cos and sin, and the longest context for which they hold."""
    import torch

    rope, limit = _rope_parameters(raw), raw["max_position_embeddings"]
    kind = rope["rope_type"]
    if kind not in ROPE_TYPES:
        raise UnsupportedModelError(f"{folder.name} uses RoPE of type {kind!r}; supported: {', '.join(ROPE_TYPES)}")
    if kind == "default":
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
        return tuple((1.0 / rope["rope_theta"] ** exponents).tolist()), 1.0, limit
    if kind == "longrope":
        limit = min(limit, rope.get("original_max_position_embeddings") or raw.get("original_max_position_embeddings") or limit)
    inv_freq, scaling = _scaled_rope(folder, kind)
    if 2 * len(inv_freq) != head_dim:
        raise UnsupportedModelError(f"{folder.name} rotates {2 * len(inv_freq)} of {head_dim} dimensions; partial RoPE is not supported")
    return inv_freq, scaling, limit


def _scaled_rope(folder: Path, kind: str) -> tuple[tuple[float, ...], float]:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    inv_freq, scaling = ROPE_INIT_FUNCTIONS[kind](AutoConfig.from_pretrained(folder), "cpu")
    return tuple(inv_freq.tolist()), float(scaling)
