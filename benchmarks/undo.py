"""What going back costs with the real model: saving blocks while it runs, rewinding, and forking.

    python -m benchmarks.undo [--rounds 3]

Eight requests decode on a pool that they fill, again and again, so that nearly every block that a step allocates holds something old, which
has to be kept.  Runs with and without undo memory take turns; then rewinds and forks beside one step.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter

from workbench import Engine, Run
from workbench.models import LoadedModel, load_model

PROMPTS = [f"Tell me something about the number {number}." for number in range(8)]


def crowded(model: LoadedModel, undo_memory_bytes: int, times: int = 3) -> Run:
    """The last of some runs on one engine whose pool they fill."""
    engine = Engine(model, num_blocks=56, enable_prefix_caching=False, undo_memory_bytes=undo_memory_bytes)
    for _ in range(times):
        run = engine.run(PROMPTS, max_tokens=64, ignore_eos=True)
    return run


def step_ms(run: Run) -> float:
    """Mean milliseconds from the start of one decode step to that of the next, everything between them included."""
    starts = [record.start_s for record in run.trace if all(row.kind == "decode" for row in record.scheduled)]
    return statistics.fmean(later - earlier for earlier, later in pairwise(starts)) * 1e3


def timed_ms(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return (perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    model = load_model("smollm2")
    without, kept = [], []
    for _ in range(rounds):
        without.append(step_ms(crowded(model, 0)))
        kept.append(step_ms(crowded(model, 256 << 20)))
    plain, saving = statistics.median(without), statistics.median(kept)
    print(f"a decode step of 8 requests: {plain:.2f} ms, old blocks kept for 256 MiB {saving:.2f} ms ({saving / plain - 1:+.1%})")
    run = crowded(model, 256 << 20)
    last = run.first_step + len(run.trace)
    for back in (5, 30, 60):
        forks = [timed_ms(lambda: run.fork(last - back)) for _ in range(rounds)]  # noqa: B023
        print(f"fork {back} steps back: {statistics.median(forks):.1f} ms")
    for back in (5, 30, 60):
        ms = timed_ms(lambda: run.rewind(last - back))  # noqa: B023
        restored = run.engine.last_restored.blocks_restored
        size_mib = restored * run.engine.runner.block_bytes / 2**20
        print(f"rewind to {back} steps before the end: {ms:.1f} ms, {restored} blocks put back ({size_mib:.0f} MiB)")
    again = run.engine
    again.rewind(run.first_step)
    again.park()
    ms = timed_ms(lambda: again.fork())
    print(f"the KV cache given back, {run.first_step} steps computed again: {ms / 1e3:.2f} s")


if __name__ == "__main__":
    main()
