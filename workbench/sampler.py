"""From scores to tokens: greedy or random, one row at a time in meaning, all rows at once in fact.

The random number of a draw is a pure function of the request's seed and the index of the output token, so what a
request gets depends neither on who else is in the batch nor on how often the engine was rewound.  Full sorts and full
cumulative sums over the vocabulary are slow on CPUs; here both work on chunks of 64 tokens first and are as exact.

References: the order of the steps is that of vLLM (``v1/sample/sampler.py``): shaping (``shaping``), temperature, ``min_p``,
``top_k``, ``top_p``, draw.  Log-probabilities come from the model's own scores, before all of these (vLLM's ``raw_logprobs``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.errors import ModelError, RequestError
from workbench.events import TokenLogprobs
from workbench.randomness import uniform
from workbench.request import SamplingParams
from workbench.shaping import SampleRow, shape_, shapes
from workbench.truncation import CHUNK, chunked, column, truncated

__all__ = ["GREEDY", "Chosen", "Draw", "SampleRow", "chances_of", "draw", "drawn", "is_greedy", "probabilities", "sample", "token_logprobs"]

_GREEDY_BELOW = 1e-5  # vLLM's _SAMPLING_EPS


def is_greedy(sampling: SamplingParams) -> bool:
    """Whether the likeliest token is taken."""
    return sampling.temperature < _GREEDY_BELOW


class Draw(NamedTuple):
    """A token to be chosen by temperature and truncation alone; ``point`` in [0, 1) decides which one it is."""

    sampling: SamplingParams
    point: float


class Chosen(NamedTuple):
    """Tokens, and the probability of each at temperature 1; none where nobody asks."""

    ids: list[int]
    chances: Sequence[float] = ()


GREEDY = Draw(SamplingParams(temperature=0.0), 0.0)


def sample(logits: Tensor, rows: Sequence[SampleRow]) -> tuple[list[int], list[TokenLogprobs | None] | None]:
    """Choose one token for each row of ``logits`` [rows, vocab]; ``logits`` stay as they are.

    The second value is ``None`` when no row asks for ``logprobs``, else it has an entry per row.  Raises :class:`ModelError`
    when a row's scores are not numbers, :class:`RequestError` when its parameters leave no token to choose.
    """
    logits = logits.float()
    tokens = [0] * len(rows)
    for greedy, group, scores, members in _groups(logits, rows):
        chosen = _likeliest(scores, members) if greedy else draw(_weights(scores, members), [_uniform(row) for row in members])
        for i, token in zip(group, chosen.tolist(), strict=True):
            tokens[i] = token
    return tokens, _asked_logprobs(logits, rows, tokens)


def probabilities(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """Return the distribution that :func:`sample` draws from, [rows, vocab], float32, each row adding up to 1.

    A greedy row is 1 at its token and 0 elsewhere.  This is the target distribution of speculative sampling.
    """
    logits = logits.float()
    result = torch.zeros_like(logits)
    for greedy, group, scores, members in _groups(logits, rows):
        if greedy:
            result[group, _likeliest(scores, members)] = 1.0
        else:
            weights = _weights(scores, members)
            result[group] = weights / weights.sum(-1, keepdim=True, dtype=torch.float64).float()
    return result


def draw(weights: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Draw one index for each row of ``weights`` [rows, n] with the given numbers in [0, 1), by inverse CDF.

    Weights are not negative and need not add up to 1; an index of weight 0 never comes.
    """
    chunks = chunked(weights, 0.0)
    points = torch.tensor(uniforms, dtype=torch.float64, device=weights.device).unsqueeze(-1)
    ends = chunks.sum(-1).cumsum(-1, dtype=torch.float64)
    chunk, rest = _inverse(ends, points * ends[:, -1:])
    inside = chunks.gather(1, chunk.unsqueeze(-1).expand(-1, -1, CHUNK)).squeeze(1).cumsum(-1, dtype=torch.float64)
    return (chunk * CHUNK + _inverse(inside, rest)[0]).squeeze(-1)


