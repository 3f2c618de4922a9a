"""Speculation: how often each draft position was accepted, how many tokens a verification gave over time, and whether it paid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from textwrap import wrap
from typing import Any, NamedTuple

from workbench.events import SpecRound
from workbench.plots._figure import Figure, axes, draw, empty, figure, snapshot, step_title, words
from workbench.render import facts
from workbench.render.palette import DIM, LOOKS, PREEMPTED, PREFILL, VERIFY
from workbench.speculative.measured import by_length, counted, speculation
from workbench.trace import Trace

TITLE_WIDTH = 100  # characters: that many stand beside each other in a notebook

_BAR = "draft %{x}: %{y:.1%} of all rounds<br>accepted in %{customdata[0]:,} of %{customdata[1]:,} rounds, proposed in %{customdata[2]:,}"
_TICK = "draft %{x}: %{y:.1%} of the rounds that got here"
_TICK += "<br>accepted in %{customdata[0]:,} of the %{customdata[1]:,} that had it and accepted all before it"
_DOT = "step %{x:,}: %{y:.3~r}<br>%{customdata[0]:,} of %{customdata[1]:,} drafts accepted in %{customdata[2]:,} round(s)<extra></extra>"
_CHOICE = "after step %{x:,}: %{customdata}<extra></extra>"
_CELL = "%{y} of %{x} drafts accepted in %{text} round(s), %{z:.0%} of those with so many<extra></extra>"
_PALE = "#efdfe8"


class Position(NamedTuple):
    """What became of one draft position: rounds that accepted it, that accepted all before it, and that proposed it."""

    accepted: int
    reached: int
    proposed: int


def acceptance(trace: Any) -> Figure:
    """Acceptance by draft position, the mean acceptance length over the steps, and accepted drafts by draft length, as vLLM defines them.

    Left, x: position of the draft, from 1; y: share of rounds that accepted it, as a bar of all rounds with drafts (unconditional), as a
    tick of those that had it and accepted every draft before it (conditional).  Middle, x: step; y: mean acceptance length, 1 + accepted
    drafts / rounds, of each step as dots and of all rounds so far as a line, which ends at ``run.metrics.mean_acceptance_length``; where
    the number of drafts was chosen anew for each step, that too, with the reason on hover.  Right, x: drafts that a round proposed; y: how
    many of them it accepted; each cell counts rounds, coloured by their share of all rounds with so many drafts.

    The title tells the speed-up measured against plain steps of the same run, and the one that the acceptance predicts, or why there is
    none to tell.  Placeholders of newcomers count as drafts, as they do in vLLM.
    """
    trace = snapshot(trace, "acceptance")
    verified = [(record.step, rounds) for record in trace if (rounds := counted(record))]
    if not verified:
        return empty("No drafts were verified in this trace: speculation is off, or proposed nothing.")
    titles = ("draft position", step_title(trace), "drafts proposed")
    fig = figure(titles, ("share of rounds", "mean acceptance length", "accepted"), (0.31, 0.47, 0.22), 380, across=True)
    rounds = [one for _, found in verified for one in found]
    _by_position(fig, positions(rounds))
    _over_time(fig, verified)
    _by_length(fig, rounds)
    longest = max(one.proposed for one in rounds)
    axes(fig, 2)[1].update(range=[0.9, longest + 1.1])
    axes(fig, 2)[0].update(range=[trace.first_step - 0.5, trace.next_step - 0.5], tickformat=",d")
    _choices(fig, trace, longest)
    said = wrap(facts.accepted(speculation(trace.records)), TITLE_WIDTH)  # plotly breaks no lines
    title = {"text": "<br>".join(words(line) for line in said), "font_size": 12, "x": 0, "y": 0.99, "yanchor": "top"}
    return fig.update_layout(title=title, margin_t=50 + 16 * len(said))


def positions(rounds: Sequence[SpecRound]) -> list[Position]:
    """Counts of every position that any of the rounds proposed."""
    found = []
    for place in range(max(one.proposed for one in rounds)):
        having = [one.accepted for one in rounds if one.proposed > place]
        found.append(Position(sum(got > place for got in having), sum(got >= place for got in having), len(having)))
    return found


def _by_position(fig: Figure, found: Sequence[Position]) -> None:
    places, rounds = list(range(1, len(found) + 1)), found[0].reached
    bar = {"color": LOOKS[VERIFY].colour, "line_width": 0}
    counts = [[one.accepted, rounds, one.proposed] for one in found]
    shares = [one.accepted / rounds for one in found]
    labels = [f"{share:.0%}" for share in shares]
    words = {"text": labels, "textposition": "auto", "textangle": 0, "hovertemplate": f"{_BAR}<extra></extra>"}
    draw(fig, "Bar", x=places, y=shares, name="unconditional", marker=bar, customdata=counts, **words)
    given = [(place, one) for place, one in zip(places, found, strict=True) if one.reached]
    tick = {"symbol": "line-ew", "size": 26, "line": {"width": 3, "color": LOOKS[PREFILL].colour}}
    data = {"x": [place for place, _ in given], "y": [one.accepted / one.reached for _, one in given]}
    told = {"customdata": [one for _, one in given], "hovertemplate": f"{_TICK}<extra></extra>"}
    draw(fig, "Scatter", **data, **told, name="conditional", mode="markers", marker=tick)
    x_axis, y_axis = axes(fig, 1)
    x_axis.update(dtick=1, range=[0.4, len(found) + 0.6])
    y_axis.update(range=[0, 1.04], tickformat=".0%")


def _over_time(fig: Figure, verified: Sequence[tuple[int, Sequence[SpecRound]]]) -> None:
    steps = [step for step, _ in verified]
    counts = [[sum(one.accepted for one in rounds), sum(one.proposed for one in rounds), len(rounds)] for _, rounds in verified]
    lengths = [1 + accepted / rounds for accepted, _, rounds in counts]
    dot = {"color": LOOKS[VERIFY].colour, "size": 6, "opacity": 0.7}
    draw(fig, "Scatter", 2, x=steps, y=lengths, name="of a step", mode="markers", marker=dot, customdata=counts, hovertemplate=_DOT)
    sums = zip(accumulate(accepted for accepted, _, _ in counts), accumulate(rounds for _, _, rounds in counts), strict=True)
    so_far = [1 + accepted / rounds for accepted, rounds in sums]
    line = {"color": LOOKS[PREEMPTED].colour, "width": 2}
    hover = "all rounds up to step %{x:,}: %{y:.3~r}<extra></extra>"
    draw(fig, "Scatter", 2, x=steps, y=so_far, name="of all rounds so far", mode="lines", line=line, hovertemplate=hover)


def _choices(fig: Figure, trace: Trace, longest: int) -> None:
    """How many drafts each step asked for, where that was chosen, and why."""
    chosen = [(record.step, record.draft_choice) for record in trace if record.draft_choice is not None]
    if not chosen:
        return
    most = max(longest + 1, *(choice.num_drafts for _, choice in chosen))
    axes(fig, 2)[1].update(range=[-0.1, most + 0.1], title_text="mean acceptance length; drafts chosen")
    line = {"color": DIM, "width": 1.5, "shape": "hvh", "dash": "dot"}
    told = {"customdata": [words(choice.sentence()) for _, choice in chosen], "hovertemplate": _CHOICE}
    places = {"x": [step for step, _ in chosen], "y": [choice.num_drafts for _, choice in chosen]}
    draw(fig, "Scatter", 2, **places, **told, name="drafts chosen", mode="lines+markers", line=line, marker={"size": 3})


def _by_length(fig: Figure, rounds: Sequence[SpecRound]) -> None:
    found = by_length(rounds)
    rows = range(max(found) + 1)
    counts = [[str(found[length][row]) if row <= length else "" for length in found] for row in rows]
    shares = [[None if row > length else found[length][row] / sum(found[length]) for length in found] for row in rows]
    cells = {"x": [str(length) for length in found], "y": list(rows), "z": shares, "text": counts, "texttemplate": "%{text}"}
    look = {"colorscale": [[0, _PALE], [1, LOOKS[VERIFY].colour]], "zmin": 0, "zmax": 1, "showscale": False, "xgap": 1, "ygap": 1}
    draw(fig, "Heatmap", 3, **cells, **look, name="rounds", hoverongaps=False, hovertemplate=_CELL)
    x_axis, y_axis = axes(fig, 3)
    x_axis.update(type="category")
    y_axis.update(dtick=1 if len(rows) <= 10 else None, tickformat=",d", showgrid=False)
