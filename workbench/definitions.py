"""The same metric by its competing definitions, each with its name, its formula and who uses it.

One word, several numbers: TTFT may start at arrival or at scheduling, a mean ITL may weigh gaps, tokens or requests alike, goodput may be
a rate or a share.  All are worked out from the same times per request, from a trace or from plain numbers (:func:`request_times`).

Two definitions are left out because one trace cannot tell them.  TTFT at the client's first byte needs a network.  Goodput as the highest
request rate at which a given share still meets the SLOs (DistServe's reading) needs runs at several rates: one trace shows one rate.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from workbench.errors import ConfigError
from workbench.findings.definitions import Definition, DefinitionsData, Slo
from workbench.metrics import Percentiles, RequestMetrics, measure
from workbench.render.definitions import definitions_html, definitions_text
from workbench.trace import Trace

__all__ = ["Definition", "Definitions", "HitRateWindow", "Slo", "definitions", "request_times", "trace_of"]

_HANDBOOK = "LLM inference handbook"


class Definitions(DefinitionsData, frozen=True):
    """A table of definitions, aligned; ``table["TTFT from arrival, mean"]`` is one of them.

    Its fields are those of :class:`~workbench.findings.definitions.DefinitionsData`.
    """

    def __repr__(self) -> str:
        return definitions_text(self)

    def _repr_html_(self) -> str:
        return definitions_html(self)


def definitions(trace_or_run: Any, slo: Slo | None = None) -> Definitions:
    """Work out every definition for a trace, a run (anything with a ``trace``), or plain :class:`RequestMetrics`.

    Goodput is there when ``slo`` is given.  A run's rates divide by the time from its first step to the end of its last, those of plain
    numbers by the time from the first arrival to the last end.
    Raises :class:`TypeError` for anything else.
    """
    if slo is not None and not isinstance(slo, Slo):
        raise TypeError(f"slo must be an Slo, as in Slo(ttft_ms=200, e2e_ms=3000), not {type(slo).__name__}")
    if isinstance(trace_or_run, list | tuple) and all(isinstance(one, RequestMetrics) for one in trace_or_run):
        requests, duration_s = tuple(trace_or_run), _span_s(trace_or_run)
    else:
        metrics = measure(trace_of(trace_or_run, "definitions"))
        requests, duration_s = metrics.requests, metrics.duration_s
    rows = [*_ttft(requests), *_itl(requests), *_tpot(requests), *_e2e(requests)]
    return Definitions((*rows, *(_goodput(requests, duration_s, slo) if slo else ())), slo, len(requests))


def request_times(
    request_id: str,
    *,
    ttft_ms: float,
    e2e_ms: float,
    num_output_tokens: int,
    arrival_s: float = 0.0,
    queue_ms: float | None = None,
    itl_ms: Iterable[float] | None = None,
    finish_reason: str | None = "length",
) -> RequestMetrics:
    """One request from plain numbers, its tokens evenly spaced between the first and the end unless ``itl_ms`` gives the gaps.

    Raises :class:`ConfigError` for numbers that no request can have.

    >>> request_times("r0", ttft_ms=45, e2e_ms=1200, num_output_tokens=12).tpot_ms
    105.0
    """
    if num_output_tokens < 1 or not 0 <= ttft_ms <= e2e_ms < math.inf:
        raise ConfigError(
            f"request {request_id!r} cannot have {num_output_tokens} output tokens, TTFT {ttft_ms} ms and E2E {e2e_ms} ms: "
            "it needs at least one token, and its first comes before its end"
        )
    gaps = num_output_tokens - 1
    tpot = (e2e_ms - ttft_ms) / gaps if gaps else None
    return RequestMetrics(
        request_id=request_id,
        arrival_s=arrival_s,
        queue_ms=queue_ms,
        ttft_ms=float(ttft_ms),
        itl_ms=tuple(itl_ms) if itl_ms is not None else (tpot,) * gaps if tpot is not None else (),
        tpot_ms=tpot,
        e2e_ms=float(e2e_ms),
        num_output_tokens=num_output_tokens,
        finish_reason=finish_reason,
    )


def trace_of(run: Any, who: str) -> Trace:
    """The trace of a run, or the trace itself; ``who`` asks."""
    trace = run if isinstance(run, Trace) else getattr(run, "trace", None)
    if not isinstance(trace, Trace):
        raise TypeError(f"{who} takes a run or a trace, not {type(run).__name__}: give a Run, or what load_trace() returned")
    return trace


class HitRateWindow:
    """Prefix-cache hit rate over the most recent requests, as vLLM 0.32.0 logs it.

    Observations are whole steps.  The oldest are dropped while more than ``max_requests`` requests are in sight; the newest always stays.

    >>> window = HitRateWindow(5)
    >>> [window.observe(*step) for step in ((1, 20, 9), (4, 80, 16), (1, 10, 2))]
    [0.45, 0.25, 0.2]
    """

    def __init__(self, max_requests: int = 1000) -> None:
        if type(max_requests) is not int or max_requests < 1:
            raise ConfigError(f"max_requests must be a whole number of at least 1, not {max_requests!r}")
        self.max_requests = max_requests
        self._steps: deque[tuple[int, int, int]] = deque()
        self._requests = self._queries = self._hits = 0

    def observe(self, requests: int, queries: int, hits: int) -> float:
        """Take in a step that looked up ``queries`` tokens for ``requests`` requests and found ``hits``; returns :attr:`hit_rate`."""
        if not 0 <= hits <= queries or requests < 0:
            counts = f"{hits} hits of {queries} tokens looked up for {requests} requests"
            raise ConfigError(f"{counts} cannot be: hits are a part of what was looked up")
        if requests:
            self._steps.append((requests, queries, hits))
            self._add(requests, queries, hits)
        while self._requests > self.max_requests and len(self._steps) > 1:
            self._add(*(-count for count in self._steps.popleft()))
        return self.hit_rate

    def observe_trace(self, trace: Trace) -> float:
        """Take in every step of ``trace``: each request once, when it is first admitted; returns :attr:`hit_rate`."""
        asked = _asked(trace) if trace.config.enable_prefix_caching else {}
        for record in trace.records:
            first = set(record.admitted).difference(record.resumed).intersection(asked)
            rows = [row for row in record.scheduled if row.request_id in first]
            self.observe(len(rows), sum(asked[row.request_id] for row in rows), sum(row.num_cached for row in rows))
        return self.hit_rate

    def _add(self, requests: int, queries: int, hits: int) -> None:
        self._requests += requests
        self._queries += queries
        self._hits += hits

    @property
    def hit_rate(self) -> float:
        """Tokens found / tokens looked up; 0 when nothing was."""
        return self._hits / self._queries if self._queries else 0.0


def _asked(trace: Trace) -> dict[str, int]:
    """Prompt tokens of the requests that may use the cache: prompt log-probabilities are computed afresh."""
    return {name: one.num_prompt_tokens for name, one in trace.requests.items() if one.sampling.prompt_logprobs is None}


# -- the definitions ---------------------------------------------------------------------------------------------------


def _ttft(requests: Sequence[RequestMetrics]) -> Iterator[Definition]:
    arrival = Percentiles.of([one.ttft_ms for one in requests if one.ttft_ms is not None])
    yield from _spread("TTFT from arrival", arrival, "first token − arrival", "vLLM's Prometheus metric; vllm bench serve")
    waited = [(one.ttft_ms, one.queue_ms) for one in requests]
    schedule = Percentiles.of([ttft - queue for ttft, queue in waited if ttft is not None and queue is not None])
    yield from _spread("TTFT from schedule", schedule, "first token − start of the first step that ran it", "vLLM's per-request metrics")


def _itl(requests: Sequence[RequestMetrics]) -> Iterator[Definition]:
    gaps = Percentiles.of([gap for one in requests for gap in one.itl_ms])
    yield from _spread("ITL per gap", gaps, "every gap between outputs is one observation", "vLLM; vllm bench serve")
    total = math.fsum(gap for one in requests for gap in one.itl_ms)
    emitted = [one.num_output_tokens for one in requests if one.num_output_tokens]
    after_first = sum(emitted) - len(emitted)
    yield _row("ITL per token after the first", _ratio(total, after_first), "ms", "Σ gaps ÷ Σ (output tokens − 1)", "token-weighted")
    yield _row("ITL per output token", _ratio(total, sum(emitted)), "ms", "Σ gaps ÷ Σ output tokens", f"{_HANDBOOK}, as printed")


def _tpot(requests: Sequence[RequestMetrics]) -> Iterator[Definition]:
    spread = Percentiles.of([one.tpot_ms for one in requests if one.tpot_ms is not None])
    formula = "per request (last token − first token) ÷ (output tokens − 1)"
    yield from _spread("TPOT per request", spread, formula, f"vllm bench serve; {_HANDBOOK}")


def _e2e(requests: Sequence[RequestMetrics]) -> Iterator[Definition]:
    done = Percentiles.of([one.e2e_ms for one in _completed(requests) if one.e2e_ms is not None])
    yield from _spread("E2E latency", done, "end − arrival, of completed requests", f"vLLM; {_HANDBOOK} (E2EL)")


def _goodput(requests: Sequence[RequestMetrics], duration_s: float, slo: Slo) -> Iterator[Definition]:
    judged = [met for met in map(slo.met_by, requests) if met is not None]
    completed = [met for met in map(slo.met_by, _completed(requests)) if met is not None]
    good = sum(judged)
    of_completed, of_all = _ratio(good, len(completed)), _ratio(good, len(judged))
    widget = f"{_HANDBOOK}'s widget"
    yield _row("goodput, requests", float(good), "requests", f"completed with {slo}", widget)
    yield _row("goodput as a rate", _ratio(good, duration_s), "requests/s", "those ÷ duration", f"{_HANDBOOK}; vllm bench serve")
    yield _row("goodput as a share of completed", of_completed, "share", "those ÷ completed requests", widget)
    yield _row("goodput as a share of all", of_all, "share", "those ÷ requests, unfinished and aborted too", "SLO attainment")


def _spread(name: str, spread: Percentiles, formula: str, source: str) -> Iterator[Definition]:
    for which, value in (("mean", spread.mean), ("median", spread.p50), ("p99", spread.p99)):
        yield _row(f"{name}, {which}", value if spread.count else None, "ms", formula, source)


def _row(name: str, value: float | None, unit: str, formula: str, source: str) -> Definition:
    return Definition(name, value, unit, formula, source)


def _completed(requests: Iterable[RequestMetrics]) -> list[RequestMetrics]:
    return [one for one in requests if one.finish_reason in ("stop", "length")]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _span_s(requests: Sequence[RequestMetrics]) -> float:
    ends = [one.arrival_s + one.e2e_ms / 1e3 for one in requests if one.arrival_s is not None and one.e2e_ms is not None]
    starts = [one.arrival_s for one in requests if one.arrival_s is not None]
    return max(ends) - min(starts) if ends else 0.0
