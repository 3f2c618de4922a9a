"""How many drafted tokens the target would accept, by kind and position, on answers that it wrote greedily.

A chain starts at every position of an answer, from real features, and goes on with its own best tokens.  A draft is accepted if it and
all before it are the tokens that the target wrote; one outside the draft ids never is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from training.data import Batches
from training.head import Drafter, Head, shifted
from training.prompts import KINDS
from training.target import Target, wide_logits

if TYPE_CHECKING:
    from training.settings import Settings


@torch.no_grad()
def accepted_lengths(
    head: Head, target: Target, batches: Batches, draft_ids: Tensor, settings: Settings, see: Callable[[Tensor], None] | None = None
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """For each sequence: its kind, and by origin how many of ``draft_len`` drafts were accepted and how many tokens remained.

    ``see`` is shown the states from which drafts are scored, ``[rows, hidden]`` at a time.
    """
    rows, result = target.head[draft_ids].contiguous(), []
    for batch in batches.in_order():
        taps, _ = target.forward(batch.tokens, settings.taps)
        drafter = Drafter(head, target, target.dtype)
        feature, tokens = drafter.features(taps), shifted(batch.tokens, 1)
        alive = torch.ones_like(batch.origins, dtype=torch.bool)
        accepted = torch.zeros_like(batch.origins)
        for index in range(settings.draft_len):
            feature = drafter.advance(tokens, feature)
            chosen = drafter.normed(feature.flatten(0, 1).index_select(0, batch.origins))
            if see is not None:
                see(chosen[batch.remaining > index])
            drafts = draft_ids[torch.cat([wide_logits(part, rows).argmax(dim=-1) for part in chosen.split(settings.chunk)])]
            written = shifted(batch.tokens, 2 + index).flatten().index_select(0, batch.origins)
            alive &= (drafts == written) & (batch.remaining > index)
            accepted += alive
            tokens = tokens.clone()
            tokens.view(-1)[batch.origins] = drafts
        counts = np.maximum(batches.texts.lengths[batch.indices] - batches.texts.answer_starts[batch.indices], 0)
        ends = np.cumsum(counts)
        accepted, remaining = accepted.cpu().numpy(), batch.remaining.cpu().numpy()
        for index, start, end in zip(batch.indices, ends - counts, ends, strict=True):
            result.append((int(batches.texts.kinds[index]), accepted[start:end], remaining[start:end]))
    return result


def rounds(accepted: np.ndarray, remaining: np.ndarray, draft_len: int) -> tuple[int, int]:
    """Tokens and rounds of one answer with ``draft_len`` drafts a round, the next round starting after what was accepted."""
    tokens, count, at = 0, 0, 0
    while at < len(accepted) and remaining[at] > 0:
        emitted = min(int(accepted[at]), draft_len) + 1
        tokens += min(emitted, int(remaining[at]))
        count += 1
        at += emitted
    return tokens, count


def summary(sequences: list[tuple[int, np.ndarray, np.ndarray]], draft_len: int) -> dict[str, Any]:
    """Acceptance by position and tokens per round of some sequences."""
    accepted = np.concatenate([sequence[1] for sequence in sequences])
    remaining = np.concatenate([sequence[2] for sequence in sequences])
    by_position = [float((accepted[remaining > index] > index).mean()) for index in range(draft_len) if (remaining > index).any()]
    averaged, simulated = {}, {}
    for count in range(1, draft_len + 1):
        whole = np.minimum(accepted[remaining >= count], count)
        averaged[count] = 1.0 + float(whole.mean()) if len(whole) else 1.0
        totals = np.array([rounds(sequence[1], sequence[2], count) for sequence in sequences]).sum(axis=0)
        simulated[count] = float(totals[0] / max(totals[1], 1))
    return {
        "sequences": len(sequences),
        "origins": int((remaining > 0).sum()),
        "acceptance": by_position,
        "conditional": [rate / before if before else 0.0 for rate, before in zip(by_position, [1.0, *by_position], strict=False)],
        "tokens_per_round_averaged": averaged,
        "tokens_per_round": simulated,
    }


def acceptance(
    head: Head, target: Target, batches: Batches, draft_ids: Tensor, settings: Settings, see: Callable[[Tensor], None] | None = None
) -> dict[str, Any]:
    """``summary`` of every kind, and of all sequences together."""
    sequences = accepted_lengths(head, target, batches, draft_ids, settings, see)
    result: dict[str, Any] = {}
    for index, name in enumerate(KINDS):
        of_kind = [sequence for sequence in sequences if sequence[0] == index]
        if of_kind:
            result[name] = summary(of_kind, settings.draft_len)
    result["all"] = summary(sequences, settings.draft_len)
    return result


def line(result: dict[str, Any]) -> str:
    """The shortest account: all kinds together, at four drafts."""
    whole = result["all"]
    rates = " ".join(f"{rate:.3f}" for rate in whole["acceptance"])
    count = min(4, len(whole["tokens_per_round"]))
    return f"acceptance {rates}; tokens per round at K = {count}: {whole['tokens_per_round'][count]:.3f}"


def table(result: dict[str, Any]) -> str:
    """A Markdown table: acceptance by kind and position, and tokens per round for each number of drafts."""
    draft_len = max(len(part["acceptance"]) for part in result.values())
    columns = [f"p{index}" for index in range(1, draft_len + 1)] + [f"K={count}" for count in result["all"]["tokens_per_round"]]
    lines = [f"| kind | sequences | {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) + 1)}"]
    for name, part in result.items():
        rates = [f"{rate:.3f}" for rate in part["acceptance"]] + [""] * (draft_len - len(part["acceptance"]))
        lines.append(f"| {name} | {part['sequences']} | {' | '.join([*rates, *(f'{r:.2f}' for r in part['tokens_per_round'].values())])} |")
    return "\n".join(lines)
