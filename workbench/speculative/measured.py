"""What speculation did in a run, and whether it paid: counts of verifications, and speed-ups against plain steps of the same run.

Everything is worked out from records.  A *round* is one verification of drafts; one without drafts does not count.  The placeholders with
which a newcomer is padded are drafts that cannot be right: they count in everything about acceptance, as they do in vLLM, and in nothing
about time, for nobody made them (:func:`counted`, :func:`rounds_of`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median_low
from typing import NamedTuple

import msgspec

from workbench.events import SpecRound, StepRecord


class SpeculationMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run's speculation; ``None``, or nothing, where no draft was verified.

    ``acceptance_rate``: accepted / proposed drafts.  ``mean_acceptance_length``: 1 + accepted / rounds.  ``acceptance_per_position``: share
    of the rounds in which at least that many drafts were accepted (unconditional); ``conditional_acceptance_per_position``: that of the
    rounds that had it and accepted every draft before it, ``None`` where none did.  Definitions: vLLM,
    ``docs/features/speculative_decoding/acceptance_metrics.md``, and its ``SpecDecodingStats`` for what counts: every draft that was
    scheduled, a newcomer's placeholders too.

    ``accepted_by_draft_length``: by the number of drafts that a round proposed, how many rounds accepted 0, 1, 2, … of them.
    ``draft_ms``: all time spent proposing, in vain or not.  ``verify_ms``: the rounds' share, by tokens, of the steps that verified them.

    ``speed_up_measured``, ``speed_up_predicted`` and ``draft_cost`` are those of :class:`SpeedUp`, all three ``None`` where there is
    nothing to compare with.  That is usual: a run with a fixed number of drafts often has no step in which nobody had any.  Then
    ``speed_up_missing`` says why in words, and ``compare`` with a run without speculation measures the speed-up between the two.
    """

    acceptance_rate: float | None = None
    mean_acceptance_length: float | None = None
    acceptance_per_position: tuple[float, ...] = ()
    conditional_acceptance_per_position: tuple[float | None, ...] = ()
    accepted_by_draft_length: dict[int, tuple[int, ...]] = {}
    draft_ms: float = 0.0
    verify_ms: float = 0.0
    draft_cost: float | None = None
    speed_up_measured: float | None = None
    speed_up_predicted: float | None = None
    speed_up_missing: str = ""


class SpeedUp(NamedTuple):
    """Whether speculation paid, by two readings of the same steps; all numbers are ``None`` where nothing can be compared.

    Compared are steps that verified drafts, and computed no prompt, with *plain* steps, which gave each of as many requests one token
    without drafts.  A run without a plain step of the size of a verifying one has nothing to compare with, and no number is made up for
    it: ``num_speculative_tokens="auto"`` measures plain steps by itself, and a run can always be compared with one without speculation.

    ``measured``: the time that plain steps take for the tokens that came out / the time it took, the drafting included.  ``predicted``:
    τ / (γc + 1) with the mean acceptance length τ and the mean number of drafts γ of the same rounds, which takes verifying to cost as much
    as a plain step; where ``measured`` is less, it does not.  ``draft_cost``: that c, the time of proposing one draft for each request /
    the time of a plain step.  ``missing``: why there is nothing to compare; empty where there is, and where no draft was verified at all.

    A plain step's time is the median of its size, the lower of two: the first ones warm up.
    """

    measured: float | None = None
    predicted: float | None = None
    draft_cost: float | None = None
    missing: str = ""


FEWEST_PLAIN_STEPS = 3  # of a size: the time of one or two says little
COMPARE = "compare with a run without speculation"


def counted(record: StepRecord) -> list[SpecRound]:
    """A step's verifications as vLLM counts them: of placeholders, too."""
    return [one for one in record.spec if one.proposed > 0]


def rounds_of(record: StepRecord) -> list[SpecRound]:
    """A step's verifications of drafts that a proposer made; those of a request that was admitted in the step are placeholders."""
    return [one for one in record.spec if one.proposed > 0 and one.request_id not in record.admitted]


def speculation(records: Sequence[StepRecord]) -> SpeculationMetrics:
    """Work out every figure of some steps."""
    rounds = [one for record in records for one in counted(record)]
    rate, length, positions = acceptance(rounds)
    gained = speed_up(records)
    return SpeculationMetrics(
        acceptance_rate=rate,
        mean_acceptance_length=length,
        acceptance_per_position=positions,
        conditional_acceptance_per_position=conditional(rounds),
        accepted_by_draft_length=by_length(rounds),
        draft_ms=math.fsum(record.timing.draft_ms for record in records),
        verify_ms=math.fsum(one.verify_ms for one in rounds),
        draft_cost=gained.draft_cost,
        speed_up_measured=gained.measured,
        speed_up_predicted=gained.predicted,
        speed_up_missing=gained.missing,
    )


# -- acceptance --------------------------------------------------------------------------------------------------------


