"""What one decision costs: plan + commit of 64 running requests, records included, beside vLLM's own scheduler.

    python -m benchmarks.scheduler [--requests 64] [--steps 400] [--vllm /path/to/an/environment/with/vllm/bin/python]

Every request decodes one token a step.  Ours counts everything from ``plan`` to the finished ``StepRecord`` (decisions, block
events, queues); vLLM's counts ``Scheduler.schedule`` + ``update_from_output``.  The two run in turn, three times each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from workbench.config import EngineConfig
from workbench.models.store import fetch
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.scheduler import Scheduler

PEER = Path(__file__).with_name("vllm_scheduler.py")


def ours_us(requests: int, steps: int) -> list[float]:
    """Microseconds of each step."""
    config = EngineConfig(max_num_seqs=requests, max_num_batched_tokens=8192)
    scheduler = Scheduler(config, num_blocks=requests * 64, max_model_len=1024)
    for index in range(requests):
        prompt = tuple(range(index, index + 100))
        scheduler.add(Request(id=f"r{index}", prompt_token_ids=prompt, sampling=SamplingParams(max_tokens=900, ignore_eos=True)))
    times, kept = [], []
    for _ in range(steps + 1):
        began = perf_counter()
        plan = scheduler.plan()
        output = StepOutput([[5]] * len(plan.rows))
        kept.append(scheduler.commit(plan, output))
        times.append((perf_counter() - began) * 1e6)
    return times[1:]


def vllm_us(python: str, requests: int, steps: int) -> list[float]:
    """The same from vLLM, in its own environment."""
    command = [python, str(PEER), str(requests), str(steps), str(fetch("smollm2"))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(line.removeprefix("us ")) for line in printed.splitlines() if line.startswith("us ")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--vllm", metavar="PYTHON")
    chosen = parser.parse_args()
    print(f"{chosen.requests} running requests, {chosen.steps} steps, Python {sys.version.split()[0]}; microseconds a step")
    for _ in range(3):
        sides = {"ours": ours_us(chosen.requests, chosen.steps)}
        if chosen.vllm:
            sides["vLLM"] = vllm_us(chosen.vllm, chosen.requests, chosen.steps)
        for name, times in sides.items():
            deciles = statistics.quantiles(times, n=10)
            print(f"  {name:5} median {statistics.median(times):6.0f}   p10 {deciles[0]:6.0f}   p90 {deciles[-1]:6.0f}")


if __name__ == "__main__":
    main()
