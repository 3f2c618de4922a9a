"""Tokens per second beside ``transformers.generate``: same prompts, same model, same threads, in one run.

    python -m benchmarks.throughput [--model smollm2] [--batches 1,8,32] [--tokens 64] [--rounds 3] [--threads N] [--json FILE]

The sides take turns (ours, transformers bf16, transformers float32, ours, …) and each number is a median, so a machine that
slows down slows all of them.  transformers runs in float32 too, because on CPUs without bf16 units that is its faster dtype: our
ratio over the better of the two is printed as well.  Both sides decode greedily, never stop early, and include the prefill.
GB/s: bytes of weights (in that side's dtype, each once a step) times decode steps over the whole time, beside what this machine reads.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from workbench import Engine
from workbench.models import LoadedModel, load_model
from workbench.models.threads import default_num_threads

FLOOR, AIM = 1.2, 1.7
TOPICS = (
    "gravity", "rain", "prime numbers", "the sea", "a compiler", "bread", "the moon", "a bicycle", "music", "snow",
    "a volcano", "the heart", "paper", "a bridge", "honey", "glass",
)  # fmt: skip


class Side(NamedTuple):
    """One contestant: ``generate(batch) -> number of new tokens``."""

    name: str
    weight_bytes: int
    generate: Callable[[int], int]


def prompts(count: int) -> list[str]:
    """Plain-text prompts of five to nine tokens, no two alike."""
    return [f"Write {index + 2} lines about {TOPICS[index % len(TOPICS)]}:" for index in range(count)]


def ours(loaded: LoadedModel, tokens: int, threads: int) -> Side:
    """Our engine as a user runs it: scheduler, paged cache, records and text included; no prefix is reused between rounds."""

    def generate(batch: int) -> int:
        with Engine(
            loaded, max_num_seqs=batch, max_num_batched_tokens=512, num_blocks=batch * 8, enable_prefix_caching=False, num_threads=threads
        ) as engine:
            run = engine.run(prompts(batch), max_tokens=tokens, ignore_eos=True, chat=False)
        return sum(len(output.token_ids) for output in run.outputs)

    return Side(f"workbench {loaded.facts.dtype}", loaded.facts.weight_bytes, generate)


def theirs(loaded: LoadedModel, dtype: torch.dtype, tokens: int) -> Side:
    """``transformers.generate`` as documented: left padding, attention mask, KV cache, its default attention."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(loaded.folder, dtype=dtype).eval()

    def generate(batch: int) -> int:
        ids = [loaded.tokenizer.encode(prompt) for prompt in prompts(batch)]
        longest = max(map(len, ids))
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        with torch.inference_mode():
            out = model.generate(
                padded, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens,
                do_sample=False, eos_token_id=None, pad_token_id=2,
            )  # fmt: skip
        return int(out[:, longest:].numel())

    name = str(dtype).removeprefix("torch.")
    return Side(f"transformers {name}", loaded.facts.num_parameters * dtype.itemsize, generate)


def tokens_per_s(side: Side, batch: int) -> float:
    """One timed call."""
    gc.collect()
    began = perf_counter()
    made = side.generate(batch)
    return made / (perf_counter() - began)


def read_bandwidth() -> float:
    """GB/s of summing a gigabyte: what one pass over weights could reach at best."""
    big = torch.ones(1 << 28)
    times = []
    for _ in range(5):
        began = perf_counter()
        big.sum()
        times.append(perf_counter() - began)
    return big.nbytes / min(times) / 1e9


def measure(sides: list[Side], batch: int, rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each side, alternating, after one round that does not count."""
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in sides:
        side.generate(batch)
    for _ in range(rounds):
        for side in sides:
            found[side.name].append(tokens_per_s(side, batch))
    return found


def report(sides: list[Side], batch: int, found: dict[str, list[float]]) -> dict[str, Any]:
    """Print one batch size and return it as plain data."""
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(f"\nbatch {batch}")
    for side in sides:
        speed, values = medians[side.name], found[side.name]
        spread = f"{min(values):.1f} … {max(values):.1f}"
        print(f"  {side.name:<24}{speed:>9.1f} tok/s   {side.weight_bytes * speed / batch / 1e9:>6.1f} GB/s of weights   ({spread})")
    mine, *others = medians.values()
    over_bf16, over_best = mine / others[0], mine / max(others)
    verdict = "aim met" if over_bf16 >= AIM else "floor met" if over_bf16 >= FLOOR else "BELOW THE FLOOR"
    print(f"  ratio {over_bf16:.2f}x over transformers bf16 ({verdict}: floor {FLOOR}, aim {AIM}), {over_best:.2f}x over its better dtype")
    return {"batch": batch, "tokens_per_s": found, "ratio_bf16": over_bf16, "ratio_best": over_best}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; exit status 1 when a batch size is below the floor."""
    parser = argparse.ArgumentParser(description="Tokens per second beside transformers.generate.")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batches", default="1,8,32", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--tokens", default=64, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--threads", default=default_num_threads(), type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)  # a benchmark owns its process: both sides get the same threads
    loaded = load_model(options.model, dtype="bfloat16", device="cpu")
    baselines = [theirs(loaded, dtype, options.tokens) for dtype in (torch.bfloat16, torch.float32)]
    sides = [ours(loaded, options.tokens, options.threads), *baselines]
    bandwidth = read_bandwidth()
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}, reads {bandwidth:.1f} GB/s")
    print(f"our path: {loaded.facts.path}")
    results = [report(sides, batch, measure(sides, batch, options.rounds)) for batch in options.batches]
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "read_gb_per_s": bandwidth, "batches": results}, indent=1))
    return int(any(result["ratio_bf16"] < FLOOR for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
