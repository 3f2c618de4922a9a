"""GGUF tensors, renamed and reordered to the Hugging Face layout of the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelIntegrityError, UnsupportedModelError
from workbench.models.gguf import GGUFFile
from workbench.models.gguf_config import INTERLEAVED_ROTARY
from workbench.models.safetensors_file import write_bf16

if TYPE_CHECKING:
    import numpy as np

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_EVERY_LAYER_HAS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
_REBUILT = frozenset({"rope_freqs.weight"})  # described by the config


def write_weights(file: GGUFFile, config: dict[str, Any], path: Path, on_tensor: Callable[[int, int], None]) -> None:
    """Write ``file``'s weights as bf16 safetensors; ``on_tensor(done, total)`` after each.

    Raises :class:`ModelIntegrityError` when a tensor is missing or has a shape that contradicts the header, and
    :class:`UnsupportedModelError` when there is one that our forward pass would ignore.
    """
    names = _hf_names(file, config)
    shapes = {names[name]: file.tensors[name].shape for name in names}
    _check_shapes(file, config, shapes)
    write_bf16(path, shapes, _tensors(file, config, names, on_tensor))


def interleaved_to_half(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo GGUF's reordering of q or k rows: pairs ``(2i, 2i+1)`` of a head go back to ``(i, i + head_dim/2)``."""
    by_pair = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return by_pair.swapaxes(1, 2).reshape(rows.shape)


def _hf_names(file: GGUFFile, config: dict[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in file.tensors:
        if name in _REBUILT:
            continue
        hf_name = _hf_name(name, config["num_hidden_layers"])
        if hf_name is None:
            problem = f"{file.path.name} has a tensor {name!r} that our forward pass would ignore"
            raise UnsupportedModelError(f"{problem}: use the model's safetensors instead")
        names[name] = hf_name
    if config["num_hidden_layers"] > len(names):
        problem = f"{file.path.name} declares {config['num_hidden_layers']:,} layers and has {len(names)} tensors"
        raise ModelIntegrityError(f"{problem}: it is not a complete model")
    expected = ["token_embd.weight", "output_norm.weight"]
    expected += [f"blk.{layer}.{part}.weight" for layer in range(config["num_hidden_layers"]) for part in _EVERY_LAYER_HAS]
    missing = [name for name in expected if name not in names]
    if missing:
        problem = f"{file.path.name} lacks {len(missing)} of its tensors, the first is {missing[0]!r}"
        raise ModelIntegrityError(f"{problem}: it is not a complete model")
    return names


def _hf_name(name: str, num_layers: int) -> str | None:
    if name in _WHOLE:
        return _WHOLE[name]
    prefix, _, rest = name.partition(".")
    layer, _, rest = rest.partition(".")
    part, _, kind = rest.partition(".")
    if prefix != "blk" or part not in _PER_LAYER or kind not in ("weight", "bias"):
        return None
    if not layer.isdecimal() or int(layer) >= num_layers:
        return None
    return f"model.layers.{layer}.{_PER_LAYER[part]}.{kind}"


def _check_shapes(file: GGUFFile, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """Compare the directory with what the header's numbers imply, so that damage shows here and not in a matrix product."""
    hidden, feed_forward = config["hidden_size"], config["intermediate_size"]
    q_rows, kv_rows = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    expected: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (q_rows, hidden),
        "self_attn.k_proj": (kv_rows, hidden),
        "self_attn.v_proj": (kv_rows, hidden),
        "self_attn.o_proj": (hidden, q_rows),
        "mlp.gate_proj": (feed_forward, hidden),
        "mlp.up_proj": (feed_forward, hidden),
        "mlp.down_proj": (hidden, feed_forward),
    }
    for name, shape in shapes.items():
        module = ".".join(name.split(".")[3:5])
        right = expected.get(module)
        if right is None:
            right = (config["vocab_size"], hidden) if name in ("model.embed_tokens.weight", "lm_head.weight") else None
        elif name.endswith(".bias"):
            right = right[:1]
        if right is not None and shape != right:
            raise ModelIntegrityError(f"{file.path.name} stores {name} as {shape}, but its header implies {right}: the file is damaged")


def _tensors(
    file: GGUFFile, config: dict[str, Any], names: dict[str, str], on_tensor: Callable[[int, int], None]
) -> Iterator[tuple[str, np.ndarray]]:
    reorder = file.architecture in INTERLEAVED_ROTARY
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    for done, (name, hf_name) in enumerate(names.items(), start=1):
        values = file.tensor(name)
        num_heads = heads.get(".".join(hf_name.split(".")[3:5]))
        if reorder and num_heads is not None:
            values = interleaved_to_half(values, num_heads)
        yield hf_name, values
        on_tensor(done, len(names))
