"""What a request's parameters do to the model's scores before a token is chosen.

Order and meaning are vLLM's (``v1/sample/sampler.py: apply_logits_processors``): allowed tokens, bad words, ``min_tokens``,
``logit_bias``, then repetition, frequency and presence penalties.  Temperature and truncation belong to ``sampler``.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.errors import RequestError
from workbench.request import Request

_NEVER = -torch.inf


class SampleRow(NamedTuple):
    """One row of scores and what must be known to choose its token.

    ``token_ids`` are prompt and output so far, of which the last ``num_output`` are output.
    """

    request: Request
    token_ids: Sequence[int]
    num_output: int

    @property
    def output_ids(self) -> Sequence[int]:
        """The tokens generated so far."""
        return self.token_ids[len(self.token_ids) - self.num_output :]


def shapes(row: SampleRow) -> bool:
    """Say whether :func:`shape_` may change this row at all."""
    return row.request.sampling.shapes_logits or bool(row.request.bad_words_ids)


def shape_(logits: Tensor, rows: Sequence[SampleRow]) -> None:
    """Apply masks, biases and penalties of ``rows`` to ``logits`` [rows, vocab] in place.

    A token that must not come gets minus infinity.  Raises :class:`RequestError` for token ids outside the vocabulary.
    """
    for scores, row in zip(logits, rows, strict=True):
        if shapes(row):
            _mask(scores, row)
            _add_bias(scores, row)
            _penalise(scores, row)


def _mask(scores: Tensor, row: SampleRow) -> None:
    sampling = row.request.sampling
    if sampling.allowed_token_ids is not None:
        allowed = _ids(scores, row, "allowed_token_ids", sampling.allowed_token_ids)
        kept = scores[allowed]
        scores.fill_(_NEVER)
        scores[allowed] = kept
    banned = [words[-1] for words in row.request.bad_words_ids if words and _completes(words, row.output_ids)]
    if banned:
        scores[_ids(scores, row, "bad_words", banned)] = _NEVER
    if row.num_output < sampling.min_tokens:
        # vLLM holds back the end of sequence here even under ignore_eos.  A stop id beyond the vocabulary can never come anyway.
        ends = [token for token in (*row.request.eos_token_ids, *sampling.stop_token_ids) if 0 <= token < len(scores)]
        scores[_tensor(ends, scores)] = _NEVER


def _completes(words: Sequence[int], output: Sequence[int]) -> bool:
    prefix = len(words) - 1
    return prefix <= len(output) and tuple(output[len(output) - prefix :]) == tuple(words[:prefix])


def _add_bias(scores: Tensor, row: SampleRow) -> None:
    bias = row.request.sampling.logit_bias
    if bias:
        scores[_ids(scores, row, "logit_bias", bias)] += torch.tensor(list(bias.values()), dtype=scores.dtype, device=scores.device)


def _penalise(scores: Tensor, row: SampleRow) -> None:
    sampling = row.request.sampling
    if sampling.repetition_penalty != 1.0:
        seen = _ids(scores, row, "the prompt", row.token_ids)
        found = scores[seen]
        scores[seen] = torch.where(found > 0, found / sampling.repetition_penalty, found * sampling.repetition_penalty)
    if (sampling.frequency_penalty or sampling.presence_penalty) and row.num_output:
        counts = Counter(row.output_ids)
        used = _ids(scores, row, "the output", counts)
        scores[used] -= sampling.frequency_penalty * torch.tensor(list(counts.values()), dtype=scores.dtype, device=scores.device)
        scores[used] -= sampling.presence_penalty


def _ids(scores: Tensor, row: SampleRow, name: str, token_ids: Collection[int]) -> Tensor:
    # Without this check a negative id would count from the end, silently.
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < len(scores):
        wrong = next(token for token in token_ids if not 0 <= token < len(scores))
        raise RequestError(f"request {row.request.id}: {name} holds token id {wrong}; this model's ids go from 0 to {len(scores) - 1}")
    return _tensor(token_ids, scores)


def _tensor(token_ids: Collection[int], like: Tensor) -> Tensor:
    # By way of an array: torch.tensor takes ten times as long for a list of a few hundred.
    buffer = array("q", token_ids)
    return torch.frombuffer(buffer, dtype=torch.long).to(like.device) if buffer else torch.empty(0, dtype=torch.long, device=like.device)
