"""``StepPlan`` and ``StepOutput``: the one seam between deciding and executing.

The scheduler writes a plan, a runner answers with an output.  A plan is flat: each row is one request's
half-open token range ``[start, end)`` with the block table that covers it, so a runner can turn all rows into
the arrays that paged attention wants (``input_ids``, ``position_ids``, ``past_lens``, ``subsequence_begins``,
``block_indices``, ``block_indices_begins``) without asking anybody else.  Runners keep no state of a request:
everything that shapes its next token is in the row.  That is what makes rewind and fork exact.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import msgspec

from workbench.events import TokenLogprobs
from workbench.request import Request

Kind = Literal["prefill", "decode", "verify"]


class PlanRow(msgspec.Struct, frozen=True):
    """One request's share of a step.

    ``token_ids`` are all tokens known so far (prompt + output; a live list, valid until commit), of which the model
    reads ``[start, min(end, len(token_ids)))`` and then ``draft_token_ids``; ``end - start`` tokens in all.
    ``samples`` says that the row's last tokens need logits: ``1 + len(draft_token_ids)`` rows of them.
    ``block_ids`` is the block table (live as well): token position ``p`` lives in slot ``p % block_size`` of block
    ``block_ids[p // block_size]``.  Ids are 1 … num_blocks; 0 is never given out (vLLM's null block).
    """

    request: Request
    kind: Kind
    start: int
    end: int
    token_ids: Sequence[int]
    block_ids: Sequence[int]
    samples: bool
    draft_token_ids: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads for this row."""
        return self.end - self.start

    @property
    def input_ids(self) -> list[int]:
        """The tokens that the model reads in this step."""
        known = list(self.token_ids[self.start : self.end])
        return known + list(self.draft_token_ids) if self.draft_token_ids else known


class StepPlan(msgspec.Struct, frozen=True):
    """What one step runs, in batch order.

    ``num_drafts``: how many drafts the runner shall propose for each request when the step is done.  ``max_model_len``: the longest prompt
    plus output.
    """

    step: int
    block_size: int
    rows: tuple[PlanRow, ...]
    num_drafts: int = 0
    max_model_len: int = sys.maxsize

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads in this step, over all rows."""
        return sum(row.end - row.start for row in self.rows)


class StepOutput(msgspec.Struct):
    """What the runner returned, row by row in the plan's order.

    ``token_ids[i]`` is empty for a row that does not sample; with drafts it holds the accepted ones and the
    corrected or bonus token.  ``proposed[i]`` are drafts for the request's next step; ``draft_problem`` says why there are none although
    the plan wants some.  ``prompt_logprobs[i]`` are those of the
    prompt tokens at positions ``start + 1 … min(end, num_prompt_tokens - 1)``, which the row's logits speak of.  Times are milliseconds.
    """

    token_ids: list[list[int]]
    proposed: list[list[int]] | None = None
    logprobs: list[tuple[TokenLogprobs, ...]] | None = None
    prompt_logprobs: list[tuple[TokenLogprobs, ...]] | None = None
    prepare_ms: float = 0.0
    forward_ms: float = 0.0
    sample_ms: float = 0.0
    draft_ms: float = 0.0
    draft_problem: str = ""
