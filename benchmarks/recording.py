"""What recording costs on the real model: the share of a step that is not the model, at batch 8.

    python -m benchmarks.recording [--batch 8] [--tokens 64]

``plan`` and ``commit`` are timed by the engine itself and hold the scheduler *and* the records, so their share is an upper bound
for the records alone; ``benchmarks.scheduler`` gives the same in microseconds.  Aim: at most 3 % of a step.
"""

from __future__ import annotations

import argparse
import statistics

from workbench import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    chosen = parser.parse_args()
    engine = Engine("smollm2", max_num_seqs=chosen.batch)
    prompts = [f"Tell me about the number {number}." for number in range(chosen.batch)]
    run = engine.run(prompts, max_tokens=chosen.tokens, ignore_eos=True)
    steps = [record for record in run.trace if len(record.scheduled) == chosen.batch and record.num_tokens == chosen.batch]
    ours = statistics.median(record.timing.plan_ms + record.timing.commit_ms for record in steps)
    whole = statistics.median(record.duration_ms for record in steps)
    print(f"batch {chosen.batch}, {len(steps)} decode steps on {engine.model.path}")
    print(f"plan + commit, records included: {ours:.3f} ms of {whole:.2f} ms a step = {100 * ours / whole:.2f} %")


if __name__ == "__main__":
    main()
