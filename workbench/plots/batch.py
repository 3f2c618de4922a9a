"""What the model read in each step, against the token budget, and where the milliseconds of the step went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.metrics import percentile
from workbench.plots._figure import Figure, Layer, axes, level, no_steps, snapshot, stack, step_numbers, steps_figure
from workbench.render._format import number
from workbench.render.board import board_of
from workbench.render.palette import DECODE, DRAFT, FORWARD, LOOKS, PLAN, PREFILL, SAMPLE, VERIFY

_PATTERNS = {DECODE: "", VERIFY: "/", PREFILL: "."}
# The scheduler's own work is orange, the runner's grey.
_PHASES = {
    "plan": (PLAN, ""),
    "prepare": (SAMPLE, "."),
    "forward": (FORWARD, ""),
    "sample": (SAMPLE, "/"),
    "draft": (DRAFT, "|"),
    "commit": (PLAN, "x"),
}


def batch(trace: Any, *, times: bool = True) -> Figure:
    """Tokens that the model read in each step, stacked by kind, against the token budget; below, milliseconds by phase.

    x: step.  y: tokens, with ``max_num_batched_tokens`` as a line; milliseconds (left out with ``times=False``).  A budget of more than
    four times the busiest step lies above what is shown at first: autoscale brings it in.
    """
    trace = snapshot(trace, "batch")
    if not len(trace):
        return no_steps()
    steps, board = step_numbers(trace.records), board_of(trace)
    fig = steps_figure(trace, "tokens", "ms", shares=(0.6, 0.4), height=440) if times else steps_figure(trace, "tokens", height=280)
    layers = [Layer(LOOKS[kind].label, board.tokens(kind), LOOKS[kind].colour, pattern) for kind, pattern in _PATTERNS.items()]
    stack(fig, steps, [layer for layer in layers if any(layer.values)] or layers[:1], "%{y:,}")
    level(fig, steps, [record.tokens.limit for record in trace], "token budget")
    if times:
        timings = [record.timing for record in trace]
        phases = [Layer(name, [round(getattr(one, f"{name}_ms"), 4) for one in timings], *look) for name, look in _PHASES.items()]
        stack(fig, steps, [one for one in phases if one.name != "draft" or any(one.values)], "%{y:.3~r} ms", panel=2)
        _keep_readable(axes(fig, 2)[1], [one.total_ms for one in timings])
    return fig


def _keep_readable(axis: Any, durations_ms: Sequence[float]) -> None:
    """Where some steps took more than ten times as long as most did, show those first, and say how long the longest was."""
    ordered = sorted(durations_ms)
    if ordered[-1] > 10 * percentile(ordered, 95):
        axis.update(range=[0, 2 * percentile(ordered, 95)], title_text=f"ms (longest: {number(ordered[-1])})")
