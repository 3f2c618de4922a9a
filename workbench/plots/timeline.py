"""The timeline: a row per request, a bar per stretch of one state, over steps or over the engine's clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from workbench.errors import ConfigError, TraceError
from workbench.plots._figure import INK, Figure, aliases, axes, draw, no_steps, snapshot, steps_figure, words
from workbench.plots._stretches import Stretch, pauses, rows_of, stretches, told
from workbench.render._format import plural
from workbench.render.board import Board, Lane, board_of, in_words
from workbench.render.palette import CACHE, DECODE, DIM, HELD, IDLE, LOOKS, PREEMPTED, PREFILL, VERIFY, WAITING

_PATTERNS = {PREFILL: "", DECODE: "", VERIFY: "|", WAITING: "/", IDLE: "-", HELD: ".", PREEMPTED: ""}
_THIN = {DECODE: 0.5, WAITING: 0.5, IDLE: 0.25, PREEMPTED: 0.12}
_OUTLINED = (WAITING, IDLE, HELD)
_ROOMY = 40  # up to so many rows there is room for large marks
_ENDS = {"stop": "circle", "length": "square", "abort": "x"}
Edges = Sequence[tuple[float, float]]


def timeline(trace: Any, *, by: Literal["step", "ms"] = "step") -> Figure:
    """What every request did in every step: one row each, in order of arrival, one bar per stretch of one state.

    x: step, or with ``by="ms"`` milliseconds on the engine's clock.  y: request.  Marks: admissions that found tokens in the prefix cache,
    preemptions, ends.  Hover: state, steps, token range, tokens from the cache, why it waited.  Above some 4,000 bars a cell stands for
    several steps, and the axis says so; a slice (``trace[200:400]``) shows every step.

    Raises :class:`TraceError` unless the trace's ``fidelity`` is ``exact``: others hold no decisions that could be drawn as steps.
    """
    trace = snapshot(trace, "timeline")
    if by not in ("step", "ms"):
        raise ConfigError(f"by must be 'step' or 'ms', not {by!r}")
    if trace.fidelity != "exact":
        raise TraceError(
            f"a {trace.fidelity} trace cannot be drawn as a timeline: it was not written by the scheduler that took the decisions; "
            "record one with an engine, or draw batch(), kv_cache() and queue()"
        )
    if not len(trace):
        return no_steps()
    board = board_of(trace)
    bars, size = stretches(board, pauses(board.records) if by == "ms" else ())
    fig = steps_figure(trace, "", height=min(130 + 26 * len(board.lanes), 900)).update_layout(barmode="overlay", hovermode="closest")
    edges = [(round(r.start_s * 1e3, 4), round(r.end_s * 1e3, 4)) if by == "ms" else (r.step - 0.5, r.step + 0.5) for r in board.records]
    _bars(fig, board, bars, edges)
    _marks(fig, board.lanes, edges)
    _axes(fig, board, edges, by, size)
    return fig


def _bars(fig: Figure, board: Board, bars: Sequence[Stretch], edges: Edges) -> None:
    rows = rows_of(board.records)
    for kind, pattern in _PATTERNS.items():
        own = [bar for bar in bars if bar.kind == kind]
        if not own:
            continue
        colour = LOOKS[kind].colour
        marks = {"shape": pattern, "size": 6, "solidity": 0.2, "bgcolor": colour, "fgcolor": INK, "fgopacity": 0.6}
        if kind in _OUTLINED:
            marks = {"shape": pattern, "size": 6, "solidity": 0.25, "fgcolor": colour, "bgcolor": "rgba(0,0,0,0)"}
        data = {
            "base": [edges[bar.first][0] for bar in own],
            "x": [round(edges[bar.end - 1][1] - edges[bar.first][0], 4) for bar in own],
            "y": [words(bar.lane.request_id) for bar in own],
            "hovertext": [told(bar, board, rows.get(bar.lane.request_id, {})) for bar in own],
        }
        look = {"color": colour, "line": {"width": 0.5 if kind in _OUTLINED else 0, "color": colour}, "pattern": marks}
        group = {"name": LOOKS[kind].label, "legendgroup": kind, "hoverinfo": "text", "width": _THIN.get(kind, 0.8)}
        draw(fig, "Bar", orientation="h", marker=look, **data, **group)


def _marks(fig: Figure, lanes: Sequence[Lane], edges: Edges) -> None:
    def middle(i: int) -> float:
        return sum(edges[i]) / 2

    size = 11 if len(lanes) <= _ROOMY else 5
    saved = [(lane, middle(i), f"{plural(count, 'token')} from the prefix cache") for lane in lanes for i, count in lane.cached.items()]
    _points(fig, LOOKS[CACHE].label, saved, "diamond", LOOKS[CACHE].colour, size)
    lost = [(lane, middle(i), f"preempted: {in_words(lane.refused[i])}") for lane in lanes for i in lane.preempted]
    _points(fig, LOOKS[PREEMPTED].label, lost, "triangle-down", LOOKS[PREEMPTED].colour, size, legendgroup=PREEMPTED, showlegend=False)
    for reason, symbol in _ENDS.items():
        ends = [(lane, lane.finished[0]) for lane in lanes if lane.finished and lane.finished[1] == reason]
        _points(fig, f"ended: {reason}", [(lane, edges[i][1], f"ended: {reason}") for lane, i in ends], symbol, DIM, size)


def _points(fig: Figure, name: str, points: Sequence[tuple[Lane, float, str]], symbol: str, colour: str, size: int, **group: Any) -> None:
    if not points:
        return
    y = [words(lane.request_id) for lane, _, _ in points]
    texts = [f"<b>{row}</b> · {words(text)}" for row, (_, _, text) in zip(y, points, strict=True)]
    look = {"symbol": symbol, "color": colour, "size": size, "line_width": 0}
    data = {"x": [x for _, x, _ in points], "y": y, "hovertext": texts, "hoverinfo": "text", "cliponaxis": False}
    draw(fig, "Scatter", mode="markers", name=name, marker=look, **data, **group)


def _axes(fig: Figure, board: Board, edges: Edges, by: str, size: int) -> None:
    x_axis, y_axis = axes(fig, 1)
    names = [words(lane.request_id) for lane in board.lanes]
    y_axis.update(type="category", categoryorder="array", categoryarray=names, autorange="reversed", labelalias=aliases(names))
    if by == "ms":
        x_axis.update(title_text="ms on the engine's clock", range=[edges[0][0], max(right for _, right in edges)])
    if size > 1:
        rule = f"each cell is {size} steps: a preemption or a prefill if there was one, else the most frequent state"
        x_axis.update(title_text=f"{x_axis.title.text}<br>{rule}")
