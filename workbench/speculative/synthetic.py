"""Acceptance as a number: drafts that turn out right at a chosen rate, to study what speculation does to scheduling alone.

Whether a draft is right is decided by a coin, one for each output position, that shows heads with probability ``rate``.  The drafts
are the target's own next tokens, run ahead by an *oracle*, and each is left as it is for heads and replaced by a different token for
tails (:func:`corrupt`).  Everything after that is ordinary: the verification keeps drafts up to the first wrong one, so the emitted
text is exactly that of decoding without drafts, greedy or sampled, and only the number of tokens per step changes.

* The numbers accepted are those of independent trials.  A round tests positions up to its first tails; the next round begins after
  that, so no position is tested twice and the coins a round did not come to are as good as new.  With k drafts, 1 + accepted is
  (1 − rate^(k + 1)) / (1 − rate) on average (Leviathan et al. 2023, equation 1).
* A coin belongs to (seed, position) and to nothing else: a step done again falls the same.
* The oracle costs target passes that no real drafter would make, so its time is not draft time: leave it out of every speed-up.

vLLM 0.32.0's ``rejection_sample_method: synthetic`` (``v1/sample/rejection_sampler.py``) spares these passes by accepting whatever the
drafter said: its text is then not the model's own.  Its rates are per position and unconditional (``synthetic_acceptance_rates``: the
chance that the first i + 1 drafts are all accepted); one rate a here is its list a, a², a³, ….
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.errors import ConfigError, IntegrityError
from workbench.randomness import uniform
from workbench.speculative.acceptance import DRAFT
from workbench.speculative.proposer import Wanted

COIN = DRAFT + 1
"""The stream of random numbers that the coins come from; those before it are :mod:`~workbench.speculative.acceptance`'s."""

Oracle = Callable[[Sequence[Wanted]], list[list[int]]]
"""The target's own next tokens for each request, as many as its ``limit`` (fewer where the text ends before)."""


def keeps(seed: int, position: int, rate: float) -> bool:
    """Whether the coin of output ``position`` shows heads: with probability ``rate``, always at 1, never at 0."""
    return uniform(seed, position, COIN) < rate


def accepted(seed: int, num_output: int, num_drafts: int, rate: float) -> int:
    """How many of ``num_drafts`` drafts are kept: those before the first tails.  ``num_output``: tokens before the first draft.

    >>> [accepted(0, num_output, 4, 0.7) for num_output in range(6)]
    [2, 1, 0, 2, 1, 0]
    """
    flips = (keeps(seed, num_output + index, rate) for index in range(num_drafts))
    return next((index for index, heads in enumerate(flips) if not heads), num_drafts)


def corrupt(drafts: Sequence[int], seed: int, num_output: int, rate: float, vocab_size: int) -> list[int]:
    """The drafts with a certainly different token wherever the coin shows tails.  ``num_output``: as for :func:`accepted`.

    The different token is the next id, and token 0 for the last.  Raises :class:`IntegrityError` when there is no other token.

    >>> corrupt([5, 6, 7, 8], seed=0, num_output=0, rate=0.7, vocab_size=9)
    [5, 6, 8, 8]
    """
    if vocab_size < 2:
        raise IntegrityError(f"a vocabulary of {vocab_size} has no wrong token to propose")
    return [token if keeps(seed, num_output + index, rate) else (token + 1) % vocab_size for index, token in enumerate(drafts)]


class SyntheticProposer:
    """A :class:`~workbench.speculative.proposer.Proposer` whose drafts are the oracle's, right at ``rate`` (0 … 1)."""

    def __init__(self, rate: float, oracle: Oracle, vocab_size: int) -> None:
        if not 0 <= rate <= 1:
            raise ConfigError(f"an acceptance rate lies between 0 and 1, {rate} does not")
        self.rate, self.oracle, self.vocab_size = rate, oracle, vocab_size

    def propose(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        """The oracle's drafts for each of ``wanted``, some of them made wrong."""
        return [self._flip(one, drafts) for one, drafts in zip(wanted, self.oracle(wanted), strict=True)]

    def _flip(self, wanted: Wanted, drafts: Sequence[int]) -> list[int]:
        num_output = len(wanted.token_ids) - wanted.num_prompt_tokens
        return corrupt(drafts[: max(0, wanted.limit)], wanted.seed, num_output, self.rate, self.vocab_size)
