"""The records: what happened in a step, as frozen values that every view, plot and export reads.

A :class:`StepRecord` is complete: from the records alone one can redraw every queue, block and token.
They are ``array_like`` msgspec structs, so ten thousand of them encode small; fields are only ever appended
(a change of meaning raises :data:`TRACE_VERSION`).  They are values that cannot point back at themselves, so the garbage collector is told
to leave them alone: a long run would else spend a fifth of its time being searched for cycles.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from workbench.draft_choice import DraftChoice

TRACE_VERSION = 1
Fidelity = Literal["exact", "reconstructed", "sampled"]


class Verdict(StrEnum):
    """What the scheduler did with an unfinished request in one step."""

    SCHEDULED = "scheduled"  # all the tokens it could compute now
    PARTIAL = "partial"  # some of them
    DEFERRED = "deferred"  # none
    PREEMPTED = "preempted"  # lost its blocks in this step
    REJECTED = "rejected"  # can never run


class Reason(StrEnum):
    """Why a :class:`Decision` is what it is; the numbers stand in the decision."""

    FULL = "full"
    TOKEN_BUDGET = "token_budget"
    LONG_PREFILL_THRESHOLD = "long_prefill_token_threshold"
    MAX_MODEL_LEN = "max_model_len"
    MAX_NUM_SEQS = "max_num_seqs"
    NO_FREE_BLOCKS = "no_free_blocks"
    HEAD_OF_LINE = "head_of_line"
    PREEMPTION_IN_STEP = "preemption_in_step"
    CHUNKED_PREFILL_OFF = "chunked_prefill_off"
    SPECULATIVE_PADDING = "speculative_padding"
    NOT_ARRIVED = "not_arrived"
    BATCH_NOT_FULL = "batch_not_full"
    BATCH_RUNNING = "batch_running"
    PREEMPTED_FOR = "preempted_for"
    NEVER_FITS = "never_fits"
    RESERVED_TO_COMPLETION = "reserved_to_completion"  # those that run have reserved the blocks that they may need until they end
    SIBLING_PREFIX = "sibling_prefix"  # another request is about to compute the same beginning: waiting for it spares the work
    PREFILL_FIRST = "prefill_first"  # this step computes prompts only; decoding goes on when no prompt can be added
    MEMORY_ESTIMATE = "memory_estimate"  # the tokens that all may still write, as far as one can guess, do not fit the pool
    UNTIL_ONE_FINISHES = "until_one_finishes"  # the batch was found full before, and nobody has left it since
    PLACE_TAKEN = "place_taken"  # more urgent requests fill the batch (max_num_seqs): the last started had to make room
    RETRACTED = "retracted"  # the next token of all that decode did not fit the pool: the one with the fewest outputs had to go


class Decision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why one unfinished request did, or did not, run in one step.

    ``num_tokens``: scheduled in this step.  ``needed``, ``available``, ``limit``: the numbers behind the reason, in its
    unit (tokens for budgets and ``memory_estimate``, blocks for ``no_free_blocks``, ``reserved_to_completion`` and ``retracted``,
    requests for ``max_num_seqs``, steps for arrivals and windows; ``needed`` is ``None`` for a request that arrives by the clock).
    ``blocker``: the request that stands in the way, or for which this one was preempted.
    """

    request_id: str
    verdict: Verdict
    reason: Reason
    num_tokens: int = 0
    needed: int | None = None
    available: int | None = None
    limit: int | None = None
    blocker: str | None = None


