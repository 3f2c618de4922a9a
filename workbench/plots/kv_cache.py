"""The KV cache over the steps: blocks in use, cached and free, and what was lost to make room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workbench.events import StepRecord
from workbench.moment.fold import Fold
from workbench.plots._figure import Figure, Layer, axes, draw, no_steps, scatter, snapshot, stack, step_numbers, steps_figure, words
from workbench.render._format import plural
from workbench.render.board import in_words
from workbench.render.occupancy import CACHED, IN_USE
from workbench.render.palette import DIM, LINE, LOOKS, PREEMPTED
from workbench.trace import Trace

_NAMED = 8  # blocks that a mark names before it only counts
_HOVER = "%{y:,} (%{customdata[0]} % of the pool; %{customdata[1]:,} of %{customdata[2]:,} slots empty)"


def kv_cache(trace: Any) -> Figure:
    """Blocks of the pool after planning: in use, cached (unreferenced, but reusable for their prefix) and free, stacked.

    x: step.  y: blocks.  Marks above the pool: steps in which cached blocks were evicted, and in which requests were preempted.  Hover: how
    full the pool is, and the slots of blocks in use that hold no token (``?`` where the trace begins too late to know).
    """
    trace = snapshot(trace, "kv_cache")
    if not len(trace):
        return no_steps()
    steps, usage = step_numbers(trace.records), [record.kv for record in trace]
    fig = steps_figure(trace, "KV blocks")
    layers = [
        Layer("in use", [one.in_use for one in usage], IN_USE),
        Layer("cached, reusable", [one.cached for one in usage], CACHED, "/"),
        Layer("free", [one.free for one in usage], LINE, opacity=0.25),
    ]
    block_size = trace.config.block_size
    fill = [round(100 * one.in_use / one.total) if one.total else 0 for one in usage]
    told = [[full, empty, one.in_use * block_size] for full, empty, one in zip(fill, _empty_slots(trace), usage, strict=True)]
    stack(fig, steps, layers, _HOVER, custom=told)
    top = max(one.total for one in usage) or 1
    _marks(fig, "eviction", ((one.step, _evicted(one)) for one in trace), top * 1.05, {"symbol": "line-ns-open", "color": DIM, "size": 8})
    look = {"symbol": "triangle-down", "color": LOOKS[PREEMPTED].colour, "size": 9}
    _marks(fig, "preemption", ((one.step, _preempted(one)) for one in trace), top * 1.13, look)
    axes(fig, 1)[1].update(range=[0, top * 1.2])
    return fig


def _empty_slots(trace: Trace) -> list[int | str]:
    """Slots of blocks in use that hold no token, per step, or a question mark."""
    fold, empty = Fold(trace, trace.records[0]), list[int | str]()
    for record in trace:
        fold.plan(record)
        wasted = fold.wasted_slots(record)
        empty.append("?" if wasted is None else wasted)
        fold.commit(record)
    return empty


def _evicted(record: StepRecord) -> str:
    blocks = [event.block_id for event in record.block_events if event.kind == "evicted"]
    more = " …" if len(blocks) > _NAMED else ""
    return f"{plural(len(blocks), 'cached block')} evicted: {', '.join(map(str, blocks[:_NAMED]))}{more}" if blocks else ""


def _preempted(record: StepRecord) -> str:
    lost = set(record.preempted)
    reasons = {one.request_id: in_words(one) for one in record.decisions if one.request_id in lost}
    return "<br>".join(words(f"{name} preempted" + (f": {reasons[name]}" if name in reasons else "")) for name in record.preempted)


def _marks(fig: Figure, name: str, told: Iterable[tuple[int, str]], height: float, look: dict[str, Any]) -> None:
    marks = [(step, text) for step, text in told if text]
    if not marks:
        return
    steps, texts = zip(*marks, strict=True)
    look = look | {"line": {"width": 1.5, "color": look["color"]}}
    hover = "%{text}<extra></extra>"
    draw(
        fig,
        scatter(len(steps)),
        1,
        x=steps,
        y=[height] * len(steps),
        name=name,
        mode="markers",
        marker=look,
        text=texts,
        hovertemplate=hover,
    )
