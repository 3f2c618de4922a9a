"""How many KV blocks an engine gets, and how long a request may become."""

from __future__ import annotations

from workbench.config import EngineConfig
from workbench.errors import ConfigError
from workbench.events import ModelFacts

DEFAULT_KV_BYTES = 512 * 2**20
"""Default memory of the KV cache, if an eighth of the machine's (or container's) memory is no less."""

DEFAULT_BLOCKS_WITHOUT_TENSORS = 1024
"""Default pool of a runner that keeps no KV tensors."""


def pool_blocks(config: EngineConfig, facts: ModelFacts, *, memory_bytes: int, draft_weight_bytes: int = 0) -> int:
    """Usable blocks: ``num_blocks``, or what ``kv_cache_memory_bytes`` (by default an eighth of memory, 512 MiB at most) holds.

    ``memory_bytes`` is the limit of the machine or container; the model's weights and those that a drafter has besides
    (``draft_weight_bytes``) come out of it, and the default takes no more than they leave.  Raises :class:`ConfigError` for a pool that
    memory cannot hold.
    """
    block_bytes = facts.kv_bytes_per_token * config.block_size
    left = memory_bytes - facts.weight_bytes - draft_weight_bytes
    if config.num_blocks is not None:
        wanted = config.num_blocks
    elif config.kv_cache_memory_bytes is not None:
        wanted = config.kv_cache_memory_bytes // max(block_bytes, 1)
    elif facts.weight_bytes == 0:
        return DEFAULT_BLOCKS_WITHOUT_TENSORS
    else:
        wanted = max(min(DEFAULT_KV_BYTES, memory_bytes // 8, left) // block_bytes, 1)  # one that does not fit is refused below
    if wanted < 1:
        raise ConfigError(
            f"kv_cache_memory_bytes holds not one block of {config.block_size} tokens ({block_bytes:,} bytes): raise it or lower block_size"
        )
    if facts.weight_bytes and wanted * block_bytes > left:
        raise ConfigError(_too_many(config, wanted, block_bytes, left, draft_weight_bytes))
    return wanted


def _too_many(config: EngineConfig, wanted: int, block_bytes: int, left: int, draft_weight_bytes: int) -> str:
    """What is wrong with a pool that memory cannot hold, and what to change."""
    beside = "beside the weights"
    if draft_weight_bytes:
        beside += f" and {_size(draft_weight_bytes)} for drafts (speculative={config.speculative})"
    if left < block_bytes:
        remedy = "other drafts, such as ngram, or a smaller model" if draft_weight_bytes else "a smaller model"
        return f"memory holds not one block of {config.block_size} tokens ({block_bytes:,} bytes) {beside}: choose {remedy}"
    blocks = f"{wanted:,} blocks of {config.block_size} tokens take {_size(wanted * block_bytes)}"
    said = f"{blocks}, but only {_size(left)} of memory are left {beside}"
    if config.num_blocks is None:
        return f"{said}: lower kv_cache_memory_bytes to {left:,} or less"
    return f"{said}: lower num_blocks to {left // block_bytes:,} or less"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def longest_request(config: EngineConfig, facts: ModelFacts, num_blocks: int) -> int:
    """Prompt plus output that a request may reach: ``max_model_len``, else the model's limit; never more than the pool holds.

    Raises :class:`ConfigError` when ``max_model_len`` is more than the model or the pool allows.
    """
    pool_tokens = num_blocks * config.block_size
    if config.max_model_len is None:
        limit = min(facts.max_model_len or pool_tokens, pool_tokens)
        return limit if config.enable_chunked_prefill else min(limit, config.max_num_batched_tokens)
    if facts.max_model_len and config.max_model_len > facts.max_model_len:
        raise ConfigError(
            f"max_model_len is {config.max_model_len:,}, but {facts.name} reads at most {facts.max_model_len:,} tokens: lower it"
        )
    if config.max_model_len > pool_tokens:
        raise ConfigError(
            f"max_model_len is {config.max_model_len:,}, but {num_blocks:,} blocks of {config.block_size} hold {pool_tokens:,} tokens: "
            f"raise num_blocks to {-(-config.max_model_len // config.block_size):,} or lower max_model_len"
        )
    return config.max_model_len
