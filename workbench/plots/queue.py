"""Who ran and who waited: requests by state over the steps, and how long those that wait have waited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.events import Reason, StepRecord
from workbench.plots._figure import Figure, Layer, draw, level, no_steps, snapshot, stack, step_numbers, steps_figure
from workbench.render.palette import DECODE, DIM, LINE, LOOKS, PLAN
from workbench.trace import Trace

_LAYERS = {
    "running": (LOOKS[DECODE].colour, "", 1.0),
    "done, held by its batch": (LINE, ".", 1.0),
    "waiting": (PLAN, "/", 1.0),
    "not arrived": (LINE, "", 0.25),
}


def queue(trace: Any) -> Figure:
    """Unfinished requests after planning, stacked: running, held by a static or dynamic batch, waiting, not arrived yet.

    x: step.  y: requests, with ``max_num_seqs`` as a line; below, milliseconds that the requests that wait have waited by the start of the
    step, since they arrived or lost their place: the longest as an area, the mean as a line.
    """
    trace = snapshot(trace, "queue")
    if not len(trace):
        return no_steps()
    steps, counts = step_numbers(trace.records), [_counts(record) for record in trace]
    fig = steps_figure(trace, "requests", "waited so far, ms", shares=(0.6, 0.4), height=440)
    states = zip(_LAYERS.items(), zip(*counts, strict=True), strict=True)
    layers = [Layer(name, values, *look) for (name, look), values in states]
    stack(fig, steps, [layer for layer in layers if any(layer.values)] or layers[:1], "%{y:,}")
    level(fig, steps, [record.seqs.limit for record in trace], "max_num_seqs")
    _waits(fig, steps, list(waits_ms(trace)))
    return fig


def waits_ms(trace: Trace) -> Iterator[list[float] | None]:
    """How long those that wait in a step have waited by its start, as far as the trace tells; ``None`` where it tells of none of them."""
    since: dict[str, float | None] = {}
    for index, record in enumerate(trace):
        arrived = {arrival.request_id: arrival.arrival_s for arrival in record.arrived}
        fresh = record.start_s if index else None  # what waits in the first record without arriving there began earlier
        since = {name: since.get(name, arrived.get(name, fresh)) for name in _waiting(record)}
        known = [max(record.start_s - start, 0.0) * 1e3 for start in since.values() if start is not None]
        yield known if known or not since else None


def _waiting(record: StepRecord) -> list[str]:
    absent = {decision.request_id for decision in record.decisions if decision.reason is Reason.NOT_ARRIVED}
    return [name for name in record.waiting if name not in absent]


def _counts(record: StepRecord) -> tuple[int, int, int, int]:
    absent = sum(decision.reason is Reason.NOT_ARRIVED for decision in record.decisions)
    return len(record.running), len(record.held), len(_waiting(record)), absent


def _waits(fig: Figure, steps: list[int], waits: list[list[float] | None]) -> None:
    longest = [None if one is None else round(max(one, default=0.0), 3) for one in waits]
    mean = [None if one is None else round(sum(one) / max(len(one), 1), 3) for one in waits]
    hover = {"hovertemplate": "%{y:,.3~r} ms", "mode": "lines"}
    area = {"fill": "tozeroy", "fillcolor": "rgba(230,159,0,0.3)", "line": {"color": PLAN, "width": 1.5, "shape": "hvh"}}
    draw(fig, "Scatter", 2, x=steps, y=longest, name="longest", **hover, **area)
    line = {"color": DIM, "width": 1.5, "dash": "dot", "shape": "hvh"}
    draw(fig, "Scatter", 2, x=steps, y=mean, name="mean", **hover, line=line)
