"""Why a request found as much in the prefix cache as it did when it was admitted, and not more.

vLLM's rule: of ``num_tokens`` known tokens at most ``(num_tokens - 1) // block_size`` blocks can be reused, and the look-up stops at
the first block that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.errors import RequestError
from workbench.events import Scheduled, StepRecord
from workbench.findings.why import Cause, PrefixStoryData
from workbench.prefix import extend_hashes
from workbench.prefix_story.past import Fate, Loss, Past, config_at, fate_of, request_at, unknown_request
from workbench.render._format import plural
from workbench.render.why import prefix_html, prefix_text
from workbench.trace import Trace

__all__ = ["PrefixStory", "admissions", "prefix_story"]


class PrefixStory(PrefixStoryData, frozen=True):
    """One look-up in the prefix cache, and why it stopped; fields as in :class:`~workbench.findings.why.PrefixStoryData`."""

    def __repr__(self) -> str:
        return prefix_text(self)

    def _repr_html_(self) -> str:
        return prefix_html(self)


class _Stop(NamedTuple):
    """Why a look-up stopped, and the half sentence that says so."""

    cause: Cause
    words: str
    other: str | None = None
    position: int | None = None
    token_id: int | None = None
    other_token_id: int | None = None
    lost_step: int | None = None


class _LookUp:
    """One look-up and what was known, computed and cached before it."""

    def __init__(self, trace: Trace, record: StepRecord, row: Scheduled) -> None:
        self.trace, self.record, self.name = trace, record, row.request_id
        self.config = config_at(trace, record.step)
        self.size = self.config.block_size
        self.past = Past(trace, self.name, record.step)
        self.own = self.past.known[self.name]
        self.possible, self.hits = max(len(self.own) - 1, 0) // self.size, row.num_cached // self.size

    def fate(self, block: int) -> Fate:
        """What had become of the content of the block with this place in the table."""
        digests: list[bytes] = []
        extend_hashes(digests, self.own[: (block + 1) * self.size], self.size)
        return fate_of(self.trace, self.name, self.record.step, digests[block]) if len(digests) > block else Fate(False)

    @property
    def where(self) -> str:
        """The first block that was not found."""
        first = self.hits * self.size
        return f"block {self.hits} (tokens {first} to {first + self.size - 1})"


def prefix_story(trace: Trace, request_id: str, step: int | None = None) -> PrefixStory:
    """Explain the prefix cache's hits and misses when ``request_id`` was admitted in ``step``, by default for the first time.

    A request that was preempted has several admissions.  Raises :class:`RequestError` for a request that is not known or was not
    admitted in that step, and names what there is; :class:`IndexError` for a step that is not in the trace.
    """
    record, row = _admission(trace, request_id, step)
    look = _LookUp(trace, record, row)
    stop = _stop(look)
    return PrefixStory(
        request_id=request_id,
        step=record.step,
        resumed=request_id in record.resumed,
        num_tokens=len(look.own),
        block_size=look.size,
        possible=look.possible,
        hits=look.hits,
        num_cached=row.num_cached,
        cause=stop.cause,
        sentence=f"{request_id} {_found(look, stop)}: {stop.words}.",
        other=stop.other,
        position=stop.position,
        token_id=stop.token_id,
        other_token_id=stop.other_token_id,
        lost_step=stop.lost_step,
    )


def admissions(trace: Trace, request_id: str) -> tuple[int, ...]:
    """The steps in which a request was admitted, resumptions included.  Raises :class:`RequestError` for an unknown one."""
    if request_id not in trace.requests:
        raise unknown_request(trace, request_id)
    return tuple(record.step for record in trace.records if request_id in record.admitted)


def _admission(trace: Trace, request_id: str, step: int | None) -> tuple[StepRecord, Scheduled]:
    steps = admissions(trace, request_id)
    record = trace.at(step) if step is not None else None
    if not steps:
        raise RequestError(f"{request_id} was never admitted in this trace, so it never looked for a prefix: ask why it waits instead")
    record = record or trace.at(steps[0])
    if request_id not in record.admitted:
        raise RequestError(f"{request_id} was not admitted in step {record.step}; it was in {_listed(steps)}: choose from these")
    return record, next(row for row in record.scheduled if row.request_id == request_id)


def _listed(steps: Sequence[int]) -> str:
    words = [str(step) for step in steps]
    return f"step {words[0]}" if len(words) == 1 else f"steps {', '.join(words[:-1])} and {words[-1]}"


def _found(look: _LookUp, stop: _Stop) -> str:
    if stop.cause in ("off", "prompt_logprobs", "too_short"):
        return "reused nothing"
    blocks = plural(look.possible, "reusable block")
    if not look.hits:
        return f"found {f'none of {blocks}' if look.possible > 1 else 'its one reusable block not'} in the prefix cache"
    return f"found {look.hits} of {blocks} in the prefix cache, {look.hits * look.size} of its {plural(len(look.own), 'token')}"


def _stop(look: _LookUp) -> _Stop:
    if not look.config.enable_prefix_caching:
        return _Stop("off", "prefix caching is off (enable_prefix_caching)")
    if request_at(look.trace, look.name, look.record.step).sampling.prompt_logprobs is not None:
        return _Stop("prompt_logprobs", "prompt_logprobs needs every position computed")
    if not look.possible and not look.hits:
        least = "at least one token must be computed"
        return _Stop("too_short", f"its {plural(len(look.own), 'token')} fill no more than one block of {look.size}, and {least}")
    if look.hits >= look.possible:
        return _complete(look, look.fate(look.hits - 1))
    fate = look.fate(look.hits)
    if fate.cached and look.config.gives_up_last_hit:
        given_up = "an EAGLE head reads what the model computed before the first new token, so the last block found is computed again"
        return _Stop("given_up", f"{look.where} was found and given up: {given_up}", fate.by)
    return _never(look) if fate.cached or fate.loss is None else _lost(look, fate.loss)


def _complete(look: _LookUp, last: Fate) -> _Stop:
    if not last.cached:
        return _Stop("complete", "it could not have found more")
    by = "itself" if last.by == look.name else last.by
    return _Stop("complete", f"it could not have found more; the last of them was computed by {by} in step {last.step}", other=last.by)


def _lost(look: _LookUp, loss: Loss) -> _Stop:
    """The content was findable once."""
    if loss.kind == "reused":
        by = "itself" if loss.by == look.name else loss.by
        return _Stop("evicted", f"{look.where} was evicted at step {loss.step} to make room for {by}", loss.by, lost_step=loss.step)
    if loss.kind == "reset":
        return _Stop("dropped", f"{look.where} was dropped when the prefix cache was emptied before step {loss.step}", lost_step=loss.step)
    changed = {name for command in look.trace.at(loss.step).commands if command.kind == "knobs" for name in command.after}
    knobs = " and ".join(sorted(changed & {"enable_prefix_caching", "num_blocks", "policy"})) or "a setting"
    return _Stop("dropped", f"{look.where} was dropped when {knobs} was changed before step {loss.step}", lost_step=loss.step)


def _never(look: _LookUp) -> _Stop:
    """The content was never findable: say where what had been computed parts from it."""
    step, end = look.record.step, (look.hits + 1) * look.size
    if look.trace.first_step:
        return _Stop("unknown", f"{look.where} was not cached since step {look.trace.first_step}, where this trace begins")
    nearest, shared, theirs = _nearest(look)
    if nearest is None:
        return _Stop("not_computed", f"{look.where} was never computed before step {step}; no request had begun with the same token")
    who = "it" if nearest == look.name else nearest
    if shared >= end:
        why = _not_kept(look.config.policy)
        return _Stop("not_kept", f"{look.where} had been computed by {who}, but could not be found: {why}", nearest)
    if theirs is None:
        only = f"{who} had computed only the first {plural(shared, 'token')} of it"
        return _Stop("not_computed", f"{look.where} was never computed before step {step}; {only}", nearest)
    mine, earlier = look.own[shared], "its earlier prompt" if nearest == look.name else nearest
    apart = f"token {shared} is {_token(look.trace, mine)}, but {_token(look.trace, theirs)} in {earlier}, which shares the first {shared}"
    return _Stop("differs", f"{look.where} differs from what was computed before: {apart}", nearest, shared, mine, theirs)


def _not_kept(policy: str) -> str:
    if policy == "lpm":
        return "with policy lpm a prompt enters the cache after its step, and output when its request ends"
    if policy in ("fcfs", "priority"):
        return "prefix caching was off then"
    return f"with policy {policy} a prompt enters the cache when all of it was computed"


def _nearest(look: _LookUp) -> tuple[str | None, int, int | None]:
    """Whose computed tokens share the longest beginning, how long it is, and the token with which theirs goes on."""
    best: tuple[str | None, int, int | None] = (None, 0, None)
    for computed in look.past.computed():
        length = _common(look.own, computed.token_ids)
        following = computed.token_ids[length] if length < len(computed.token_ids) else None
        if length > best[1] or (length and length == best[1] and best[2] is None and following is not None):
            best = (computed.request_id, length, following)
    return best


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return next((place for place, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), min(len(ours), len(theirs)))


def _token(trace: Trace, token_id: int) -> str:
    text = trace.token_texts.get(token_id)
    return f"{token_id}" if text is None else f"{text!r} ({token_id})"
