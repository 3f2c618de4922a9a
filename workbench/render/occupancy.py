"""The KV strip: blocks in use, cached-but-reusable and free, over the steps, on the timeline's own columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.events import KvUsage, StepRecord
from workbench.render import _svg as svg
from workbench.render._format import percent, plural
from workbench.render._svg import LEFT, Grid
from workbench.render.palette import CACHE, DIM, LINE, LOOKS, PREEMPTED, PREFILL

_HEIGHT = 56.0
IN_USE, CACHED = LOOKS[PREFILL].colour, LOOKS[CACHE].colour


def kv_svg(trace: Any) -> str:
    """KV occupancy of a trace as one self-contained ``<svg>``.

    Counts are those after planning, so a step's own blocks are in.  Where a column stands for several steps it shows the
    one with most blocks in use.
    """
    records = list(trace.records)
    name = trace.model.name
    if not records:
        body = svg.label(svg.WIDTH / 2, 34, "no step was recorded", anchor="middle", size=12)
        return svg.document(body, 56, f"KV cache of {name}: no steps", "The run ended before its first step.")
    grid = Grid.of(len(records)).solid()
    ids = svg.prefix(name, "kv", len(records), max(record.kv.total for record in records))
    usage = [max((record.kv for record in records[i : i + grid.k]), key=_pressure) for i in range(0, len(records), grid.k)]
    body = svg.element("defs", svg.hatch(f"{ids}-cached", CACHED, 5, "M-1 1L1 -1M0 5L5 0M4 6L6 4"))
    body += _strip(records, grid, usage, ids) + _peak(records, grid) + _losses(records, grid)
    legend, height = _legend(records, grid, ids)
    return svg.document(body + legend, height, *_summary(records, name))


def high_water(records: Sequence[StepRecord]) -> StepRecord:
    """The first of the steps with most blocks in use."""
    return max(records, key=lambda record: record.kv.in_use)


def _pressure(usage: KvUsage) -> tuple[int, int]:
    return usage.in_use, usage.cached


def _summary(records: Sequence[StepRecord], name: str) -> tuple[str, str]:
    peak, last = high_water(records), records[-1].kv_after
    title = f"KV cache of {name}: at most {peak.kv.in_use:,} of {plural(peak.kv.total, 'block')} in use, at step {peak.step}"
    return title, f"After the last step {last.in_use:,} in use, {last.cached:,} cached and reusable, {last.free:,} free."


def _strip(records: Sequence[StepRecord], grid: Grid, usage: Sequence[KvUsage], ids: str) -> str:
    base, total = 16 + _HEIGHT, max(record.kv.total for record in records)
    scale = _HEIGHT / (total or 1)
    pool = [one.total * scale for one in usage]
    held = [(one.in_use + one.cached) * scale if one.cached else 0.0 for one in usage]
    used = [max(one.in_use * scale, 1.0) if one.in_use else 0.0 for one in usage]
    steps = len(records)
    mean = sum(record.kv.in_use for record in records) / steps
    parts = [
        svg.path(svg.bars(grid, pool, base), "free blocks", fill=LINE, fill_opacity="0.1"),
        svg.path(
            svg.bars(grid, held, base),
            "cached: unreferenced, reusable for their prefix",
            fill=f"url(#{ids}-cached) {CACHED}",
            data_kv="cached",
        ),
        svg.path(svg.bars(grid, used, base), f"in use: {mean:.1f} blocks on average", fill=IN_USE, data_kv="in_use"),
        svg.rule(LEFT, base + 0.5, grid.right),
        svg.label(LEFT - 8, 16 + 8, f"{total:,}", anchor="end"),
        svg.label(LEFT - 8, base, "blocks", anchor="end"),
    ]
    return "".join(parts)


def _peak(records: Sequence[StepRecord], grid: Grid) -> str:
    peak = high_water(records)
    total = max(record.kv.total for record in records)
    y = 16 + _HEIGHT - peak.kv.in_use * _HEIGHT / (total or 1)
    share = percent(peak.kv.in_use / peak.kv.total if peak.kv.total else None)
    words = f"high water {peak.kv.in_use:,} of {total:,} blocks ({share}) at step {peak.step}"
    return svg.rule(LEFT, y, grid.right, "4 3", data_peak=peak.kv.in_use) + svg.label(LEFT, 11, words, size=10)


def _losses(records: Sequence[StepRecord], grid: Grid) -> str:
    """Marks under the strip: ticks where cached blocks were evicted, triangles where a request was preempted."""
    y = 16 + _HEIGHT + 3
    evicted = {i // grid.k for i, record in enumerate(records) if _evictions(record)}
    lost = {i // grid.k for i, record in enumerate(records) if record.preempted}
    marks = svg.path("".join(f"M{svg.num(grid.x(i + 0.5))} {svg.num(y)}v5" for i in sorted(evicted)), "evictions", stroke=DIM)
    d = "".join(f"M{svg.num(grid.x(i + 0.5) - 4)} {svg.num(y)}h8l-4 7z" for i in sorted(lost))
    return marks + svg.path(d, "preemptions", fill=LOOKS[PREEMPTED].colour)


def _evictions(record: StepRecord) -> int:
    return sum(event.kind == "evicted" for event in record.block_events)


def _legend(records: Sequence[StepRecord], grid: Grid, ids: str) -> tuple[str, float]:
    y = 16 + _HEIGHT + 15
    evicted, lost = sum(map(_evictions, records)), sum(len(record.preempted) for record in records)
    entries = [
        (_box(IN_USE), "in use"),
        (_box(f"url(#{ids}-cached) {CACHED}"), "cached, reusable"),
        (_box(LINE, "0.18"), "free"),
    ]
    if evicted:
        entries.append((svg.path("M5 3v7", stroke=DIM), plural(evicted, "eviction") + " of a cached block"))
    if lost:
        entries.append((svg.path("M1 2h8l-4 7z", fill=LOOKS[PREEMPTED].colour), plural(lost, "preemption")))
    if grid.k > 1:
        entries.append(("", f"each column is {grid.k} steps: the one with most blocks in use"))
    return svg.legend(entries, y)


def _box(fill: str, opacity: str = "") -> str:
    return svg.element("rect", "", width="10", height="10", y="0.5", rx="2", fill=fill, fill_opacity=opacity)
