"""Where a text begins to repeat itself.

A small model that always takes its likeliest token soon goes round in circles.  Drafts inside a circle are nearly always right, so a head
trained or judged on them learns little and looks better than it is: answers are cut where the circle has been closed.
"""

from __future__ import annotations

import torch
from torch import Tensor

LONGEST_PERIOD = 96  # tokens; about a paragraph
LEAST_REPEATED = 12  # tokens said again; shorter repetitions are style (lists, refrains, code)


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


def closed(tokens: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Which rows of ``tokens [rows, width]`` go round at their end, as :func:`kept` sees it.

    ``tokens[row, starts[row]:ends[row]]`` is an answer.

    >>> row = torch.tensor([[7, 8, *[1, 2, 3] * 20]])
    >>> [closed(row, torch.tensor([0]), torch.tensor([end])).item() for end in (16, 17, 60)]
    [False, True, True]
    """
    back = torch.arange(2 * LONGEST_PERIOD, device=tokens.device)
    at = ends[:, None] - 1 - back  # the last token first
    said = torch.where(at >= starts[:, None], tokens.gather(1, at.clamp(min=0)), -1 - back)  # no two of these are equal
    found = torch.zeros_like(starts, dtype=torch.bool)
    for period in range(1, LONGEST_PERIOD + 1):
        needed = max(period, LEAST_REPEATED)
        found |= (said[:, :needed] == said[:, period : period + needed]).all(dim=1)
    return found
