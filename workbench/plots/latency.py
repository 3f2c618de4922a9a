"""When tokens came: the first of each request, and every gap between two, in the step in which they came out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from workbench.metrics import Percentiles, RequestMetrics, measure
from workbench.plots._figure import Figure, axes, draw, no_steps, scatter, snapshot, steps_figure, words
from workbench.render._format import ms
from workbench.render.palette import DECODE, DIM, LOOKS, PREEMPTED, PREFILL
from workbench.trace import Trace


class Output(NamedTuple):
    """One time a request gave tokens: what it was waited for, in which step they came, and how many."""

    request_id: str
    waited_ms: float
    step: int
    num_tokens: int


def latency(trace: Any) -> Figure:
    """TTFT of every request, and every gap between two of its outputs (ITL), as dots over the step in which the tokens came out.

    x: step.  y: milliseconds, TTFT above and gaps below, on a logarithmic scale where they spread widely; lines are median and 99th
    percentile, those of ``run.metrics.ttft_ms`` and ``run.metrics.itl_ms``.  A step that gives a request several tokens is one dot.
    """
    trace = snapshot(trace, "latency")
    if not len(trace):
        return no_steps()
    metrics = measure(trace)
    firsts, gaps = outputs(trace, metrics.requests)
    fig = steps_figure(trace, "TTFT, ms", "gap, ms", shares=(0.35, 0.65), height=440).update_layout(hovermode="closest")
    _dots(fig, 1, "time to first token", firsts, {"symbol": "diamond", "color": LOOKS[PREFILL].colour, "size": 8})
    _lines(fig, 1, trace, metrics.ttft_ms)
    _dots(fig, 2, "gap between outputs", gaps, {"symbol": "circle", "color": LOOKS[DECODE].colour, "size": 6, "opacity": 0.7})
    _lines(fig, 2, trace, metrics.itl_ms)
    _scale(axes(fig, 1)[1], firsts)
    _scale(axes(fig, 2)[1], gaps)
    return fig


def outputs(trace: Trace, requests: Iterable[RequestMetrics]) -> tuple[list[Output], list[Output]]:
    """First outputs with their TTFT, and later ones with their gap: the times of ``requests``, each with its step."""
    came: dict[str, list[tuple[int, int]]] = {}
    for record in trace:
        for command in record.commands:
            if command.restarts:  # its output until then counts no more
                came.pop(command.request_id, None)
        for sampled in record.sampled:
            if sampled.token_ids:
                came.setdefault(sampled.request_id, []).append((record.step, len(sampled.token_ids)))
    firsts, gaps = list[Output](), list[Output]()
    for request in requests:
        places = came.get(request.request_id, [])
        if places and request.ttft_ms is not None:
            firsts.append(Output(request.request_id, request.ttft_ms, *places[0]))
        gaps += [Output(request.request_id, gap, *place) for gap, place in zip(request.itl_ms, places[1:], strict=True)]
    return firsts, gaps


def _dots(fig: Figure, panel: int, name: str, dots: Sequence[Output], marker: dict[str, Any]) -> None:
    data = {
        "x": [one.step for one in dots],
        "y": [round(one.waited_ms, 4) for one in dots],
        "text": [words(one.request_id) for one in dots],
    }
    hover = "%{text}: %{y:,.4~r} ms<br>step %{x:,}, tokens that came out: %{customdata}<extra></extra>"
    tokens = [one.num_tokens for one in dots]
    draw(fig, scatter(len(dots)), panel, name=name, mode="markers", marker=marker, hovertemplate=hover, customdata=tokens, **data)


def _scale(axis: Any, dots: Sequence[Output]) -> None:
    """Logarithmic where the dots spread over more than one power of four, which is when a linear axis hides the usual ones."""
    least, most = min((one.waited_ms for one in dots), default=0.0), max((one.waited_ms for one in dots), default=0.0)
    if 0 < least < most / 4:
        axis.update(type="log", dtick="D2" if most < 200 * least else 1)


def _lines(fig: Figure, panel: int, trace: Trace, spread: Percentiles) -> None:
    edges = [trace.first_step - 0.5, trace.next_step - 0.5]
    for name, value, colour, dash in (("p50", spread.p50, DIM, "dash"), ("p99", spread.p99, LOOKS[PREEMPTED].colour, "dot")):
        if spread.count:
            line, named = {"color": colour, "dash": dash, "width": 1.5}, f"{name} {ms(value)}"
            data = {"x": edges, "y": [value] * 2, "hovertemplate": f"{named}<extra></extra>"}
            draw(fig, "Scatter", panel, **data, name=named, mode="lines", line=line)
