"""What a proposer is asked for and what it answers: the one seam between drafting and the rest of the engine.

A proposer of this kind sees tokens and nothing else, no hidden states and no logits.  It is *pure*: the same requests in the same order
get the same drafts, whatever was asked before, so a step that is done again after a rewind, or in a fork, is the same step.  What it
remembers between calls may only make it faster; memory that changes drafts is explicit (see :mod:`~workbench.speculative.suffix`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self, runtime_checkable


class Wanted(NamedTuple):
    """One request that may get drafts.

    ``token_ids``: all known tokens, prompt first, those emitted in this step included.  ``limit``: at most so many drafts, already
    capped by ``max_tokens`` and the model's length.  ``seed``: the request's, for stateless randomness
    (:func:`workbench.randomness.uniform`).
    """

    request_id: str
    token_ids: Sequence[int]
    num_prompt_tokens: int
    limit: int
    seed: int


class Proposer(Protocol):
    """Guesses the next tokens of requests from their tokens alone."""

    def propose(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        """Drafts for each of ``wanted``, in the same order: a list of at most ``limit`` token ids, empty where nothing is guessed."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """What a proposer has besides when its drafts depend on answers that were finished before (as with ``suffix``)."""

    def finished(self, step: int, request_id: str, output_token_ids: Sequence[int]) -> None:
        """Remember what a request that ended in ``step`` had answered."""
        ...

    def rewind(self, step: int) -> None:
        """Go back to where ``step`` is the next one: forget the answers that finished in it or later."""
        ...

    def copy(self) -> Self:
        """A proposer with the same memory, which from here on is its own: for a fork."""
        ...
