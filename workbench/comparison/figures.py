"""The metrics of two runs, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator

from workbench.comparison.speed_up import Decoding, Gain
from workbench.findings.comparison import Figure
from workbench.metrics import RunMetrics


def figures(a: RunMetrics, b: RunMetrics, decoded: tuple[Decoding, Decoding], gained: Gain | None) -> tuple[Figure, ...]:
    """Every figure of two runs; those of speculation only where one of them speculated.

    ``decoded``: the steps without prompts of each; ``gained``: what speculation gained, where the two can be compared.
    """
    found = [
        Figure(name, unit, _finite(mine), _finite(theirs))
        for (name, unit, mine), (_, _, theirs) in zip(_values(a), _values(b), strict=True)
    ]
    if a.acceptance_rate is not None or b.acceptance_rate is not None:
        found += _of_speculation(a, b, decoded, gained)
    return tuple(found)


def _of_speculation(a: RunMetrics, b: RunMetrics, decoded: tuple[Decoding, Decoding], gained: Gain | None) -> Iterator[Figure]:
    yield Figure("acceptance rate", "share", a.acceptance_rate, b.acceptance_rate)
    yield Figure("tokens per verification", "tokens", a.mean_acceptance_length, b.mean_acceptance_length)
    yield Figure("time per output token, steps without prompts", "ms", *[side.ms_per_token for side in decoded])
    if gained is not None:
        speeds = [gained.speed_up if place == gained.speculates else 1.0 for place in (0, 1)]
        yield Figure("speed-up by speculation, same steps", "times", *speeds)


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


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
