"""What all figures share: plotly on demand, one look that suits white and black, step axes, words that are safe to show.

The look is a template of its own, not spread over the figure, so ``figure.update_layout(template="plotly_white")`` exchanges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

from workbench.definitions import trace_of
from workbench.errors import MissingPackageError
from workbench.events import StepRecord
from workbench.render._format import plain, shorten
from workbench.render.palette import DIM
from workbench.trace import Trace

Figure: TypeAlias = Any  # a plotly.graph_objects.Figure; plotly is optional, and loaded when the first figure is made
GRID, INK, PAPER = "rgba(128,134,144,0.22)", "#f3f5f7", "#252a31"
_SPACED = 120  # up to this many steps there is room for gaps between bars
_SVG_MARKS = 4000  # more of them are left to WebGL
MAX_BARS = 1500  # more of them than that, and a browser feels it: steps are then drawn as areas
_STEPS = {"exact": "step", "reconstructed": "step, reconstructed from a log", "sampled": "sample of an engine's counters"}
_LEGEND = {
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "yanchor": "bottom",
    "itemsizing": "constant",
    "traceorder": "normal",
    "bgcolor": "rgba(0,0,0,0)",
}


class Layer(NamedTuple):
    """One part of a stack: its name, a value per step, a colour, and a pattern as a second channel."""

    name: str
    values: Sequence[float]
    colour: str
    pattern: str = ""
    opacity: float = 1.0


def plotly(module: str) -> Any:
    """A module of plotly.  Raises :class:`MissingPackageError` with what to install."""
    try:
        version = import_module("plotly").__version__
    except ModuleNotFoundError as error:
        raise MissingPackageError('figures need plotly, which is not installed: pip install "plotly>=6"', name="plotly") from error
    if int(version.split(".")[0]) < 6:
        raise MissingPackageError(f'figures need plotly 6 or newer, {version} is installed: pip install -U "plotly>=6"', name="plotly")
    return import_module(f"plotly.{module}")


def snapshot(trace: Any, who: str) -> Trace:
    """The trace, or the trace of a run, as it is now: a run may be adding to it."""
    return trace_of(trace, who)[:]


def figure(x_titles: Sequence[str], y_titles: Sequence[str], shares: Sequence[float], height: int, *, across: bool = False) -> Figure:
    """An empty figure of panels, each with a legend: on top of each other on one x axis, or ``across``, side by side on their own."""
    count = len(y_titles)
    shape = {"rows": 1, "cols": count, "column_widths": list(shares), "horizontal_spacing": 0.12}
    if not across:
        shape = {"rows": count, "cols": 1, "row_heights": list(shares), "vertical_spacing": 0.2 if count > 1 else 0, "shared_xaxes": True}
    fig = plotly("subplots").make_subplots(**shape).update_layout(template=_look(), height=height)
    for panel, (x_title, y_title) in enumerate(zip(x_titles, y_titles, strict=True), 1):
        x_axis, y_axis = axes(fig, panel)
        x_axis.update(title_text=x_title)
        y_axis.update(title_text=y_title)
        place = {"x": 0 if not across else x_axis.domain[0], "y": y_axis.domain[1] + 0.01}
        fig.update_layout({_name("legend", panel): _LEGEND | place})
    return fig


def steps_figure(trace: Trace, *y_titles: str, shares: Sequence[float] = (1,), height: int = 320) -> Figure:
    """A :func:`figure` over steps: half a step of room on both sides, one hover box for all that stands over a step."""
    titles = [""] * (len(y_titles) - 1) + [step_title(trace)]
    fig = figure(titles, y_titles, shares, height)
    fig.update_xaxes(range=[trace.first_step - 0.5, trace.next_step - 0.5], tickformat=",d")
    return fig.update_layout(hovermode="x unified")


def step_title(trace: Trace) -> str:
    """What a step is in this trace: only the scheduler's own records are steps without further words."""
    return _STEPS[trace.fidelity]


def axes(fig: Figure, panel: int) -> tuple[Any, Any]:
    """The x and y axis of a panel."""
    return fig.layout[_name("xaxis", panel)], fig.layout[_name("yaxis", panel)]


def draw(fig: Figure, kind: str, panel: int = 1, /, **properties: Any) -> None:
    """Add a trace of a kind (``Bar``, ``Scatter``, …) to a panel and its legend."""
    place = {"xaxis": _name("x", panel), "yaxis": _name("y", panel), "legend": _name("legend", panel)}
    fig.add_trace(getattr(plotly("graph_objects"), kind)(**place, **properties))