def acceptance(rounds: Iterable[SpecRound]) -> tuple[float | None, float | None, tuple[float, ...]]:
    """Return acceptance rate, mean acceptance length and the unconditional rate of each draft position.

    Rounds without drafts do not count; without any other the first two are ``None``.
    """
    drafted = [(one.proposed, one.accepted) for one in rounds if one.proposed > 0]
    if not drafted:
        return None, None, ()
    accepted = sum(count for _, count in drafted)
    longest = max(count for count, _ in drafted)
    positions = tuple(sum(count > position for _, count in drafted) / len(drafted) for position in range(longest))
    return accepted / sum(count for count, _ in drafted), 1 + accepted / len(drafted), positions


def by_length(rounds: Iterable[SpecRound]) -> dict[int, tuple[int, ...]]:
    """By the number of drafts that a round proposed, how many rounds accepted 0, 1, 2, … of them."""
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for one in rounds:
        counts[one.proposed][one.accepted] += 1
    return {length: tuple(found[accepted] for accepted in range(length + 1)) for length, found in sorted(counts.items())}


def conditional(rounds: Sequence[SpecRound]) -> tuple[float | None, ...]:
    """For each position that was proposed, the share of the rounds that came to it in which it was accepted.

    A round comes to a draft that it has and before which all were accepted.  Where all rounds have as many drafts this is the quotient of
    two unconditional rates; where their number changes, that quotient would count rounds that never had the draft as refusals.
    """
    longest = max((one.proposed for one in rounds), default=0)
    came = [[one.accepted > place for one in rounds if one.accepted >= place < one.proposed] for place in range(longest)]
    return tuple(sum(right) / len(right) if right else None for right in came)


# -- speed-up ----------------------------------------------------------------------------------------------------------


class _Verifying(NamedTuple):
    """A step that verified drafts; ``drafting_ms`` went into proposing them, ``passes`` drafts one after the other."""

    size: int
    tokens: int
    step_ms: float
    drafting_ms: float
    passes: int
    rounds: list[SpecRound]


def speed_up(records: Sequence[StepRecord]) -> SpeedUp:
    """Compare a run's verifying steps with its plain ones."""
    plain, verifying = _sorted_out(records)
    plain_ms = {size: median_low(times) for size, times in plain.items()}
    compared = [step for step in verifying if len(plain.get(step.size, ())) >= FEWEST_PLAIN_STEPS and plain_ms[step.size] > 0]
    spent = math.fsum(step.step_ms + step.drafting_ms for step in compared)
    if not spent:
        return SpeedUp(missing=_missing(plain, verifying, any(map(counted, records))))
    instead = math.fsum(plain_ms[step.size] * step.tokens / step.size for step in compared)
    cost = math.fsum(step.drafting_ms for step in compared) / math.fsum(step.passes * plain_ms[step.size] for step in compared)
    rounds = [one for step in compared for one in step.rounds]
    tokens = 1 + sum(one.accepted for one in rounds) / len(rounds)
    drafts = sum(one.proposed for one in rounds) / len(rounds)
    return SpeedUp(instead / spent, tokens / (drafts * cost + 1), cost)


def _missing(plain: dict[int, list[float]], verifying: Sequence[_Verifying], verified: bool) -> str:
    """Why no verifying step can be compared with a plain one."""
    if not verified:
        return ""
    if not verifying:
        return f"every step that verified drafts computed a prompt or padded a newcomer as well: {COMPARE}"
    if not plain:
        return f"no step without drafts in this run: {COMPARE}"
    most = max(len(plain.get(step.size, ())) for step in verifying)
    if not most:
        return f"no step without drafts had as many requests as one that verified some: {COMPARE}"
    if most < FEWEST_PLAIN_STEPS:
        return f"fewer than {FEWEST_PLAIN_STEPS} steps without drafts had as many requests as those that verified some: {COMPARE}"
    return "the steps to compare took no time that could be measured"


def _sorted_out(records: Iterable[StepRecord]) -> tuple[dict[int, list[float]], list[_Verifying]]:
    """Times of plain steps by their size, and the verifying steps; what computes prompts or verifies placeholders is neither."""
    plain: dict[int, list[float]] = defaultdict(list)
    verifying: list[_Verifying] = []
    for record in records:
        kinds = {row.kind for row in record.scheduled}
        step_ms = record.timing.total_ms - record.timing.draft_ms  # its own drafting serves the next step
        rounds = rounds_of(record)
        if kinds == {"decode"}:
            plain[len(record.scheduled)].append(step_ms)
        elif rounds and "prefill" not in kinds and len(rounds) == len(record.spec):
            tokens = sum(len(sampled.token_ids) for sampled in record.sampled)
            drafting_ms = math.fsum(one.draft_ms for one in rounds)
            passes = max(one.proposed for one in rounds)
            verifying.append(_Verifying(len(record.scheduled), tokens, step_ms, drafting_ms, passes, rounds))
    return plain, verifying
