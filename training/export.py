"""The finished head as a file that the package loads, and its model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.evaluate import table
from training.head import MATRICES, Head
from training.target import Target
from workbench.models.fingerprint import weights_fingerprint
from workbench.models.quantised import Int8

if TYPE_CHECKING:
    from training.settings import Settings

FORMAT = "workbench-eagle"
VERSION = "2"


def export_head(
    path: Path, head: Head, target: Target, draft_ids: Tensor, screen: tuple[Tensor, Tensor], settings: Settings, facts: dict[str, Any]
) -> None:
    """Write the head: matrices as int8 with a bf16 ``NAME.scale`` for each output, the rest as bf16.

    ``screen`` are the two projections of ``screen.py``.
    ``facts`` (target's name, steps, train tokens, …) go into the metadata as strings.
    """
    shape = target.shape
    tensors = {name: weight.detach().to(torch.bfloat16) for name, weight in head.named_parameters()}
    for name in MATRICES:
        tensors[name], tensors[f"{name}.scale"] = Int8.of(head.get_parameter(name).detach())
    tensors["screen.hidden"], tensors["screen.rows"] = (part.to(torch.bfloat16) for part in screen)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    tensors["draft_ids"] = draft_ids.to(torch.int32).cpu().contiguous()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "taps": ",".join(str(tap) for tap in settings.taps),
        "target_fingerprint": weights_fingerprint(target.norm, target.embedding),
        "num_heads": shape.num_heads,
        "num_kv_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "config": json.dumps(asdict(settings) | {"start_from": Path(settings.start_from).name}),  # no path of one machine
        "seed": settings.seed,
        **facts,
    }
    save_file(tensors, path, {name: str(value) for name, value in metadata.items()})


def exported(path: Path) -> tuple[dict[str, Tensor], tuple[int, ...], dict[str, str]]:
    """The weights of an exported head in float32, the layers whose features it reads, and what else its file tells of it."""
    with safe_open(path, "pt") as file:
        facts, stored = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    weights = {
        name: Int8(tensor, stored[f"{name}.scale"]).values() if f"{name}.scale" in stored else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(".scale") and name != "draft_ids" and not name.startswith("screen.")
    }
    return weights, tuple(int(tap) for tap in facts["taps"].split(",")), facts


def card(settings: Settings, evaluation: dict[str, Any], facts: dict[str, Any], num_parameters: int, num_bytes: int) -> str:
    """The model card, from what was configured and measured."""
    train, coverage, earlier = facts["data"], facts["coverage"], facts["started_from"]
    start = f"; begun with an earlier head of {int(earlier['steps']):,} steps, {int(earlier['train_tokens']):,} tokens" if earlier else ""
    return f"""# {facts["target_name"]}.eagle

A draft head for speculative decoding with **{facts["target_name"]}** (fingerprint of its weights: `{facts["target_fingerprint"]}`).
With any other target it drafts nonsense, so loading compares the fingerprint.  Licence: Apache-2.0, as the target's.

| fact | value |
|---|---|
| idea | EAGLE (arXiv 2401.15077) and EAGLE-3 (arXiv 2503.01840): drafts from the target's features, trained on its own chains |
| architecture | one decoder layer, features after layers {", ".join(str(tap) for tap in settings.taps)} (from 0); \
embedding and LM head are the target's |
| parameters | {num_parameters:,}, matrices in int8, the rest in bf16, {num_bytes / 1e6:.1f} MB |
| draft vocabulary | {facts["num_ids"]:,} ids, {100 * coverage[str(settings.shipped_vocab)]:.2f} % of the answers' tokens; \
trained on {settings.draft_vocab:,}, {100 * coverage[str(settings.draft_vocab)]:.2f} % |
| screening | rank {settings.screen_rank}: all ids are scored roughly by so many numbers each, the best of them exactly |
| training data | {train["sequences"]:,} conversations, {train["answer_tokens"]:,} answer tokens, all written by the target itself: \
it continues short openings of user turns and answers them ({100 * settings.greedy_share:.0f} % greedily, the others at temperature \
{settings.temperatures[0]} to {settings.temperatures[-1]}); no outside text |
| training | {facts["steps"]:,} steps, {facts["train_tokens"]:,} tokens, {facts["train_seconds"] / 60:.1f} minutes on {facts["device"]}; \
{settings.passes} passes, soft targets, {settings.optimizer}, peak rate {settings.learning_rate}{start} |
| seed | {settings.seed} |
| made by | `python -m training.eagle` |

## Acceptance

On {evaluation["all"]["sequences"]:,} held-out conversations of the target's own, answered greedily, each up to where it begins to
go round in circles.  `p1` … : share of drafts accepted at that position (with all before it); `K=…`: tokens per round
with that many drafts.

{table(evaluation)}

## Draft vocabulary

Share of the answers' tokens that the most frequent ids cover:
{", ".join(f"{size}: {100 * share:.2f} %" for size, share in coverage.items())}.

## Limits

English, conversations of at most about {settings.user_end + settings.answer} tokens in training; beyond that, acceptance is not measured.
Output never depends on the head: the target verifies every draft.
"""