def drawn(scores: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Choose one index for each row of ``scores`` [rows, n], as :func:`sample` would where nothing is masked or penalised."""
    scores = scores.float()
    chosen = scores.argmax(dim=-1)
    random = [row for row, one in enumerate(draws) if not is_greedy(one.sampling)]
    if random:
        params, some = [draws[row].sampling for row in random], scores[random]
        weights = _tempered(some, some.amax(-1, keepdim=True), params)
        chosen[random] = draw(weights, [draws[row].point for row in random])
    return chosen.tolist()


def chances_of(scores: Tensor, indices: Tensor) -> list[float]:
    """The probability of one index of each row of ``scores`` [rows, n], at temperature 1."""
    return scores.softmax(dim=-1).gather(1, indices.unsqueeze(-1)).squeeze(-1).tolist()


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenLogprobs]:
    """Return log-probability, rank and ``num_top`` alternatives of one token for each row of ``logits`` [rows, vocab].

    With the scores at prompt positions 0 … n−2 and the tokens 1 … n−1 these are a prompt's ``prompt_logprobs``.  Rank is 1 for the
    likeliest token and for any that ties with it.
    """
    scores = logits.float()
    ids = torch.tensor(token_ids, dtype=torch.long, device=scores.device).unsqueeze(-1)
    chosen = scores.gather(-1, ids)
    norms = scores.logsumexp(-1, keepdim=True)
    ranks = (scores > chosen).sum(-1) + 1
    top = scores.topk(min(num_top, scores.shape[-1]), -1)
    columns = ((chosen - norms).squeeze(-1), ranks, top.indices, top.values - norms)
    return [
        TokenLogprobs(token, logprob, rank, tuple(top_ids), tuple(top_logprobs))
        for token, logprob, rank, top_ids, top_logprobs in zip(token_ids, *(column.tolist() for column in columns), strict=True)
    ]


def _asked_logprobs(logits: Tensor, rows: Sequence[SampleRow], tokens: Sequence[int]) -> list[TokenLogprobs | None] | None:
    wanted = {i: row.request.sampling.logprobs for i, row in enumerate(rows) if row.request.sampling.logprobs is not None}
    if not wanted:
        return None
    found = token_logprobs(logits[list(wanted)], [tokens[i] for i in wanted], max(wanted.values()))
    result: list[TokenLogprobs | None] = [None] * len(rows)
    for (i, num_top), entry in zip(wanted.items(), found, strict=True):
        result[i] = TokenLogprobs(entry.token_id, entry.logprob, entry.rank, entry.top_ids[:num_top], entry.top_logprobs[:num_top])
    return result


def _uniform(row: SampleRow) -> float:
    seed = row.request.sampling.seed
    if seed is None:
        raise RequestError(f"request {row.request.id} has no seed to sample with: set seed")
    return uniform(seed, row.num_output)


def _groups(logits: Tensor, rows: Sequence[SampleRow]) -> Iterator[tuple[bool, list[int], Tensor, list[SampleRow]]]:
    """Yield the greedy rows, then the others: whether greedy, their places, their shaped scores and the rows themselves."""
    greedy = [is_greedy(row.request.sampling) for row in rows]
    for wanted in (True, False):
        group = [i for i, taken in enumerate(greedy) if taken is wanted]
        members = [rows[i] for i in group]
        touched = any(map(shapes, members))
        # A batch of plain greedy rows, the common case, is not copied.
        scores = logits[group] if len(group) < len(rows) else logits.clone() if touched else logits
        if touched:
            shape_(scores, members)
        if group:
            yield wanted, group, scores, members


def _likeliest(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    # argmax keeps track of an index for every element; maxima of chunks do not, and are ten times as fast on a CPU.
    chunks = chunked(logits, -torch.inf)
    peaks = chunks.amax(-1)
    best = peaks.amax(-1, keepdim=True)
    _check(best, rows)
    chunk = _first(peaks == best)
    inside = chunks.gather(1, chunk.view(-1, 1, 1).expand(-1, -1, CHUNK)).squeeze(1)
    return chunk * CHUNK + _first(inside == best)


def _weights(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    best = logits.amax(-1, keepdim=True)
    _check(best, rows)
    return _tempered(logits, best, [row.request.sampling for row in rows])


def _tempered(logits: Tensor, best: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    weights = (logits - best).div_(column([p.temperature for p in params], logits)).exp_()
    if any(p.min_p > 0 for p in params):
        # The likeliest token weighs exactly 1, so shares of its probability are weights.
        weights.masked_fill_(weights < column([p.min_p for p in params], logits), 0.0)
    cut = [i for i, p in enumerate(params) if 0 < p.top_k < logits.shape[-1] or p.top_p < 1]
    if len(cut) == len(params):
        weights = truncated(weights, params)
    elif cut:
        weights[cut] = truncated(weights[cut], [params[i] for i in cut])
    return weights


def _inverse(ends: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index whose cumulative weight exceeds the point, and how far into it the point lies."""
    # Rounding may lift a point to the very end or past it; the largest number below the end still belongs to the last weight.
    points = torch.minimum(points, torch.nextafter(ends[:, -1:], torch.zeros_like(points)))
    index = torch.searchsorted(ends, points, right=True)
    before = torch.where(index > 0, ends.gather(-1, (index - 1).clamp(min=0)), 0.0)
    return index, points - before


def _first(hits: Tensor) -> Tensor:
    # Among ties the lowest index wins on every device, which argmax does not promise.
    places = torch.arange(hits.shape[-1], device=hits.device)
    return torch.where(hits, places, hits.shape[-1]).amin(-1)


def _check(best: Tensor, rows: Sequence[SampleRow]) -> None:
    if bool(torch.isfinite(best).all()):
        return
    bad = torch.isfinite(best).logical_not().flatten().nonzero()[0].item()
    row, value = rows[int(bad)], best.flatten()[int(bad)].item()
    if value == -torch.inf and shapes(row):
        raise RequestError(
            f"request {row.request.id}: its parameters leave no token to choose; loosen allowed_token_ids, bad_words or min_tokens"
        )
    raise ModelError(f"the model's scores for request {row.request.id} at position {len(row.token_ids)} are not numbers (largest: {value})")
