"""What going back costs: rewind, fork and why in a run of 500 steps and 16 requests, without a model.

    python -m benchmarks.timetravel [--steps 500] [--requests 16] [--rounds 20]

The pool is short of blocks, so the run has preemptions, evictions and prefix hits.  A rewind drops what came later and the run then goes
on to its end, which is not timed; a fork leaves the run as it is.  Steps are drawn at random, the hardest one is among them: one
before a keyframe.  Aim for rewind and fork: 150 ms.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
from collections.abc import Callable
from time import perf_counter

from workbench import Engine, Run
from workbench.history import KEYFRAME_STEPS
from workbench.runners.scripted import ScriptedRunner


def make_run(requests: int, steps: int) -> Run:
    """``requests`` at a time for at least ``steps`` steps; each prompt shares its beginning with some others."""
    runner = ScriptedRunner(lambda name, position: (position * 7 + len(name)) % 97)
    engine = Engine(runner, max_num_seqs=requests, num_blocks=requests * 9, max_num_batched_tokens=256)
    prompts = [[number % 3] * 32 + list(range(number, number + 48)) for number in range(requests * steps // 90)]
    return engine.run(prompts, max_tokens=100)


def timed(verb: Callable[[], object]) -> float:
    """Milliseconds."""
    began = perf_counter()
    verb()
    return (perf_counter() - began) * 1e3


def report(name: str, times: list[float]) -> None:
    """One line."""
    print(f"  {name:26} median {statistics.median(times):7.1f} ms   worst {max(times):7.1f} ms   of {len(times)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    run = make_run(chosen.requests, chosen.steps)
    end, rng = len(run.trace), random.Random(0)
    preemptions = sum(len(record.preempted) for record in run.trace)
    print(f"{end} steps of up to {chosen.requests} requests, {preemptions} preemptions, load {os.getloadavg()[0]:.1f}")
    hardest = [step for step in (end - 1, end // KEYFRAME_STEPS * KEYFRAME_STEPS - 1) if 0 <= step < end]
    places = [*hardest, 0, *(rng.randrange(end) for _ in range(chosen.rounds))]
    report("fork", [timed(lambda step=step: run.engine.fork(step)) for step in places])
    report("fork with a larger pool", [timed(lambda step=step: run.engine.fork(step, num_blocks=chosen.requests * 12)) for step in places])
    report("why(step=k)", [timed(lambda step=step: run.why(step=step)) for step in places])
    asked = [(step, rng.choice(run.trace[step].decisions).request_id) for step in places]
    report("why(request, k)", [timed(lambda step=step, name=name: run.why(name, step)) for step, name in asked])
    names = [request.id for request in run.requests]
    report("why(request): its life", [timed(lambda name=name: run.why(name)) for name in names[: chosen.rounds]])
    report("at(k)", [timed(lambda step=step: run.at(step)) for step in places])
    rewinds = []
    for step in places:
        rewinds.append(timed(lambda step=step: run.rewind(step)))
        run.resume()
    report("rewind", rewinds)


if __name__ == "__main__":
    main()