def scatter(count: int) -> str:
    """The kind of trace that draws so many marks without a pause."""
    return "Scattergl" if count > _SVG_MARKS else "Scatter"


def _name(what: str, panel: int) -> str:
    return f"{what}{panel if panel > 1 else ''}"  # plotly leaves the first one's number out


def empty(sentence: str) -> Figure:
    """A figure that says in a sentence why there is nothing to draw."""
    fig = plotly("graph_objects").Figure()
    fig.update_layout(template=_look(), height=160, xaxis_visible=False, yaxis_visible=False)
    return fig.add_annotation(text=sentence, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5, font_size=14)


def no_steps() -> Figure:
    """The figure of a trace without records."""
    return empty("This trace has no steps yet.")


def stack(
    fig: Figure, steps: Sequence[int], layers: Sequence[Layer], hover: str, panel: int = 1, custom: Sequence[Any] | None = None
) -> None:
    """Put layers on each other: bars where there are few, else areas, which stay fluid over 10,000 steps.

    ``hover`` is how a value reads in the hover box; with ``custom``, values per step that it refers to, only in the first layer.
    """
    few = len(steps) * len(layers) <= MAX_BARS
    fig.update_layout(bargap=0.1 if len(steps) <= _SPACED else 0)
    for place, layer in enumerate(layers):
        told: dict[str, Any] = (
            {"customdata": custom, "hovertemplate": hover} if place == 0 or custom is None else {"hovertemplate": "%{y:,}"}
        )
        pattern = {"shape": layer.pattern, "bgcolor": layer.colour, "fgcolor": INK, "fgopacity": 0.6, "size": 6, "solidity": 0.2}
        look: dict[str, Any]
        if few:
            look = {"marker": {"color": layer.colour, "opacity": layer.opacity, "line_width": 0, "pattern": pattern}}
        else:
            look = {"mode": "lines", "line": {"width": 0, "shape": "hvh", "color": layer.colour}, "stackgroup": f"stack {panel}"}
            look |= {"fillcolor": _rgba(layer.colour, layer.opacity), "fillpattern": pattern}
        draw(fig, "Bar" if few else "Scatter", panel, x=steps, y=layer.values, name=layer.name, **told, **look)


def level(fig: Figure, steps: Sequence[int], values: Sequence[float], name: str, panel: int = 1) -> None:
    """A limit as a line over whole steps, from the left edge of the first to the right edge of the last.

    Where it is more than four times of what is drawn below it, it stays above what is shown at first, and its name says so.
    """
    _, axis = axes(fig, panel)
    stacked = [sum(at) for at in zip(*(trace.y for trace in fig.data if trace.yaxis == _name("y", panel)), strict=True)]
    most = max(*stacked, 1)
    far = max(values) > 4 * most
    axis.update(range=[0, most * 1.15 if far else max(*values, most) * 1.08])
    x, y = [steps[0] - 0.5, *steps, steps[-1] + 0.5], [values[0], *values, values[-1]]
    line = {"color": DIM, "dash": "dash", "width": 1.5, "shape": "hvh"}
    name = f"{name} ({max(values):,}, above what is shown)" if far else name
    draw(fig, "Scatter", panel, x=x, y=y, name=name, hovertemplate="%{y:,}", mode="lines", line=line)


def step_numbers(records: Sequence[StepRecord]) -> list[int]:
    """The engine's own numbers of the steps."""
    return [record.step for record in records]


def words(text: object) -> str:
    """Text from a user or a model as plotly may show it: its own little HTML, entities and TeX are not obeyed."""
    return escape(plain(text), quote=False).replace("$", "&#36;")


def aliases(names: Sequence[str], limit: int = 24) -> dict[str, str]:
    """Short forms for axis labels that would eat the plot."""
    return {name: shorten(name, limit) for name in names if len(name) > limit}


def _rgba(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _look() -> Any:
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True, "title_standoff": 8, "title_font_size": 12}
    layout = {
        "font": {"color": DIM, "size": 12, "family": "system-ui, -apple-system, 'Segoe UI', sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": DIM, "font_color": INK, "align": "left"},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": DIM,
            "activecolor": "#0072b2",
            "remove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
        },
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "xaxis": axis | {"showgrid": False},
        "yaxis": axis | {"ticklabelstandoff": 4, "rangemode": "tozero", "tickformat": ",~r"},
        "barmode": "stack",
        "legend": _LEGEND | {"y": 1.01},
    }
    return plotly("graph_objects").layout.Template(layout=layout)
