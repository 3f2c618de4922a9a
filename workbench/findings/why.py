"""Why: explanations, the changes that would have helped, lives and prefix stories, as values.

Each is worked out, and handed out with its faces, by :mod:`workbench.explain`, :mod:`workbench.counterfactual`,
:mod:`workbench.lives` and :mod:`workbench.prefix_story`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from workbench.events import Decision, Reason, Verdict

Goal = Literal["run", "run in full"]
Kind = Literal["not arrived", "queue", "prefill", "decode", "idle", "preempted", "held", "finished"]
Cause = Literal[
    "complete", "off", "prompt_logprobs", "too_short", "differs", "not_computed", "not_kept", "evicted", "dropped", "given_up", "unknown"
]

TRIED = (
    "priority", "long_prefill_token_threshold", "enable_chunked_prefill", "batch_window_steps", "max_num_seqs",
    "max_num_batched_tokens", "reserve_full_prompt", "num_blocks",
)  # fmt: skip
"""What is tried, the least intrusive first, which is the order of suggestions.

One request's own place comes before what shapes other requests' chunks, that before more work in every step, that before
a promise to a prompt given up (preemptions may follow), and memory, which a running engine cannot get, comes last.
"""


class CounterfactualData(msgspec.Struct, frozen=True):
    """One change with which ``request_id`` would have run (or run in full) in ``step``; a smaller one would not have done.

    ``knob`` is an :class:`~workbench.config.EngineConfig` knob, or ``"priority"`` of the request.  ``verdict`` is what the step decided
    instead, ``part`` the kind of row that was cut (``prefill``, ``decode``, ``verify``), empty for one that did not run.
    """

    request_id: str
    step: int
    knob: str
    before: int | bool
    after: int | bool
    goal: Goal
    verdict: Verdict = Verdict.DEFERRED
    part: str = ""

    @property
    def changes(self) -> dict[str, Any]:
        """Keywords of ``fork`` that make the change: ``{"num_blocks": 50}`` or ``{"edit": {"r4": {"priority": 0}}}``."""
        return self._keywords(self.after)

    @property
    def one_unit_less(self) -> dict[str, Any]:
        """Keywords of ``fork`` for the next smaller change, with which the request does not run (or not in full)."""
        if isinstance(self.after, bool):
            return self._keywords(self.before)
        return self._keywords(self.after + (1 if self._falls else -1))

    @property
    def _falls(self) -> bool:
        """Whether the value goes down; a threshold of 0 is none at all, so a finite one is less."""
        return self.after < self.before or (self.knob == "long_prefill_token_threshold" and not self.before)

    def _keywords(self, value: int | bool) -> dict[str, Any]:
        return {"edit": {self.request_id: {"priority": value}}} if self.knob == "priority" else {self.knob: value}


class ExplanationData(msgspec.Struct, frozen=True):
    """Why ``request_id`` ran, or did not, in ``step``.

    ``sentence`` says it with the numbers of ``decision``.  ``chain``: who waits for whom, when that is the cause.  ``afterwards``: when
    it ran, and what freed the way.  ``prefix``: what the prefix cache gave it, in the step that admitted it.  ``counterfactuals``: the
    smallest change of each single knob that would have let it run, or run in full; ``tried`` says that they were looked for.
    """

    request_id: str
    step: int
    decision: Decision
    sentence: str
    chain: tuple[str, ...] = ()
    afterwards: str | None = None
    prefix: str | None = None
    counterfactuals: tuple[CounterfactualData, ...] = ()
    tried: bool = False


class StepExplanationData(msgspec.Struct, frozen=True):
    """A whole step: what was done to the engine before it, a summary, and an explanation for every unfinished request.

    ``explanations`` are in batch order, then in the order of the waiting queue, then those that had not arrived.
    """

    step: int
    summary: str
    commands: tuple[str, ...]
    explanations: tuple[ExplanationData, ...]


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive steps ``[start, end)`` in which a request did the same.

    ``kind``: ``not arrived``, ``queue``, ``prefill``, ``decode`` (verifying drafts included), ``idle`` (in the batch, without tokens),
    ``preempted`` (waiting to be resumed), ``held`` (done, but its batch is not), or ``finished``, which takes no steps.
    ``ms``: what its steps took.  ``tokens``: that the model read; ``cached``: that the prefix cache spared; ``output``: that came out;
    ``chunks``: of the prompt.  ``rounds``, ``proposed``, ``accepted``: verifications and their drafts.  ``reasons``: why it did not run,
    with the number of steps.
    ``cause`` and ``other``: how it was preempted, and for whom; how it finished.
    """

    kind: Kind
    start: int
    end: int
    ms: float = 0.0
    tokens: int = 0
    cached: int = 0
    output: int = 0
    chunks: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    reasons: tuple[tuple[Reason, int], ...] = ()
    cause: str = ""
    other: str | None = None

    @property
    def num_steps(self) -> int:
        """Length in steps."""
        return self.end - self.start


class LifeData(msgspec.Struct, frozen=True):
    """What one request went through, in order.

    ``segments`` follow each other without gaps, from the step before which it was added, or the first of the trace, to its end, or the
    trace's.  ``finish_reason`` is ``None`` while it has not ended; ``finished_step`` is the step that ended it.
    """

    request_id: str
    segments: tuple[Segment, ...]
    finish_reason: str | None = None
    finished_step: int | None = None


class PrefixStoryData(msgspec.Struct, frozen=True, kw_only=True):
    """One look-up in the prefix cache.

    ``num_tokens``: known when the request was admitted in ``step``.  ``possible``: blocks that could at most be reused; ``hits``: those
    that were; ``num_cached``: the tokens that this spared.  ``sentence`` says in words why the look-up stopped, ``cause`` in one:
    ``complete`` (it did not), ``off``, ``prompt_logprobs``, ``too_short``, ``differs`` (at ``position``, where ``other`` goes on with
    another one), ``not_computed``, ``not_kept`` (computed by ``other``, but not findable yet, or while prefix caching was off),
    ``evicted`` (in ``lost_step``, to make room for ``other``), ``dropped`` (by a command before ``lost_step``), ``given_up`` (found, and
    computed again for an EAGLE head), or ``unknown`` in a trace that lacks its beginning.
    """

    request_id: str
    step: int
    resumed: bool
    num_tokens: int
    block_size: int
    possible: int
    hits: int
    num_cached: int
    cause: Cause
    sentence: str
    other: str | None = None
    position: int | None = None
    token_id: int | None = None
    other_token_id: int | None = None
    lost_step: int | None = None
