"""Latency, throughput, cache and speculation figures of a trace, each with its definition.

Nothing but records and requests is read, so a figure can be worked out for any trace and checked by hand.  A token exists at
``record.end_s`` of its step.  Definitions are those of vLLM's v1 metrics and of ``vllm bench serve`` unless a docstring says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from workbench.events import StepRecord
from workbench.speculative.measured import SpeculationMetrics, acceptance, speculation
from workbench.trace import Trace

__all__ = ["Percentiles", "PrefixCacheStats", "RequestMetrics", "RunMetrics", "acceptance", "measure", "percentile", "prefix_cache_stats"]


class Percentiles(msgspec.Struct, frozen=True):
    """Spread of a set of observations; ``count`` 0 makes every other field NaN.

    Percentiles interpolate linearly between the two nearest observations, as ``numpy.percentile`` does by default.
    """

    p50: float
    p90: float
    p99: float
    mean: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Percentiles:
        """Summarise ``values``, in any order."""
        ordered = sorted(values)
        mean = math.fsum(ordered) / len(ordered) if ordered else math.nan
        return cls(percentile(ordered, 50), percentile(ordered, 90), percentile(ordered, 99), mean, len(ordered))


class RequestMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one request; ``None`` where the trace does not hold what the figure needs.

    ``queue_ms``: arrival to the start of the first step that ran it.  ``ttft_ms``: arrival to its first token (vLLM's Prometheus
    metric; its per-request figure starts at scheduling instead: ``ttft_ms - queue_ms``).  ``itl_ms``: one observation for
    each step after the first that emitted tokens, the time since the one before; a step that emits several, by speculation, is
    still one observation (vLLM's per-output latency).  ``tpot_ms``: time from first to last token / (output tokens − 1),
    which is (E2E − TTFT) / (output tokens − 1).  ``e2e_ms``: arrival to the end of the step that finished the request; under static
    and dynamic batching to the end of the last step that still held it, when its batch is answered.  ``num_cached_tokens``: prompt
    tokens that the prefix cache spared at first admission.
    """

    request_id: str
    arrival_s: float | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None
    itl_ms: tuple[float, ...] = ()
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    num_preemptions: int = 0
    finish_reason: str | None = None
    first_scheduled_step: int | None = None
    finished_step: int | None = None


class PrefixCacheStats(msgspec.Struct, frozen=True):
    """What was asked of the prefix cache: requests, the tokens they looked up, and how many of those were found.

    Each request counts once, when it is first admitted, however often it was tried before and whatever happens to it later (vLLM's
    ``PrefixCacheStats``, which counts those that come back after a preemption apart).
    """

    requests: int = 0
    queries: int = 0
    hits: int = 0

    @property
    def hit_rate(self) -> float:
        """Tokens found / tokens looked up; 0 when nothing was."""
        return _share(self.hits, self.queries)


class RunMetrics(SpeculationMetrics, frozen=True, kw_only=True):
    """Figures of a whole trace.

    ``duration_s``: start of the first step to the end of the last, pauses between steps included; rates divide by it and are 0 when
    it is.  ``busy_ms``: the steps alone.  ``total_tokens_per_s`` counts output tokens and the prompt tokens, cached ones too, of every
    request that arrived and got its first token here.  ``requests_per_s`` counts requests that finished by ``stop`` or ``length``; so does
    ``e2e_ms``, while an aborted request's tokens do count in ``ttft_ms``, ``itl_ms`` and ``tpot_ms``.
    ``prefix_cache_hit_rate``: tokens found / tokens looked up, at the first admission of each request that may use the cache;
    0 when nothing was looked up.  ``kv_high_water_blocks`` counts blocks in use, never those kept only for reuse.
    What speculation did is told by :class:`~workbench.speculative.measured.SpeculationMetrics`, whose fields are fields here.
    """

    requests: tuple[RequestMetrics, ...]
    ttft_ms: Percentiles
    itl_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    queue_ms: Percentiles
    output_tokens: int
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    num_steps: int
    duration_s: float
    busy_ms: float
    num_preemptions: int
    prefix_cache_hit_rate: float
    kv_high_water_blocks: int
    kv_total_blocks: int


def measure(trace: Trace) -> RunMetrics:
    """Work out every figure of ``trace``.

    In a slice of a trace, a request that arrived before the slice has no arrival and so no TTFT, queue or E2E time.
    """
    records = list(trace.records)  # as of now: a run may be adding to them
    requests = tuple(life.measured() for life in _follow(trace, records))
    duration_s = records[-1].end_s - records[0].start_s if records else 0.0
    output = sum(request.num_output_tokens for request in requests)
    prompt = sum(request.num_prompt_tokens for request in requests if request.ttft_ms is not None)
    completed = [request for request in requests if request.finish_reason in ("stop", "length")]
    return RunMetrics(
        requests=requests,
        ttft_ms=Percentiles.of(_given(request.ttft_ms for request in requests)),
        itl_ms=Percentiles.of(gap for request in requests for gap in request.itl_ms),
        tpot_ms=Percentiles.of(_given(request.tpot_ms for request in requests)),
        e2e_ms=Percentiles.of(_given(request.e2e_ms for request in completed)),
        queue_ms=Percentiles.of(_given(request.queue_ms for request in requests)),
        output_tokens=output,
        output_tokens_per_s=_share(output, duration_s),
        total_tokens_per_s=_share(output + prompt, duration_s),
        requests_per_s=_share(len(completed), duration_s),
        num_steps=len(records),
        duration_s=duration_s,
        busy_ms=math.fsum(record.duration_ms for record in records),
        num_preemptions=sum(request.num_preemptions for request in requests),
        prefix_cache_hit_rate=_prefix_cache_stats(trace, requests).hit_rate,
        kv_high_water_blocks=max((record.kv.in_use for record in records), default=0),
        kv_total_blocks=records[-1].kv.total if records else 0,
        **msgspec.structs.asdict(speculation(records)),
    )


