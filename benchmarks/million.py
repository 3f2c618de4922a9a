"""How long a million decoded tokens take without a model: the whole engine, 64 requests at a time, records and trace included.

    python -m benchmarks.million [--tokens 1000000] [--batch 64] [--output 500]

Tokens are scripted; everything else is what a run with a model does: scheduling, blocks, decisions, records, keyframes for going back.
Requests of ``--output`` tokens follow one another, so that 64 run at any time but the last.  Aim: 20 s on one core.
"""

from __future__ import annotations

import argparse
import os
import resource
from time import perf_counter, process_time

from workbench import Engine
from workbench.runners.scripted import ScriptedRunner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--output", type=int, default=500)
    chosen = parser.parse_args()
    blocks = chosen.batch * -(-(chosen.output + 33) // 16)
    runner = ScriptedRunner(default_token=5, max_model_len=chosen.output + 64)
    engine = Engine(runner, max_num_seqs=chosen.batch, num_blocks=blocks, max_num_batched_tokens=8192)
    prompts = [list(range(index, index + 32)) for index in range(-(-chosen.tokens // chosen.output))]
    began, used = perf_counter(), process_time()
    run = engine.run(prompts, max_tokens=chosen.output)
    wall_s, cpu_s = perf_counter() - began, process_time() - used
    engine.close()
    tokens = sum(len(sampled.token_ids) for record in run.trace for sampled in record.sampled)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    steps, load = len(run.trace), os.getloadavg()[0]
    print(f"{tokens:,} tokens in {steps:,} steps of up to {chosen.batch}: {wall_s:.1f} s ({cpu_s:.1f} s of CPU), load {load:.1f}")
    print(f"{wall_s / steps * 1e6:,.0f} µs a step, {wall_s / tokens * 1e6:.1f} µs a token; {memory_mib:,.0f} MiB at most, trace included")


if __name__ == "__main__":
    main()
