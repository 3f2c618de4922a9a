"""The acceptance rule: which drafts are kept, and which token follows them.

Plain Python over lists; it is the reference that faster code is measured against.  ``p`` is the model's distribution at a position
(the target), ``q`` the one that the draft was drawn from.  Rule: Leviathan et al. 2023, "Fast Inference from Transformers via
Speculative Decoding", as vLLM 0.32.0 applies it (``vllm/v1/sample/rejection_sampler.py``).

A verification of k drafts emits 1 … k + 1 tokens: those accepted, then the corrected one or, when all were accepted, the bonus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from workbench.errors import IntegrityError
from workbench.randomness import uniform

SAMPLE, ACCEPT, RECOVER, DRAFT = range(4)
"""Streams of random numbers at one output position: an ordinary token, the test of a draft, the token after a rejection, drafting."""

Distribution = Sequence[float]


def verify_greedy(draft_token_ids: Sequence[int], target_token_ids: Iterable[int]) -> list[int]:
    """Keep drafts as long as they equal the target's own tokens; returns what is emitted.

    ``target_token_ids``: the target's token at each draft's position, and one more.  They are read one by one and no further than
    needed, so they may be computed on the way.  A padding draft (−1) equals nothing.
    Raises :class:`IntegrityError` when they end too early.

    >>> verify_greedy([1, 2, 3], [1, 5, 3, 4])
    [1, 5]
    >>> verify_greedy([1, 2, 3], [1, 2, 3, 4])
    [1, 2, 3, 4]
    """
    emitted: list[int] = []
    for target in target_token_ids:
        emitted.append(target)
        position = len(emitted) - 1
        if position == len(draft_token_ids) or draft_token_ids[position] != target:
            return emitted
    raise IntegrityError(f"{len(draft_token_ids)} drafts need up to {len(draft_token_ids) + 1} target tokens, not {len(emitted)}")


def verify_sampled(
    draft_token_ids: Sequence[int],
    target: Sequence[Distribution],
    proposal: Sequence[Distribution] | None = None,
    *,
    seed: int,
    num_output: int,
    random: Callable[[int, int, int], float] = uniform,
) -> list[int]:
    """Keep drafts by chance, so that what is emitted is distributed as if the target had drawn every token; returns it.

    ``target``: k + 1 distributions, at each draft's position and one further; ``proposal``: the k that the drafts were drawn from, or
    ``None`` for a proposer that was certain (n-gram look-up: 1 at the draft).  Each adds up to 1.  ``num_output``: output tokens
    before the first draft.  Every number is drawn for its position and purpose (``random(seed, num_output + i, stream)``), so a
    verification done again after a rewind ends the same; an ordinary token, such as the bonus, takes the number it would have had
    without drafts.
    Raises :class:`IntegrityError` when the lengths disagree.
    """
    _check_lengths(len(draft_token_ids), len(target), None if proposal is None else len(proposal))
    emitted: list[int] = []
    for position, token in enumerate(draft_token_ids):
        index, p = num_output + position, target[position]
        if token < 0:  # padding: nothing was proposed here
            return [*emitted, pick(p, random(seed, index, SAMPLE))]
        q = certain(token, len(p)) if proposal is None else proposal[position]
        if not accepts(p[token], q[token], random(seed, index, ACCEPT)):
            return [*emitted, pick(recovered(p, q), random(seed, index, RECOVER))]
        emitted.append(token)
    return [*emitted, pick(target[-1], random(seed, num_output + len(emitted), SAMPLE))]


def accepts(p: float, q: float, u: float) -> bool:
    """Whether a draft of target probability ``p`` and proposal probability ``q`` is kept, for ``u`` uniform in [0, 1).

    True with probability min(1, p / q).  vLLM asks p / q ≥ u of a number that is never 0; ours may be 0, and > keeps a token of
    probability 0 out all the same.
    """
    return q > 0 and p / q > u


def recovered(p: Distribution, q: Distribution) -> list[float]:
    """What the token after a rejection is drawn from: max(p − q, 0), not normalised; ``p`` itself where nothing is left of it."""
    left = [max(one - other, 0) for one, other in zip(p, q, strict=True)]
    return left if any(left) else list(p)


def certain(token: int, size: int) -> list[float]:
    """The distribution of a proposer that knows no doubt: 1 at ``token``."""
    return [1.0 if index == token else 0.0 for index in range(size)]


def pick(weights: Distribution, u: float) -> int:
    """The index that ``u`` in [0, 1) falls on when weights, not negative, are laid end to end; one of weight 0 never comes.

    Raises :class:`IntegrityError` when all are 0.

    >>> [pick([1, 0, 3], u) for u in (0.0, 0.24, 0.25, 0.99)]
    [0, 0, 2, 2]
    """
    point, last = u * sum(weights), None
    end: float = 0
    for index, weight in enumerate(weights):
        if weight <= 0:
            continue
        end, last = end + weight, index
        if point < end:
            return index
    if last is None:
        raise IntegrityError(f"none of {len(weights)} tokens has any probability, so none can be drawn")
    return last  # rounding lifted the point to the very end


def _check_lengths(drafts: int, target: int, proposal: int | None) -> None:
    if target != drafts + 1:
        raise IntegrityError(f"{drafts} drafts need {drafts + 1} target distributions, not {target}")
    if proposal is not None and proposal != drafts:
        raise IntegrityError(f"{drafts} drafts need {drafts} proposal distributions, not {proposal}")
