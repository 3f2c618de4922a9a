"""What the tables of :mod:`benchmarks.speculation` are made from: prompts as requests, and runs of them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speculation_prompts import PROMPTS
from training.prompts import KINDS as TRAINED_KINDS
from training.prompts import draw, min_tokens
from training.settings import Settings
from workbench import Engine
from workbench.events import SpecRound, StepRecord
from workbench.metrics import acceptance
from workbench.models import LoadedModel

SELF_WRITTEN_SEED = 977  # no seed of training's
SELF_WRITTEN = {"rewrite": "rewrite", "summarise": "summarise", "question": "qa", "code": "code", "story": "story"}
USER = "\0user\0"  # stands in the chat template where the user's words go


class Ask(NamedTuple):
    """One request to be: its kind and its prompt, chat template included."""

    kind: str
    token_ids: list[int]


@dataclass
class Counted:
    """What one run did, by kind of prompt or as a whole."""

    rounds: list[SpecRound] = field(default_factory=list)
    steps: int = 0  # rows that decoded, one for each request and step
    emitted: int = 0  # tokens that came out of them

    @property
    def length(self) -> float:
        """vLLM's mean acceptance length: 1 + accepted / rounds with drafts."""
        return acceptance(self.rounds)[1] or 1.0

    @property
    def positions(self) -> tuple[float, ...]:
        """Share of rounds in which at least that many drafts were accepted."""
        return acceptance(self.rounds)[2]

    @property
    def per_step(self) -> float:
        """Tokens a step, those without drafts included: what a proposer that often has nothing to say is worth."""
        return self.emitted / self.steps if self.steps else 1.0


class Finished(NamedTuple):
    """A run that is over: its records, its outputs by request, and its wall time."""

    records: list[StepRecord]
    outputs: list[tuple[int, ...]]
    seconds: float


def written(loaded: LoadedModel, per_kind: int) -> list[Ask]:
    """The hand-written prompts, kind by kind in turn, so that the first few are mixed."""
    encode = loaded.tokenizer.encode_chat
    rows = [[Ask(kind, encode([{"role": "user", "content": text}])) for text in texts[:per_kind]] for kind, texts in PROMPTS.items()]
    return [ask for asks in zip(*rows, strict=True) for ask in asks]


def self_written(loaded: LoadedModel, per_kind: int, num_threads: int) -> list[Ask]:
    """User turns as in the head's training: the model goes on from short openings, with a seed that training did not have."""
    settings, tokenizer = Settings(), loaded.tokenizer
    generator = np.random.default_rng(SELF_WRITTEN_SEED)
    before, after = _around_user(loaded)
    asks = []
    for kind, trained in SELF_WRITTEN.items():
        for _, opening in draw(generator, per_kind, TRAINED_KINDS.index(trained)):
            asks.append((kind, [*before, *tokenizer.encode(opening)], min_tokens(opening), settings.user_end))
    blocks = len(asks) * (settings.user_end // 16 + 1)
    with Engine(loaded, max_num_seqs=len(asks), max_num_batched_tokens=512, num_blocks=blocks, num_threads=num_threads) as engine:
        prompts = [
            {
                "prompt_token_ids": ids,
                "max_tokens": max(end - len(ids), fewest + 1),
                "min_tokens": fewest,
                "seed": SELF_WRITTEN_SEED + index,
            }
            for index, (_, ids, fewest, end) in enumerate(asks)
        ]
        turns = engine.run(prompts, temperature=settings.user_temperature, min_p=settings.min_p).outputs
    ends = set(tokenizer.eos_token_ids)
    invented = [[token for token in turn.token_ids if token not in ends] for turn in turns]
    made = [Ask(kind, [*ids, *more, *after]) for (kind, ids, _, _), more in zip(asks, invented, strict=True)]
    return [made[place + kind * per_kind] for place in range(per_kind) for kind in range(len(SELF_WRITTEN))]


def _around_user(loaded: LoadedModel) -> tuple[list[int], list[int]]:
    """The chat template's tokens before and after a user's words."""
    tokenizer = loaded.tokenizer
    text = tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": USER}]), skip_special_tokens=False)
    before, after = text.split(USER)
    return tokenizer.encode(before), tokenizer.encode(after)


def finish(loaded: LoadedModel, asks: Sequence[Ask], batch: int, knobs: dict[str, Any], params: dict[str, Any]) -> Finished:
    """Run ``asks`` in a fresh engine, ``batch`` at a time, nothing reused between requests."""
    gc.collect()
    longest = max(len(ask.token_ids) for ask in asks) + params["max_tokens"] + 8
    with Engine(
        loaded, max_num_seqs=batch, max_num_batched_tokens=512, num_blocks=batch * (longest // 16 + 2), enable_prefix_caching=False, **knobs
    ) as engine:
        prompts = [{"prompt_token_ids": ask.token_ids, "seed": index} for index, ask in enumerate(asks)]
        began = perf_counter()
        outputs = engine.run(prompts, **params).outputs
        seconds = perf_counter() - began
        return Finished(list(engine.trace.records), [output.token_ids for output in outputs], seconds)


def by_kind(done: Finished, asks: Sequence[Ask]) -> dict[str, Counted]:
    """The rounds and decoding steps of each kind."""
    kinds = {f"r{index}": ask.kind for index, ask in enumerate(asks)}
    found = {kind: Counted() for kind in dict.fromkeys(kinds.values())}
    for record in done.records:
        decoding = {row.request_id for row in record.scheduled if row.kind != "prefill"}
        for one in record.spec:
            found[kinds[one.request_id]].rounds.append(one)
        for sampled in record.sampled:
            if sampled.request_id in decoding:
                found[kinds[sampled.request_id]].steps += 1
                found[kinds[sampled.request_id]].emitted += len(sampled.token_ids)
    return found


def full_steps(records: Iterable[StepRecord], batch: int) -> list[StepRecord]:
    """The steps in which ``batch`` requests decode and none reads its prompt."""
    return [record for record in records if len(record.scheduled) == batch and all(row.kind != "prefill" for row in record.scheduled)]