class Budget(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A limit of one step and how much of it was used."""

    limit: int
    used: int


class KvUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Blocks of the pool by state; the three always add up to its size.

    vLLM's own gauge counts ``cached`` (unreferenced, but reusable for their prefix) as free; here they are apart.
    """

    in_use: int
    cached: int
    free: int

    @property
    def total(self) -> int:
        """Blocks of the pool."""
        return self.in_use + self.cached + self.free


class StepTiming(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Milliseconds of each phase of a step."""

    plan_ms: float = 0.0
    prepare_ms: float = 0.0
    forward_ms: float = 0.0
    sample_ms: float = 0.0
    commit_ms: float = 0.0
    draft_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """All phases together."""
        return self.plan_ms + self.prepare_ms + self.forward_ms + self.sample_ms + self.commit_ms + self.draft_ms

    @property
    def runner_ms(self) -> float:
        """What the runner took, without proposing drafts."""
        return self.prepare_ms + self.forward_ms + self.sample_ms


class Scheduled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the batch: positions ``[start, end)`` of a request, the last ``num_drafts`` of them drafts.

    ``num_cached``: tokens that the prefix cache spared, given in the step that admitted the request.
    """

    request_id: str
    kind: Literal["prefill", "decode", "verify"]
    start: int
    end: int
    num_cached: int = 0
    num_drafts: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads for this row."""
        return self.end - self.start


class BlockEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing that happened to one KV block.

    ``allocated``: taken from the free queue for the request.  ``hit``: an idle cached block taken up again.  ``shared``: a
    block in use gained one more owner.  ``cached``: became full, reusable under ``hash``.  ``evicted``: lost its ``hash``
    because the block was reused.  ``freed``: the request let go of it.
    """

    kind: Literal["allocated", "hit", "shared", "cached", "evicted", "freed"]
    block_id: int
    request_id: str
    hash: str = ""


class SpecRound(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One verification: ``accepted`` of ``proposed`` drafts were right, ``emitted`` tokens came out.

    ``rejected_at`` is the first draft position that failed, ``None`` when all were accepted.  Milliseconds are the
    request's share of drafting (at the end of the step before, by drafts) and of the step that verified (by tokens).
    Of a request that was admitted in the step the drafts are placeholders, which nobody proposed; they count, as in vLLM.
    """

    request_id: str
    proposed: int
    accepted: int
    emitted: int
    rejected_at: int | None = None
    draft_ms: float = 0.0
    verify_ms: float = 0.0


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Log-probability (natural logarithm) and 1-based rank of a token, and the likeliest alternatives."""

    token_id: int
    logprob: float
    rank: int
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


class Sampled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tokens that a request gained in a step, and the text they completed.

    Text lags while a multi-byte character is unfinished, so ``text`` may be empty and later hold several tokens'.
    """

    request_id: str
    token_ids: tuple[int, ...]
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()


class PromptScores(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Log-probabilities of prompt tokens at positions ``start``, ``start + 1``, …, when ``prompt_logprobs`` was asked."""

    request_id: str
    start: int
    logprobs: tuple[TokenLogprobs, ...]


class Arrival(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request entered the waiting queue; ``arrival_s`` on the engine's clock."""

    request_id: str
    arrival_s: float


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request ended: ``stop`` (end of sequence or a stop rule), ``length`` or ``abort``."""

    request_id: str
    reason: Literal["stop", "length", "abort"]
    stop_reason: int | str | None = None


class Proposed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Draft tokens proposed for a request after a step; the next step that runs it verifies them, or the first of them."""

    request_id: str
    token_ids: tuple[int, ...]


class Command(msgspec.Struct, frozen=True, array_like=True):
    """Something done to the engine between two steps, noted with the step that came next.

    ``add``: the request came in at ``at_s`` on the engine's clock.  ``abort``: it was ended.  ``edit``: some of its fields were
    changed.  ``knobs``: settings were changed.  ``reset``: the prefix cache was emptied.  ``abandoned``: a plan made at ``at_s`` was taken
    back, because its execution failed or was interrupted.  ``before`` and ``after`` hold the changed fields of ``edit`` and ``knobs``.

    Together with each step's clock and tokens, commands are all that the scheduler's decisions depend on: a trace from its
    first step can be run again, and stopped at any step (:func:`workbench.rebuild.rebuild`).
    """

    kind: Literal["add", "abort", "edit", "knobs", "reset", "abandoned"]
    request_id: str = ""
    at_s: float = 0.0
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    @property
    def restarts(self) -> bool:
        """Whether it gave a request another prompt, so that its output until then counts no more."""
        return self.kind == "edit" and "prompt_token_ids" in self.after


class StepRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Everything about one step.

    ``start_s`` is on the engine's clock.  ``kv`` counts blocks after planning, ``kv_after`` after the commit freed what
    had finished.  ``admitted`` entered the batch in this step, ``resumed`` are those of them that had been preempted.  ``running`` and
    ``waiting`` are the queues after planning, in order; ``held`` are requests that are
    done but keep their place until their static or dynamic batch ends.  ``commands`` came before the step, in this order;
    ``proposed`` are drafts for the next one, ``draft_choice`` says why so many, ``draft_problem`` why there are none although some
    were wanted: the proposer failed.
    """

    step: int
    start_s: float
    timing: StepTiming
    tokens: Budget
    seqs: Budget
    kv: KvUsage
    kv_after: KvUsage
    scheduled: tuple[Scheduled, ...] = ()
    decisions: tuple[Decision, ...] = ()
    block_events: tuple[BlockEvent, ...] = ()
    sampled: tuple[Sampled, ...] = ()
    spec: tuple[SpecRound, ...] = ()
    arrived: tuple[Arrival, ...] = ()
    admitted: tuple[str, ...] = ()
    preempted: tuple[str, ...] = ()
    resumed: tuple[str, ...] = ()
    finished: tuple[Finished, ...] = ()
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    prompt_scores: tuple[PromptScores, ...] = ()
    commands: tuple[Command, ...] = ()
    proposed: tuple[Proposed, ...] = ()
    draft_choice: DraftChoice | None = None
    draft_problem: str = ""

    @property
    def duration_ms(self) -> float:
        """All phases of the step together."""
        return self.timing.total_ms

    @property
    def end_s(self) -> float:
        """When the step's tokens existed, on the engine's clock."""
        return self.start_s + self.timing.total_ms / 1e3

    @property
    def num_tokens(self) -> int:
        """Tokens that the model read in this step."""
        return self.tokens.used

    def __repr__(self) -> str:
        rows = " ".join(f"{row.request_id}:{row.kind}[{row.start}:{row.end}]" for row in self.scheduled)
        return (
            f"StepRecord(step={self.step}, {rows or 'idle'}, tokens {self.tokens.used}/{self.tokens.limit}, "
            f"kv {self.kv.in_use} in use + {self.kv.cached} cached + {self.kv.free} free, {self.duration_ms:.1f} ms)"
        )


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader of a trace needs to know of the model that ran."""

    name: str
    architecture: str = ""
    num_layers: int = 0
    hidden_size: int = 0
    num_heads: int = 0
    num_kv_heads: int = 0
    head_dim: int = 0
    vocab_size: int = 0
    num_parameters: int = 0
    max_model_len: int = 0
    dtype: str = ""
    device: str = ""
    weight_bytes: int = 0
    kv_bytes_per_token: int = 0
    path: str = ""  # the execution path that the runner chose, in words
