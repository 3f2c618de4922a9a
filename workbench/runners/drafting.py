"""What is the same for every way of proposing drafts: which requests want them, how many, and what a drafter may answer.

A runner asks once a step, after its tokens are chosen and before they are committed.  A drafter that fails, or answers nonsense, costs a
step its drafts and nothing else: the reason stands in ``StepOutput.draft_problem``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from workbench.plan import PlanRow, StepOutput, StepPlan
from workbench.speculative.proposer import Proposer, Wanted


class Grown(NamedTuple):
    """A row of the plan after its step: ``token_ids`` are all that are known now, ``emitted`` of them new.

    ``limit``: at most so many drafts.  ``num_read``: how many of the row's tokens stay in the cache: those of the prompt and those
    verified, but no rejected draft.
    """

    row: PlanRow
    token_ids: list[int]
    num_emitted: int
    num_read: int
    limit: int

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.row.request.num_prompt_tokens

    @property
    def wanted(self) -> Wanted:
        """The same for a proposer that sees tokens alone."""
        request = self.row.request
        return Wanted(request.id, self.token_ids, request.num_prompt_tokens, self.limit, request.sampling.seed or 0)


def grown(plan: StepPlan, output: StepOutput) -> list[Grown]:
    """The plan's rows with the tokens that they have now."""
    return [_grown(plan, row, tokens) for row, tokens in zip(plan.rows, output.token_ids, strict=True)]


def _grown(plan: StepPlan, row: PlanRow, emitted: Sequence[int]) -> Grown:
    known = [*row.token_ids, *emitted]
    if not emitted:
        return Grown(row, known, 0, row.num_tokens, 0)
    return Grown(row, known, len(emitted), len(known) - 1 - row.start, _limit(plan, row, known, emitted))


def _limit(plan: StepPlan, row: PlanRow, known: Sequence[int], emitted: Sequence[int]) -> int:
    """Drafts that can still become output: a round emits one token more than it accepts, and none after the end."""
    if not plan.num_drafts:
        return 0
    request, sampling = row.request, row.request.sampling
    ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else set(request.eos_token_ids))
    if ends.intersection(emitted) and len(known) - request.num_prompt_tokens >= sampling.min_tokens:
        return 0
    left = min(plan.max_model_len, request.num_prompt_tokens + sampling.max_tokens) - len(known)
    return max(0, min(plan.num_drafts, left - 1))


class Drafter(Protocol):
    """Proposes drafts with whatever it needs besides tokens."""

    def draft(self, rows: Sequence[Grown]) -> list[list[int]]:
        """Drafts for each row, at most its ``limit``; rows that get none are there too, as their tokens may have to be read."""
        ...


def propose(plan: StepPlan, output: StepOutput, vocab_size: int, draft: Callable[[list[Grown]], list[list[int]]]) -> None:
    """Put the drafts of ``draft`` into ``output``, with the time they took; what is wrong with them instead, if something is."""
    began = time.perf_counter()
    rows = grown(plan, output)
    try:
        output.proposed = [_checked(row, drafts, vocab_size) for row, drafts in zip(rows, draft(rows), strict=True)]
    except Exception as error:  # whatever a proposer raises, the tokens of the step are good
        output.proposed, output.draft_problem = None, f"{type(error).__name__}: {error}"
    output.draft_ms = (time.perf_counter() - began) * 1e3


def from_tokens(proposer: Proposer, rows: Sequence[Grown]) -> list[list[int]]:
    """The drafts of a proposer that sees tokens alone."""
    asked = [row for row in rows if row.limit]
    answers = proposer.propose([row.wanted for row in asked]) if asked else []
    if len(answers) != len(asked):
        raise ValueError(f"the proposer answered for {len(answers)} requests, {len(asked)} were asked")
    drafts = iter(answers)
    return [next(drafts) if row.limit else [] for row in rows]


def _checked(row: Grown, drafts: Sequence[int], vocab_size: int) -> list[int]:
    name = row.row.request.id
    if len(drafts) > row.limit:
        raise ValueError(f"{len(drafts)} drafts for {name}, at most {row.limit} were wanted")
    for token in drafts:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0 or (vocab_size and token >= vocab_size):
            raise ValueError(f"draft {token!r} for {name} is no token id (0 to {vocab_size - 1})")
    return list(drafts)
