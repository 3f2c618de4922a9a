"""``EngineConfig``: every knob of an engine, described once.

Names are vLLM's where the knob is vLLM's.  Units, ranges and one-line docs live on the field, and
the ``%%infer`` options, the command line and the docs table are generated from them (see ``_knobs``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from workbench._knobs import check, unknown_name
from workbench.errors import ConfigError

_MODEL = {"group": "model"}
_CACHE = {"group": "cache"}
_SCHED = {"group": "scheduler"}
_SPECULATION = {"group": "speculation"}

DEFAULT_DRAFTS = 4
MOST_DRAFTS = 6  # of ``auto``
DRAFTING_MODELS = ("eagle", "draft")  # methods that run a model: its drafts take KV slots while they are made, and have scores


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one engine; immutable, comparable, checked when made.

    Raises :class:`~workbench.errors.ConfigError` for a value out of range or a contradiction.

    >>> EngineConfig(max_num_seqs=4).max_num_seqs
    4
    >>> EngineConfig(max_num_seqs=0)
    Traceback (most recent call last):
    workbench.errors.ConfigError: max_num_seqs must be at least 1, not 0
    """

    model: Annotated[
        str, Meta(description="A model's name, a folder in Hugging Face layout, a GGUF file or a hub id", extra=_MODEL)
    ] = "smollm2"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Meta(description="Type of weights and KV cache; auto is bfloat16", extra=_MODEL),
    ] = "auto"
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Meta(description="Where the model runs; auto takes CUDA when present", extra=_MODEL)
    ] = "auto"
    num_threads: Annotated[
        int | None, Meta(ge=1, description="CPU threads of the forward pass", extra={**_MODEL, "unit": "threads"})
    ] = None
    trust_remote_code: Annotated[
        bool, Meta(description="Let a hub model run its own Python code while loading", extra=_MODEL)
    ] = False
    seed: Annotated[
        int, Meta(ge=0, description="Seeds every request that brings no seed of its own", extra=_MODEL)
    ] = 0
    max_model_len: Annotated[
        int | None,
        Meta(ge=2, description="Longest prompt plus output; by default the model's own limit", extra={**_MODEL, "unit": "tokens"}),
    ] = None
    block_size: Annotated[
        int, Meta(ge=1, le=1024, description="Tokens in one KV block", extra={**_CACHE, "unit": "tokens"})
    ] = 16
    num_blocks: Annotated[
        int | None,
        Meta(ge=1, description="Usable KV blocks; by default from the memory budget", extra={**_CACHE, "unit": "blocks", "fork": True}),
    ] = None
    kv_cache_memory_bytes: Annotated[
        int | None, Meta(ge=1, description="Memory for the KV cache when num_blocks is not given", extra={**_CACHE, "unit": "bytes"})
    ] = None
    enable_prefix_caching: Annotated[
        bool, Meta(description="Reuse the KV blocks of a prompt's beginning that was computed before", extra={**_CACHE, "fork": True})
    ] = True
    max_num_seqs: Annotated[
        int, Meta(ge=1, le=4096, description="Requests that may run at once", extra={**_SCHED, "unit": "requests", "live": True})
    ] = 16
    max_num_batched_tokens: Annotated[
        int, Meta(ge=1, description="Token budget of one step", extra={**_SCHED, "unit": "tokens", "live": True})
    ] = 256
    enable_chunked_prefill: Annotated[
        bool, Meta(description="Cut a prompt that does not fit the step's budget into chunks", extra={**_SCHED, "live": True})
    ] = True
    long_prefill_token_threshold: Annotated[
        int,
        Meta(ge=0, description="Longest prefill chunk of one request; 0 sets no limit", extra={**_SCHED, "unit": "tokens", "live": True}),
    ] = 0
    policy: Annotated[
        Literal["fcfs", "priority", "guaranteed_no_evict", "max_utilization", "static_batch", "lpm"],
        Meta(
            description="Who is admitted first and preempted last: vLLM's fcfs and priority (a smaller number wins), "
            "TensorRT-LLM's guaranteed_no_evict, max_utilization and static_batch, SGLang's lpm",
            extra={**_SCHED, "fork": True},
        ),
    ] = "fcfs"
    reserve_full_prompt: Annotated[
        bool, Meta(description="Admit a request only when all of its known tokens fit the free blocks", extra={**_SCHED, "live": True})
    ] = True
    batching: Annotated[
        Literal["continuous", "static", "dynamic"],
        Meta(
            description="Admission per step, or (for teaching) in whole batches that hold until the last is done",
            extra={**_SCHED, "fork": True},
        ),
    ] = "continuous"
    batch_window_steps: Annotated[
        int, Meta(ge=0, description="How long dynamic batching waits for a full batch", extra={**_SCHED, "unit": "steps", "live": True})
    ] = 4
    speculative: Annotated[
        str | None,
        Meta(
            description="How drafts are proposed: ngram, suffix, eagle (a trained head), draft:int8, draft:int4, draft:skip:N, "
            "draft:MODEL, or synthetic:RATE",
            extra=_SPECULATION,
        ),
    ] = None
    num_speculative_tokens: Annotated[
        int | Literal["auto"] | None,
        Meta(
            ge=0,
            le=64,
            description=f"Draft tokens verified per request and step, {DEFAULT_DRAFTS} with a method and no number; "
            "auto measures and chooses for each step",
            extra={**_SPECULATION, "unit": "tokens"},
        ),
    ] = None
    draft_sample_method: Annotated[
        Literal["greedy", "probabilistic"],
        Meta(
            description="Drafts of a model or head are its likeliest tokens, or drawn as the request's own tokens will be",
            extra=_SPECULATION,
        ),
    ] = "greedy"
    min_draft_probability: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="A model or head stops drafting where the chance that all drafts so far are right falls below this; 0 never stops",
            extra=_SPECULATION,
        ),
    ] = 0.0
    undo_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory for going back in time; steps further back than it reaches are restored by computing them again",
            extra={"group": "engine", "unit": "bytes", "fork": True},
        ),
    ] = 256 * 2**20
    debug: Annotated[
        bool, Meta(description="Check every invariant of scheduler and block pool after each step", extra={"group": "engine", "live": True})
    ] = False

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if self.speculative is not None and self.num_speculative_tokens == 0:
            raise ConfigError(f"speculative={self.speculative} needs num_speculative_tokens of at least 1, not 0: leave one of the two out")
        if (self.speculative or "").partition(":")[0] not in DRAFTING_MODELS:
            for name, usual in (("draft_sample_method", "greedy"), ("min_draft_probability", 0)):
                if (asked := getattr(self, name)) != usual:
                    raise ConfigError(
                        f"{name} is {asked}, but speculative is {self.speculative}, whose drafts have no probabilities: "
                        f"leave it at {usual}, or speculate with eagle or draft:…"
                    )
        if self.max_num_batched_tokens <= self.max_drafts:  # else a request padded with drafts could wait forever
            raise ConfigError(
                f"verifying {self.max_drafts} drafts takes {self.max_drafts + 1} tokens of one step, but "
                f"max_num_batched_tokens is {self.max_num_batched_tokens}: raise it or lower num_speculative_tokens"
            )
        if not self.enable_chunked_prefill and self.max_model_len and self.max_num_batched_tokens < self.max_model_len:
            raise ConfigError(
                f"without chunked prefill a prompt must fit one step, but max_num_batched_tokens is {self.max_num_batched_tokens} "
                f"and max_model_len {self.max_model_len}: raise the first or lower the second"
            )

        if self.policy not in ("fcfs", "priority"):
            self._check_policy()

    def _check_policy(self) -> None:
        """The policies of other engines plan their own batches, in whole blocks and without drafts."""
        name, chunked = self.policy, self.enable_chunked_prefill
        if self.batching != "continuous":
            raise ConfigError(f"policy {name} plans its own batches, so batching cannot be {self.batching}: leave one of the two out")
        if self.max_drafts:
            raise ConfigError(
                f"policy {name} verifies no drafts, but num_speculative_tokens is {self.num_speculative_tokens or self.max_drafts}: "
                "set it to 0, or take policy fcfs or priority"
            )
        if chunked and self.max_num_batched_tokens < self.block_size:
            raise ConfigError(
                f"policy {name} cuts prompts to whole blocks of {self.block_size} tokens, but max_num_batched_tokens is "
                f"{self.max_num_batched_tokens}: raise it or lower block_size"
            )
        threshold = self.long_prefill_token_threshold
        if threshold and (name == "lpm" or not chunked or threshold < self.block_size):
            needs = "none" if name == "lpm" else f"one of at least block_size ({self.block_size}), with enable_chunked_prefill"
            raise ConfigError(f"policy {name} knows no such long_prefill_token_threshold as {threshold}, only {needs}: set it to 0")
        if name == "lpm" and self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"policy lpm decodes all {self.max_num_seqs} requests of max_num_seqs in one step, but max_num_batched_tokens is "
                f"{self.max_num_batched_tokens}: raise it or lower max_num_seqs"
            )

    @property
    def adapts_drafts(self) -> bool:
        """Whether the number of drafts is chosen anew for each step."""
        return self.num_speculative_tokens == "auto"

    @property
    def max_drafts(self) -> int:
        """The most drafts of one request in one step; 0 without speculation."""
        if self.num_speculative_tokens is None:
            return DEFAULT_DRAFTS if self.speculative is not None else 0
        return MOST_DRAFTS if self.num_speculative_tokens == "auto" else self.num_speculative_tokens

    @property
    def padding_drafts(self) -> int:
        """Placeholders that a newcomer is padded with, so that the whole batch verifies alike; none where the number changes."""
        return 0 if self.adapts_drafts else self.max_drafts

    @property
    def lookahead_tokens(self) -> int:
        """KV slots beyond a request's own tokens that making drafts takes (vLLM's ``num_lookahead_tokens``)."""
        return self.max_drafts if (self.speculative or "").partition(":")[0] in DRAFTING_MODELS else 0

    @property
    def gives_up_last_hit(self) -> bool:
        """Whether the last block found by prefix is computed again: an EAGLE head reads the features before the first new token.

        vLLM 0.32.0 does so too (``use_eagle_block_drop``).
        """
        return (self.speculative or "").partition(":")[0] == "eagle"

    @property
    def loading(self) -> dict[str, Any]:
        """The knobs that decide how a model is loaded, as ``load_model`` takes them."""
        return {name: getattr(self, name) for name in ("dtype", "device", "num_threads", "trust_remote_code")}

    def replace(self, **changes: Any) -> EngineConfig:
        """This config with some knobs changed; an unknown name raises :class:`ConfigError`."""
        known = self.__struct_fields__
        for name in changes:
            if name not in known:
                raise ConfigError(unknown_name("knob", name, known))
        return msgspec.structs.replace(self, **changes)
