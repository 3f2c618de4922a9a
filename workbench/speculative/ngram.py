"""Drafts by look-up: what followed the last few tokens when they occurred before.

No model is asked; it pays where output repeats its prompt (summaries, code, extraction).  Rule: vLLM 0.32.0,
``vllm/v1/spec_decode/ngram_proposer.py``; where no length is asked for, n-grams of exactly 5 tokens are looked up, as there
(``vllm/config/speculative.py``: ``prompt_lookup_min`` and ``prompt_lookup_max``, which its own comment calls arbitrarily chosen).
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import ConfigError
from workbench.speculative.proposer import Wanted

DEFAULT_N = 5


class NgramProposer:
    """A :class:`~workbench.speculative.proposer.Proposer` that looks up the last ``min_n`` to ``max_n`` tokens; see :func:`propose`.

    Raises :class:`ConfigError` for impossible lengths.
    """

    def __init__(self, *, min_n: int = DEFAULT_N, max_n: int = DEFAULT_N) -> None:
        _check_lengths(min_n, max_n)
        self.min_n, self.max_n = min_n, max_n

    def propose(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        """Drafts for each of ``wanted``; a request's own tokens are all that is looked through."""
        return [self._look_up(one.token_ids, max(0, one.limit)) for one in wanted]

    def _look_up(self, token_ids: Sequence[int], limit: int) -> list[int]:
        return propose(token_ids, min_n=self.min_n, max_n=self.max_n, k=limit, max_model_len=len(token_ids) + limit)


def propose(token_ids: Sequence[int], *, min_n: int, max_n: int, k: int, max_model_len: int) -> list[int]:
    """The up to ``k`` tokens that followed an earlier occurrence of the last n tokens; empty when there is none.

    The longest n from ``max_n`` down to ``min_n`` that occurred before decides, and of its occurrences the earliest; it may overlap
    the end.  No more are proposed than ``max_model_len`` leaves room for.  Takes time linear in ``len(token_ids)``.
    Raises :class:`ConfigError` for an impossible ``min_n``, ``max_n`` or ``k``.

    >>> propose([1, 2, 3, 4, 1, 2, 3], min_n=2, max_n=2, k=3, max_model_len=100)
    [4, 1, 2]
    """
    _check_lengths(min_n, max_n)
    if k < 0:
        raise ConfigError(f"k must be at least 0 drafts, not {k}")
    room = min(k, max_model_len - len(token_ids))
    if room <= 0:
        return []
    length, end = earlier_match(token_ids, max_n)
    return list(token_ids[end : end + room]) if length >= min_n else []


def earlier_match(token_ids: Sequence[int], max_n: int) -> tuple[int, int]:
    """The longest suffix, of at most ``max_n`` tokens, that occurs earlier too: its length and where its earliest occurrence ends.

    ``(0, 0)`` when not even the last token occurred before.  Works backwards, as Knuth, Morris and Pratt do forwards: ``matched`` is
    how many tokens from ``start`` on equal the last ones, and after a mismatch ``borders`` tells how many still do.

    >>> earlier_match([7, 8, 9, 7, 8], 3)
    (2, 2)
    """
    last = len(token_ids) - 1
    borders = [0] * min(max_n, last + 1)  # borders[i]: the longest part of the last i + 1 tokens that both begins and ends them
    best = end = matched = 0
    for start in range(last - 1, -1, -1):
        token = token_ids[start]
        while matched and token_ids[last - matched] != token:
            matched = borders[matched - 1]
        if token_ids[last - matched] == token:
            matched += 1
        if last - start < len(borders):
            borders[last - start] = matched
        if matched and matched >= best:
            best, end = matched, start + matched
        if matched == len(borders):
            matched = borders[-1]
    return best, end


def _check_lengths(min_n: int, max_n: int) -> None:
    if not 1 <= min_n <= max_n:
        raise ConfigError(f"n-grams of {min_n} to {max_n} tokens cannot be looked up: min_n must be at least 1 and max_n at least min_n")
