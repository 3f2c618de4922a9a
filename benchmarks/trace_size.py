"""How big a trace file is and how fast it loads: 10,000 steps of 16 requests each.

    python benchmarks/trace_size.py [--steps 10000] [--levels 1 3 6 9]

The run is made up, but every record is as full as the scheduler makes it: 16 rows, 16 decisions, 16 sampled tokens with
their text, block events, queues and five measured times per step.  Aim: at most 5 MB and at most 1 s.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from workbench import _tracefile
from workbench.config import EngineConfig
from workbench.events import (
    Arrival,
    BlockEvent,
    Budget,
    Decision,
    Finished,
    KvUsage,
    ModelFacts,
    Reason,
    Sampled,
    Scheduled,
    StepRecord,
    StepTiming,
    Verdict,
)
from workbench.request import Request, SamplingParams
from workbench.trace import Trace, load_trace

T = TypeVar("T")
BLOCK_SIZE, NUM_BLOCKS, PROMPT, OUTPUT, VOCAB = 16, 1024, 60, 200, 49_152


def made_up_trace(steps: int, batch: int = 16, seed: int = 0) -> Trace:
    """A run in which ``batch`` requests are always under way and a finished one is followed by the next."""
    rng = random.Random(seed)
    words = [f" {''.join(rng.choices('etaoinshrdlu', k=rng.randint(1, 8)))}" for _ in range(VOCAB)]
    trace = Trace(EngineConfig(max_num_seqs=batch, num_blocks=NUM_BLOCKS), ModelFacts(name="made up", vocab_size=VOCAB))
    active: list[list[int]] = []  # [request number, tokens known, tokens wanted]
    clock, free = 0.0, list(range(1, NUM_BLOCKS + 1))
    for step in range(steps):
        arrived, finished, events, rows, decisions, sampled = [], [], [], [], [], []
        while len(active) < batch:
            number = len(trace.requests)
            tokens = tuple(min(int(rng.expovariate(1 / 3000)), VOCAB - 1) for _ in range(rng.randint(PROMPT // 2, PROMPT * 2)))
            trace.add_request(Request(id=f"r{number}", prompt_token_ids=tokens, sampling=SamplingParams(max_tokens=OUTPUT * 2)))
            active.append([number, 0, len(tokens) + rng.randint(OUTPUT // 2, OUTPUT * 2)])
            arrived.append(Arrival(f"r{number}", clock))
        for entry in active:
            name, known = f"r{entry[0]}", entry[1]
            end = known + 1 if known else len(trace.requests[name].prompt_token_ids)
            rows.append(Scheduled(name, "decode" if known else "prefill", known, end))
            decisions.append(Decision(name, Verdict.SCHEDULED, Reason.FULL, end - known))
            for _ in range(-(-end // BLOCK_SIZE) - -(-known // BLOCK_SIZE)):
                block = free.pop(0)
                events.append(BlockEvent("allocated", block, name))
                events.append(BlockEvent("cached", block, name, f"{rng.getrandbits(64):016x}"))
                free.append(block)
            entry[1] = end
            token = min(int(rng.expovariate(1 / 3000)), VOCAB - 1)
            sampled.append(Sampled(name, (token,), words[token]))
            if end >= entry[2]:
                finished.append(Finished(name, "stop", 2))
                events += [BlockEvent("freed", rng.randint(1, NUM_BLOCKS), name) for _ in range(end // BLOCK_SIZE)]
        names = tuple(f"r{entry[0]}" for entry in active)
        timing = StepTiming(*(rng.uniform(0.8, 1.2) * mean for mean in (0.1, 0.3, 30.0, 0.8, 0.1)))
        used = sum(end.num_tokens for end in rows)
        kv = KvUsage(used % 500, 100, NUM_BLOCKS - 100 - used % 500)
        trace.append(
            StepRecord(
                step, clock, timing, Budget(256, used), Budget(batch, len(active)), kv, kv, tuple(rows), tuple(decisions), tuple(events),
                tuple(sampled), arrived=tuple(arrived), finished=tuple(finished), running=names,
            )
        )  # fmt: skip
        clock += timing.total_ms / 1e3 + rng.uniform(0, 1e-4)
        active = [entry for entry in active if entry[1] < entry[2]]
    return trace


def main() -> None:
    parser = argparse.ArgumentParser(description="Size and speed of a saved trace")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--levels", type=int, nargs="*", default=[])
    options = parser.parse_args()
    trace = made_up_trace(options.steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.wbt"
        save_s, _ = timed(trace.save, path)
        load_s = min(timed(load_trace, path)[0] for _ in range(3))
        data = path.read_bytes()
        assert load_trace(path) == trace
    print(f"{options.steps:,} steps: {len(data) / 1e6:.2f} MB, saved in {save_s:.2f} s, loaded in {load_s:.2f} s")
    raw = _tracefile._unpack(data)
    print(f"before compression {len(raw) / 1e6:.1f} MB")
    for level in options.levels:
        pack_s, packed = timed(zlib.compress, raw, level)
        unpack_s, _ = timed(zlib.decompress, packed)
        print(f"zlib level {level}: {len(packed) / 1e6:.2f} MB, compressed in {pack_s:.2f} s, expanded in {unpack_s:.2f} s")


def timed(function: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
