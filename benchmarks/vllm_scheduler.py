"""vLLM's side of ``benchmarks.scheduler``; needs an environment that has vLLM.

    python vllm_scheduler.py REQUESTS STEPS MODEL_FOLDER

Times ``Scheduler.schedule`` + ``update_from_output`` with scripted tokens; no model is loaded (the folder is read for its config).
"""

from __future__ import annotations

import sys
from time import perf_counter

import torch
from vllm import SamplingParams
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCK_SIZE = 16


def make(requests: int, folder: str) -> Scheduler:
    model = ModelConfig(model=folder, dtype="float16", max_model_len=1024)
    batch = SchedulerConfig(
        max_num_seqs=requests,
        max_num_batched_tokens=max(8192, requests * 100),
        max_model_len=1024,
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
    )
    cache = CacheConfig(block_size=BLOCK_SIZE, enable_prefix_caching=True)
    cache.num_gpu_blocks = requests * 64 + 1
    config = VllmConfig(model_config=model, scheduler_config=batch, cache_config=cache)
    spec = FullAttentionSpec(block_size=BLOCK_SIZE, num_kv_heads=1, head_size=1, dtype=torch.float32)
    pool = KVCacheConfig(num_blocks=requests * 64 + 1, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    scheduler = Scheduler(config, pool, StructuredOutputManager(config), BLOCK_SIZE)
    init_none_hash(sha256)
    for index in range(requests):
        sampling = SamplingParams(max_tokens=900, ignore_eos=True)
        scheduler.add_request(
            Request(
                f"r{index}", list(range(index, index + 100)), sampling, None, block_hasher=get_request_block_hasher(BLOCK_SIZE, sha256)
            )
        )
    return scheduler


def step_us(requests: int, steps: int, folder: str) -> list[float]:
    """Microseconds of each step after the first."""
    scheduler = make(requests, folder)
    times: list[float] = []
    while len(times) <= steps:
        began = perf_counter()
        planned = scheduler.schedule()
        names = list(planned.num_scheduled_tokens)
        output = ModelRunnerOutput(
            req_ids=names, req_id_to_index={name: row for row, name in enumerate(names)}, sampled_token_ids=[[5] for _ in names]
        )
        scheduler.update_from_output(planned, output)
        times.append((perf_counter() - began) * 1e6)
    return times[1:]


def main() -> None:
    for time in step_us(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]):
        print("us", time)


if __name__ == "__main__":
    main()
