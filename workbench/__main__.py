"""``python -m workbench``: the pitch on one screen of a terminal, in a second and without a model.

Three requests share a pool that is too small for them.  The tokens are scripted; the scheduler, the block pool and the reasons
are the real ones.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from workbench.cli import main, overview

if TYPE_CHECKING:
    from workbench.trace import Trace

_TITLE = "Three requests share 6 blocks of 4 tokens; one column is one step.  P prefill, d decode, . waiting, ! preempted"
_TRY = 'Now with a real model:   workbench infer --max-tokens 32 "What is gravity?" "Name three primes."'


def demo() -> str:
    """The steps of three scripted requests as a picture of letters, and in words why each waited."""
    from workbench.engine import Engine
    from workbench.runners.scripted import ScriptedRunner

    prompts: list[dict[str, Any]] = [
        {"id": "first", "prompt": list(range(7))},
        {"id": "second", "prompt": list(range(10, 17))},
        {"id": "third", "prompt": list(range(20, 31)), "arrival_step": 3},
    ]
    with Engine(ScriptedRunner(), num_blocks=6, block_size=4, enable_prefix_caching=False) as engine:
        trace = engine.run(prompts, max_tokens=8).trace
    return "\n".join([_TITLE, "", *_lanes(trace), "", *_reasons(trace), "", _TRY, "", overview()])


def _lanes(trace: Trace) -> list[str]:
    from workbench.render.board import board_of
    from workbench.render.palette import LOOKS

    lanes = board_of(trace).lanes
    return [f"  {lane.request_id:<8}" + "".join(LOOKS[kind].letter if kind else " " for kind in lane.kinds) for lane in lanes]


def _reasons(trace: Trace) -> list[str]:
    """A line for each new reason of a request that did not run."""
    from workbench.render.board import board_of

    lines: dict[str, str] = {}
    for index in range(len(trace)):
        for lane in board_of(trace).lanes:
            if index in lane.refused and lane.kinds[index]:
                decision = lane.refused[index]
                lines.setdefault(
                    f"{lane.request_id} {decision.verdict.value} {decision.reason.value}",
                    f"  step {index:>2}  {lane.request_id} was {decision.verdict.value}: {lane.why(index, index + 1)}",
                )
    return list(lines.values())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main())
    print(demo())
