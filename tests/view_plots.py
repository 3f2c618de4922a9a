"""Where things lie on the view's plots over steps, worked out from their layout, and the traces that tests of them share."""

from __future__ import annotations

import math
from functools import cache

from render_fixtures import make_trace

from workbench import Engine
from workbench.runners.scripted import ScriptedRunner

LEFT, RIGHT, TOP, AXIS = 44, 8, 6, 16  # CSS pixels around a plotting area (plot.ts)


class PlotArea:
    """The plotting area of a panel whose whole run is in sight: ``x`` and ``y`` in CSS pixels of its canvas."""

    def __init__(self, view, panel: str, num_steps: int) -> None:
        self.selector = f"{panel} .uplot canvas"
        self.canvas = view.page.locator(self.selector).first
        box = self.canvas.bounding_box()
        self.width, self.height = box["width"] - LEFT - RIGHT, box["height"] - TOP - AXIS
        self.step = self.width / max(num_steps, self.width / 30)  # a step takes 30 pixels at most

    def x(self, position: int) -> float:
        return LEFT + (position + 0.5) * self.step

    def y(self, share: float) -> float:
        """The place of a share of the height, counted from the bottom."""
        return TOP + self.height * (1 - share)

    def y_log(self, value: float, values: list[float]) -> float:
        """The place of a value on a logarithmic scale that holds all ``values`` and a quarter more at both ends."""
        low, high = min(values) / 1.25, max(values) * 1.25
        return self.y(math.log(value / low) / math.log(high / low))

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        """The place on the page as it is now: what lies above may have grown since."""
        box = self.canvas.bounding_box()
        return box["x"] + x, box["y"] + y


def gaps(trace) -> list[tuple[float, int, str]]:
    """Every gap between tokens of a trace without edits: milliseconds, the step of the token after it, and whose it is."""
    last: dict[str, float] = {}
    found = []
    for record in trace.records:
        for entry in record.sampled:
            if entry.request_id in last:
                found.append(((record.end_s - last[entry.request_id]) * 1e3, record.step, entry.request_id))
            last[entry.request_id] = record.end_s
    return found


@cache
def crowded_trace():
    """Eight imitated requests that are chunked, wait and are preempted; times come from arithmetic."""
    return make_trace(8, blocks=16)


@cache
def speculative_trace():
    """Two or three drafts a round, right as far as a rule says, verified by a real scheduler."""

    def drafts(name: str, known) -> list[int]:
        position = len(known) - PROMPT_LEN[name]
        right = (7 * position + 3 * int(name[1:])) % 5
        return [(position + i) % 50 if i < right else 99 for i in range(3 if name != "r2" else 2)]

    runner = ScriptedRunner(lambda name, position: position % 50, drafts=drafts, step_ms=5.0)
    with Engine(runner, num_blocks=64, num_speculative_tokens=3, max_num_seqs=3, debug=True) as engine:
        return engine.run([[7] * length for length in PROMPT_LEN.values()], max_tokens=30).trace


PROMPT_LEN = {"r0": 9, "r1": 17, "r2": 5, "r3": 12, "r4": 20}


@cache
def edited_trace():
    """A request that is given another prompt on the way: what it said before counts no more."""
    engine = Engine(ScriptedRunner(step_ms=5.0), num_blocks=16)
    run = engine.run([[1] * 5, [2] * 5], max_tokens=8)
    return run.fork(4, edit={"r1": {"prompt_token_ids": [3] * 9}}).resume().trace
