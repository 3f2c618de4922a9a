"""What choosing tokens costs: a batch of scores as long as smollm2's vocabulary, for each kind of sampling.

    python benchmarks/sampling.py [--batch 32] [--threads 2]

Scores fall off like those of a language model in the middle of a text; ``flat`` rows are the worst case for ``top_p``.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch

from workbench.request import Request, SamplingParams
from workbench.sampler import SampleRow, sample

KINDS: dict[str, dict[str, object]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "temperature, top_p": {"temperature": 0.8, "top_p": 0.95},
    "temperature, top_k": {"temperature": 0.8, "top_k": 50},
    "temperature, top_k, top_p": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "temperature, min_p": {"temperature": 0.8, "min_p": 0.05},
    "penalties": {"repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": 0.5},
    "greedy, logprobs": {"logprobs": 5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of sampling")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    flat = torch.randn(options.batch, options.vocab)
    peaked = flat * 2.5 - 3.0 * torch.rand(options.batch, options.vocab).argsort(-1).add(1).log() * 0.7
    prompt = tuple(range(500))
    print(f"batch {options.batch}, vocabulary {options.vocab}, {options.threads} threads: minimum and median of 30")
    print(f"{'torch.argmax':30s}", *spread(lambda: peaked.argmax(-1)))
    for shape, logits in (("", peaked), ("flat: ", flat)):
        for name, params in KINDS.items():
            seeded = [SamplingParams.of(seed=i, **params) for i in range(options.batch)]
            requests = [Request(id=f"r{i}", prompt_token_ids=prompt, sampling=sampling) for i, sampling in enumerate(seeded)]
            rows = [SampleRow(request, prompt, 100) for request in requests]
            print(f"{shape + name:30s}", *spread(partial(sample, logits, rows)))


def spread(action) -> tuple[str, str]:
    action()
    times = []
    for _ in range(30):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1e3)
    return f"{min(times):8.2f} ms", f"{sorted(times)[15]:8.2f} ms"


if __name__ == "__main__":
    main()
