"""The metrics of two runs, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator

from workbench.findings.comparison import Figure
from workbench.metrics import RunMetrics


def figures(a: RunMetrics, b: RunMetrics) -> tuple[Figure, ...]:
    """Every figure of two runs; those of speculation only where one of them speculated."""
    rows = zip(_values(a), _values(b), strict=True)
    return tuple(
        Figure(name, unit, _finite(mine), _finite(theirs))
        for (name, unit, mine), (_, _, theirs) in rows
        if not (name in _SPECULATION and mine is None and theirs is None)
    )


_SPECULATION = ("acceptance rate", "tokens per verification")


def _values(metrics: RunMetrics) -> Iterator[tuple[str, str, float | None]]:
    for name, spread in (("TTFT", metrics.ttft_ms), ("ITL", metrics.itl_ms), ("E2E", metrics.e2e_ms)):
        yield f"{name} p50", "ms", spread.p50
        yield f"{name} p90", "ms", spread.p90
        yield f"{name} p99", "ms", spread.p99
    yield "output throughput", "tokens/s", metrics.output_tokens_per_s
    yield "request throughput", "requests/s", metrics.requests_per_s
    yield "steps", "steps", metrics.num_steps
    yield "mean step", "ms", metrics.busy_ms / metrics.num_steps if metrics.num_steps else None
    yield "preemptions", "", metrics.num_preemptions
    yield "prefix cache hit rate", "share", metrics.prefix_cache_hit_rate
    yield "KV high water", "blocks", metrics.kv_high_water_blocks
    yield "acceptance rate", "share", metrics.acceptance_rate
    yield "tokens per verification", "tokens", metrics.mean_acceptance_length


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
