"""Tiny random models of every supported family, made by transformers, and a driver that feeds them in any chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from workbench.models.batch import flatten
from workbench.models.loading import LoadedModel, load_folder
from workbench.plan import PlanRow
from workbench.request import Request

BASE: dict[str, Any] = dict(
    vocab_size=101, hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
    max_position_embeddings=256, tie_word_embeddings=False,
)  # fmt: skip
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
LONGROPE = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    original_max_position_embeddings=128,
    short_factor=[1.1] * 4,
    long_factor=[2.0] * 4,
    factor=2.0,
)

# name: (model_type, differences from BASE)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-one-kv-head-each": ("llama", dict(num_key_value_heads=6)),
    "llama-wide-heads": ("llama", dict(head_dim=16)),
    "llama-biased": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "smollm2-tied": ("llama", dict(tie_word_embeddings=True, num_attention_heads=9, num_key_value_heads=3, hidden_size=72)),
    "smollm3": ("smollm3", dict(num_hidden_layers=5, pad_token_id=0)),
    "smollm3-own-no-rope-layers": ("smollm3", dict(num_hidden_layers=3, no_rope_layers=[0, 1, 0], pad_token_id=0)),
    "mistral": ("mistral", dict(sliding_window=None)),
    "mistral-windowed": ("mistral", dict(sliding_window=64)),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(head_dim=24)),
    "qwen3-biased": ("qwen3", dict(head_dim=16, attention_bias=True)),
    "rope-linear": ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=3.0))),
    "rope-dynamic": ("llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0))),
    "rope-yarn": ("qwen2", dict(rope_parameters=YARN)),
    "rope-llama3": ("llama", dict(rope_parameters=LLAMA3)),
    "rope-longrope": ("llama", dict(rope_parameters=LONGROPE)),
}


@cache
def reference(variant: str) -> Any:
    """The transformers model, float32, with every parameter (norms and biases too) drawn at random."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, changes = VARIANTS[variant]
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**BASE, **changes}), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.25)
    return model


def save(variant: str, root: Path) -> Path:
    """The variant's folder in Hugging Face layout."""
    folder = root / variant
    if not folder.exists():
        reference(variant).save_pretrained(folder)
    return folder


def load(variant: str, root: Path, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    return load_folder(save(variant, root), dtype=dtype, device=device)


def new_cache(loaded: LoadedModel, num_blocks: int, block_size: int) -> list[torch.Tensor]:
    config = loaded.config
    shape = (2, num_blocks + 1, block_size, config.num_kv_heads, config.head_dim)
    # Absurd values show every read of a slot that was never written; they stay finite, for masked slots are multiplied by 0.
    return [torch.full(shape, 3e4, dtype=loaded.path.dtype, device=loaded.device) for _ in range(config.num_layers)]


def row(token_ids: Sequence[int], start: int, end: int, block_ids: Sequence[int]) -> PlanRow:
    request = Request(id="r", prompt_token_ids=tuple(token_ids))
    return PlanRow(request, "decode" if end - start == 1 else "prefill", start, end, token_ids, block_ids, True)


def all_logits(loaded: LoadedModel, kv: list[torch.Tensor], rows: Sequence[PlanRow], block_size: int) -> torch.Tensor:
    """Logits of every token of the rows, in one pass."""
    batch = flatten(rows, block_size, [row.num_tokens for row in rows])
    with torch.inference_mode():
        return loaded.architecture(batch, kv).cpu()


def reference_logits(variant: str, token_ids: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        return reference(variant)(torch.tensor([list(token_ids)])).logits[0]


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest absolute difference over the reference's largest absolute value."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
