"""Two projections by which drafting scores every token of a large vocabulary at a fraction of the cost.

A hidden state ``x`` and a row ``w`` of the LM head get their product from ``rank`` numbers each: ``(hidden @ x) . (rows @ w)``.  Of all
pairs of projections of that rank these have the least squared error over the states that the head puts out (the truncated singular value
decomposition of all scores, computed from the second moments of states and of rows).  The best of these rough scores are then scored
exactly, so a draft is lost only if its rough score is not among them.  The idea is that of SVD-softmax (Shim et al., NIPS 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

SHRINKAGE = 1e-3  # of the mean second moment, added to each: directions that were hardly seen are not blown up


class Moment:
    """The second moment of the states that it is shown, ``[hidden, hidden]``."""

    def __init__(self) -> None:
        self.total, self.count = torch.zeros(()), 0

    def add(self, states: Tensor) -> None:
        """``[rows, hidden]``."""
        self.total = self.total.to(states.device) + states.double().T @ states.double()
        self.count += len(states)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count


def projections(moment: Tensor, head_rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``hidden`` and ``rows``, ``[rank, hidden]`` float32 each, for rows ``[vocabulary, hidden]`` of an LM head.

    >>> states, head_rows = torch.randn(50, 4) * torch.tensor([3.0, 2.0, 0.0, 0.0]), torch.randn(9, 4)
    >>> hidden, rows = projections(states.double().T @ states.double(), head_rows, rank=2)
    >>> torch.allclose((states @ hidden.T) @ (head_rows @ rows.T).T, states @ head_rows.T, atol=0.05)
    True
    """
    size = len(moment)
    moment = moment.double() + SHRINKAGE * moment.diagonal().mean() * torch.eye(size, dtype=torch.double, device=moment.device)
    values, vectors = torch.linalg.eigh(moment)
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    wide = head_rows.double()
    directions = torch.linalg.eigh(root @ (wide.T @ wide) @ root).eigenvectors.flip(1)[:, :rank].T
    return (directions @ inverse).float(), (directions @ root).float()


def kept(states: Tensor, head_rows: Tensor, hidden: Tensor, rows: Tensor, candidates: int = 128) -> float:
    """The share of states whose best row is among the ``candidates`` with the best rough scores."""
    best = (states @ head_rows.T).argmax(dim=1)
    rough = (states @ hidden.T) @ (head_rows @ rows.T).T
    return (rough.topk(min(candidates, len(head_rows)), dim=1).indices == best[:, None]).any(dim=1).float().mean().item()
