"""Putting an engine together, and reading what a person hands to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from workbench._knobs import unknown_name
from workbench.config import EngineConfig
from workbench.errors import ConfigError, RequestError, TraceError
from workbench.history import History
from workbench.limits import memory_limit_bytes
from workbench.rebuild import rebuild
from workbench.request import SamplingParams
from workbench.runners.base import Runner
from workbench.scheduler import Scheduler
from workbench.sizing import longest_request, pool_blocks
from workbench.texts import Texts
from workbench.timeline import Timeline
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.tokenizer import Tokenizer

METHODS = ", ".join(f"speculative='{name}'" for name in ("ngram", "suffix", "eagle"))


def make_config(model: object, config: EngineConfig | None, knobs: dict[str, Any]) -> EngineConfig:
    """The settings that ``config`` and ``knobs`` give together; raises :class:`ConfigError` for an unknown knob."""
    for name in knobs:
        if name not in EngineConfig.__struct_fields__:
            raise ConfigError(unknown_name("knob", name, EngineConfig.__struct_fields__))
    if isinstance(model, str | Path):
        knobs.setdefault("model", str(model)) if config is None else None
    elif hasattr(model, "facts"):
        knobs["model"] = model.facts.name
    return config.replace(**knobs) if config is not None else EngineConfig(**knobs)


def make_runner(model: object, config: EngineConfig, tokenizer: Tokenizer | None) -> tuple[Runner, Tokenizer | None, int]:
    """The runner for a model, the tokenizer that goes with it, and the size of its pool."""
    memory = memory_limit_bytes()
    if isinstance(model, Runner):
        return model, tokenizer, getattr(model, "num_blocks", None) or pool_blocks(config, model.facts, memory_bytes=memory)
    from workbench.models import load_model
    from workbench.runners.drafters.make import make_drafter, weight_bytes_of
    from workbench.runners.torch_runner import TorchRunner

    if isinstance(model, str | Path):
        loaded = load_model(config.model, **config.loading)
    else:
        loaded = model  # type: ignore[assignment]
    drafter, facts, draft_weights = None, loaded.facts, 0
    if config.speculative is not None:
        drafter = make_drafter(
            config.speculative,
            loaded,
            draws=config.draft_sample_method == "probabilistic",
            least=config.min_draft_probability,
            max_model_len=config.max_model_len,
            trust_remote_code=config.trust_remote_code,
        )
        per_token = facts.kv_bytes_per_token + drafter.kv_bytes_per_token  # the drafts' cache comes out of the same budget
        facts, draft_weights = msgspec.structs.replace(facts, kv_bytes_per_token=per_token), weight_bytes_of(drafter, loaded)
    num_blocks = pool_blocks(config, facts, memory_bytes=memory, draft_weight_bytes=draft_weights)
    size, threads = config.block_size, config.num_threads
    runner = TorchRunner(loaded, num_blocks=num_blocks, block_size=size, num_threads=threads, drafter=drafter)
    return runner, tokenizer or loaded.tokenizer, num_blocks


def make_timeline(config: EngineConfig, runner: Runner, tokenizer: Tokenizer | None, num_blocks: int) -> Timeline:
    """A timeline at its beginning; raises :class:`ConfigError` where settings and runner do not go together."""
    if config.max_drafts and not getattr(runner, "proposes_drafts", False):
        width, method = config.num_speculative_tokens, config.speculative
        if method is not None:
            raise ConfigError(f"speculative is {method}, but this runner proposes no drafts: leave it out, or give the engine a model")
        remedy = f"leave it at 0, or name a method: {METHODS}"
        raise ConfigError(f"num_speculative_tokens is {width}, but this runner proposes no drafts: {remedy}")
    limit = longest_request(config, runner.facts, num_blocks)
    scheduler = Scheduler(config, num_blocks=num_blocks, max_model_len=limit)
    texts = Texts(tokenizer) if tokenizer is not None else None
    return Timeline(scheduler, runner, texts, Trace(config, runner.facts), History(config.undo_memory_bytes))


def timeline_of(trace: Trace, runner: Runner, tokenizer: Tokenizer | None) -> Timeline:
    """A timeline that stands where ``trace`` ends, its blocks still to be computed."""
    if not trace.records:
        raise TraceError("this trace has no steps: make an engine with its settings instead, Engine(config=trace.config)")
    scheduler, clock_s = rebuild(trace, trace.next_step), trace.records[-1].end_s
    recorded = {command.request_id for record in trace.records for command in record.commands if command.kind == "add"}
    for name, request in trace.requests.items():
        if name not in recorded:  # it came in after the last step
            scheduler.add(request, now_s=clock_s)
    texts = Texts(tokenizer) if tokenizer is not None else None
    copied = Trace(trace.config, runner.facts, trace.requests.values(), trace.records, trace.fidelity, dict(trace.token_texts))
    timeline = Timeline(scheduler, runner, texts, copied, History(trace.config.undo_memory_bytes))
    timeline.clock.hold(clock_s)
    timeline.park()
    return timeline


def sampling_of(sampling: SamplingParams | None, params: dict[str, Any]) -> SamplingParams:
    """Sampling parameters given whole, by name, or both."""
    if sampling is None:
        return SamplingParams.of(**params)
    return sampling.replace(**params) if params else sampling


def as_list(prompts: Any) -> list[Any]:
    """One prompt or many, as a list: a text, a mapping, a list of ints and a list of messages are one prompt each."""
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise RequestError(f"prompts are text, token ids, chat messages, or a list of them, not {type(prompts).__name__}")
    entries = list(prompts)
    if not entries:
        raise RequestError("there is no prompt to run: give at least one")
    token_ids = all(type(entry) is int for entry in entries)
    messages = all(isinstance(entry, Mapping) and "role" in entry for entry in entries)
    return [entries] if token_ids or messages else entries


def as_edits(edit: Any) -> dict[str, dict[str, Any]]:
    """What a fork changes of requests, by id; raises :class:`RequestError` for anything else."""
    if isinstance(edit, Mapping) and all(isinstance(changes, Mapping) for changes in edit.values()):
        return {name: dict(changes) for name, changes in edit.items()}
    raise RequestError(f'edit maps the id of a request to the fields to change, as in {{"r0": {{"max_tokens": 8}}}}, not {edit!r}')
