"""Where a text begins to repeat itself.

A small model that always takes its likeliest token soon goes round in circles.  Drafts inside a circle are nearly always right, so a head
trained or judged on them learns little and looks better than it is: answers are cut where the circle has been closed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.data import Texts
from training.generate import Sequence

LONGEST_PERIOD = 96  # tokens; about a paragraph
LEAST_REPEATED = 12  # tokens said again; shorter repetitions are style (lists, refrains, code)
ROWS = 8192  # texts looked at together


def without_loops(texts: Texts, device: torch.device) -> Texts:
    """The same texts, each cut where its answer begins to go round."""
    ends = np.concatenate([_ends(texts, np.arange(first, min(first + ROWS, len(texts))), device) for first in range(0, len(texts), ROWS)])
    return Texts.of(
        [
            Sequence(int(kind), float(temperature), texts.tokens[first:end], int(start))
            for kind, temperature, first, end, start in zip(
                texts.kinds, texts.temperatures, texts.offsets, texts.offsets[:-1] + ends, texts.answer_starts, strict=False
            )
        ]
    )


def _ends(texts: Texts, indices: np.ndarray, device: torch.device) -> np.ndarray:
    lengths, starts = texts.lengths[indices], texts.answer_starts[indices]
    width = int((lengths - starts).max())
    answers = torch.arange(width).neg_().sub_(1).repeat(len(indices), 1)  # no two of these are equal: nothing repeats outside an answer
    for row, index in enumerate(indices):
        said = texts.sequence(index)[starts[row] :]
        answers[row, : len(said)] = torch.from_numpy(said.astype(np.int64))
    return np.minimum(starts + kept(answers.to(device)).cpu().numpy(), lengths)


def kept(answers: Tensor) -> Tensor:
    """How many tokens of each row of ``answers [rows, width]`` to keep.

    A row ends where a stretch of p tokens has been followed by ``max(p, 12)`` tokens that repeat it.

    >>> kept(torch.tensor([[7, 8, *[1, 2, 3] * 20], list(range(62))])).tolist()
    [17, 62]
    """
    rows, width = answers.shape
    ends = torch.full((rows,), width, device=answers.device)
    for period in range(1, min(LONGEST_PERIOD, width // 2) + 1):
        needed = max(period, LEAST_REPEATED)
        same = answers[:, period:] == answers[:, :-period]
        count = torch.nn.functional.pad(same.int().cumsum(dim=1), (1, 0))
        if count.shape[1] <= needed:
            break
        closed = count[:, needed:] - count[:, :-needed] == needed
        first = closed.int().argmax(dim=1) + period + needed
        ends = torch.where(closed.any(dim=1), torch.minimum(ends, first), ends)
    return ends