def prefix_cache_stats(trace: Trace) -> PrefixCacheStats:
    """What the requests that arrived and were admitted in ``trace`` asked of the prefix cache; nothing when it was off."""
    return _prefix_cache_stats(trace, [life.measured() for life in _follow(trace, list(trace.records))])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Interpolate the ``percent``-th percentile of ascending values linearly (Hyndman and Fan's type 7); NaN without values.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    between = ordered[below] + (ordered[above] - ordered[below]) * (place - below)
    return min(between, ordered[above])  # rounding may lift it past its upper neighbour


class _Life:
    """What the records say of one request, collected in step order."""

    def __init__(self, request_id: str, num_prompt_tokens: int) -> None:
        self.request_id = request_id
        self.num_prompt_tokens = num_prompt_tokens
        self.arrival_s: float | None = None
        self.first_run: StepRecord | None = None
        self.num_cached = 0
        self.emitted_s: list[float] = []
        self.num_output = 0
        self.num_preemptions = 0
        self.finish_reason: str | None = None
        self.finished_step: int | None = None
        self.done_s: float | None = None

    def measured(self) -> RequestMetrics:
        times = self.emitted_s
        return RequestMetrics(
            request_id=self.request_id,
            arrival_s=self.arrival_s,
            queue_ms=self._since_arrival(self.first_run.start_s if self.first_run else None),
            ttft_ms=self._since_arrival(times[0] if times else None),
            itl_ms=tuple((after - before) * 1e3 for before, after in pairwise(times)),
            tpot_ms=(times[-1] - times[0]) * 1e3 / (self.num_output - 1) if self.num_output > 1 else None,
            e2e_ms=self._since_arrival(self.done_s),
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached,
            num_output_tokens=self.num_output,
            num_preemptions=self.num_preemptions,
            finish_reason=self.finish_reason,
            first_scheduled_step=self.first_run.step if self.first_run else None,
            finished_step=self.finished_step,
        )

    def _since_arrival(self, moment_s: float | None) -> float | None:
        if moment_s is None or self.arrival_s is None:
            return None
        return (moment_s - self.arrival_s) * 1e3


def _follow(trace: Trace, records: Sequence[StepRecord]) -> Iterable[_Life]:
    lives = {request.id: _Life(request.id, request.num_prompt_tokens) for request in list(trace.requests.values())}
    for record in records:
        _read(record, lives)
    return lives.values()


def _read(record: StepRecord, lives: dict[str, _Life]) -> None:
    def of(request_id: str) -> _Life:
        life = lives.get(request_id)
        if life is None:  # a reconstructed trace may lack the request itself
            life = lives[request_id] = _Life(request_id, 0)
        return life

    for command in record.commands:
        if command.restarts:  # another prompt: only what comes from now on counts, but for when the request arrived
            afresh = _Life(command.request_id, len(command.after["prompt_token_ids"]))
            afresh.arrival_s = of(command.request_id).arrival_s
            lives[command.request_id] = afresh
    for arrival in record.arrived:
        of(arrival.request_id).arrival_s = arrival.arrival_s
    for row in record.scheduled:
        life = of(row.request_id)
        if life.first_run is None:
            life.first_run, life.num_cached = record, row.num_cached
    for sampled in record.sampled:
        if sampled.token_ids:
            life = of(sampled.request_id)
            life.emitted_s.append(record.end_s)
            life.num_output += len(sampled.token_ids)
    for request_id in record.preempted:
        of(request_id).num_preemptions += 1
    for done in record.finished:
        life = of(done.request_id)
        life.finish_reason, life.finished_step, life.done_s = done.reason, record.step, record.end_s
    for request_id in record.held:
        of(request_id).done_s = record.end_s


def _prefix_cache_stats(trace: Trace, requests: Iterable[RequestMetrics]) -> PrefixCacheStats:
    if not trace.config.enable_prefix_caching:
        return PrefixCacheStats()
    count = queries = hits = 0
    for request in requests:
        asked = trace.requests.get(request.request_id)
        # vLLM computes prompt logprobs afresh, so such a request never asks the cache.
        if request.arrival_s is None or request.first_scheduled_step is None or not asked or asked.sampling.prompt_logprobs is not None:
            continue
        count += 1
        queries += request.num_prompt_tokens
        hits += request.num_cached_tokens
    return PrefixCacheStats(count, queries, hits)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _given(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
