"""Speculation: how often each draft position was accepted, and how many tokens a verification gave over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from workbench.events import SpecRound
from workbench.plots._figure import Figure, axes, draw, empty, figure, snapshot, step_title
from workbench.render.palette import LOOKS, PREEMPTED, PREFILL, VERIFY

_BAR = "draft %{x}: %{y:.1%} of all rounds<br>accepted in %{customdata[0]:,} of %{customdata[1]:,} rounds, proposed in %{customdata[2]:,}"
_TICK = "draft %{x}: %{y:.1%} of the rounds that got here"
_TICK += "<br>accepted in %{customdata[0]:,} of the %{customdata[1]:,} that accepted all before it"
_DOT = "step %{x:,}: %{y:.3~r}<br>%{customdata[0]:,} of %{customdata[1]:,} drafts accepted in %{customdata[2]:,} round(s)<extra></extra>"


class Position(NamedTuple):
    """What became of one draft position: rounds that accepted it, that accepted all before it, and that proposed it."""

    accepted: int
    reached: int
    proposed: int


def acceptance(trace: Any) -> Figure:
    """Acceptance by draft position, and the mean acceptance length over the steps, by vLLM's definitions.

    Left, x: position of the draft, from 1; y: share of rounds that accepted it, as a bar of all rounds with drafts (unconditional), as a
    tick of those that accepted every draft before it (conditional).  Right, x: step; y: mean acceptance length, 1 + accepted drafts /
    rounds, of each step as dots and of all rounds so far as a line, which ends at ``run.metrics.mean_acceptance_length``.
    """
    trace = snapshot(trace, "acceptance")
    verified = [(record.step, [one for one in record.spec if one.proposed > 0]) for record in trace]
    verified = [(step, rounds) for step, rounds in verified if rounds]
    if not verified:
        return empty("No drafts were verified in this trace: speculation is off, or proposed nothing.")
    shares, height = (0.38, 0.62), 340
    fig = figure(("draft position", step_title(trace)), ("share of rounds", "mean acceptance length"), shares, height, across=True)
    _by_position(fig, positions([one for _, rounds in verified for one in rounds]))
    _over_time(fig, verified)
    longest = max(one.proposed for _, rounds in verified for one in rounds)
    axes(fig, 2)[1].update(range=[0.9, longest + 1.1])
    axes(fig, 2)[0].update(range=[trace.first_step - 0.5, trace.next_step - 0.5], tickformat=",d")
    return fig


def positions(rounds: Sequence[SpecRound]) -> list[Position]:
    """Counts of every position that any of the rounds proposed."""
    accepted = [sum(one.accepted > place for one in rounds) for place in range(max(one.proposed for one in rounds))]
    reached = [len(rounds), *accepted]
    return [Position(got, reached[place], sum(one.proposed > place for one in rounds)) for place, got in enumerate(accepted)]


def _by_position(fig: Figure, found: Sequence[Position]) -> None:
    places, rounds = list(range(1, len(found) + 1)), found[0].reached
    bar = {"color": LOOKS[VERIFY].colour, "line_width": 0}
    counts = [[one.accepted, rounds, one.proposed] for one in found]
    shares = [one.accepted / rounds for one in found]
    labels = [f"{share:.0%}" for share in shares]
    words = {"text": labels, "textposition": "auto", "hovertemplate": f"{_BAR}<extra></extra>"}
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
