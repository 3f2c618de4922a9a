"""Scheduling policies: one file each, chosen by ``EngineConfig.policy``.

=========================================  ========================================================================================
``fcfs``, ``priority``                     vLLM 0.32.0 (:mod:`workbench.policies.vllm`): optimistic, preempts when blocks run out
``guaranteed_no_evict``, ``static_batch``  TensorRT-LLM (:mod:`workbench.policies.trtllm`): reserves blocks to the end, never preempts
``max_utilization``                        TensorRT-LLM (the same): the next step's blocks only, pauses the last started
``lpm``                                    SGLang (:mod:`workbench.policies.sglang`): radix cache, prompts first, guesses and retracts
=========================================  ========================================================================================
"""

from __future__ import annotations

from workbench.batching import Batcher
from workbench.config import EngineConfig
from workbench.kv import KvCache
from workbench.kv_radix import RadixKvCache
from workbench.policies.base import Planner
from workbench.policies.sglang import LpmPlanner
from workbench.policies.trtllm import TrtPlanner
from workbench.policies.vllm import VllmPlanner
from workbench.queues import Queues

__all__ = ["Planner", "keeps_its_cache", "make_kv_cache", "make_planner"]


def make_kv_cache(config: EngineConfig, num_blocks: int) -> KvCache:
    """The block tables and prefix cache that ``config.policy`` works with."""
    if config.policy == "lpm":
        return RadixKvCache(num_blocks, config.block_size, enable_prefix_caching=config.enable_prefix_caching)
    own = {"enable_prefix_caching": config.enable_prefix_caching, "gives_up_last_hit": config.gives_up_last_hit}
    return KvCache(num_blocks, config.block_size, **own)


def keeps_its_cache(before: str, after: str) -> bool:
    """Whether a running engine can go from one policy to another: only if both find prefixes in the same kind of cache."""
    return (before == "lpm") == (after == "lpm")


def make_planner(config: EngineConfig, queues: Queues, kv: KvCache, batcher: Batcher, max_model_len: int) -> Planner:
    """The planner that ``config.policy`` names."""
    if config.policy == "lpm":
        return LpmPlanner(config, queues, kv)
    if config.policy in ("fcfs", "priority"):
        return VllmPlanner(config, queues, kv, batcher, max_model_len)
    return TrtPlanner(config, queues, kv)
