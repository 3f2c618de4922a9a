"""``TorchRunner``: executes plans with a real model and real paged KV tensors.

A step is flatten → forward → sample.  The runner owns the KV tensors and nothing else; tokens, block tables and seeds arrive with
every plan, so the same plan on the same cache always gives the same output.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ConfigError, EngineClosedError
from workbench.events import ModelFacts, TokenLogprobs
from workbench.models.batch import FlatBatch, flatten
from workbench.models.loading import LoadedModel
from workbench.models.threads import default_num_threads, torch_threads
from workbench.plan import PlanRow, StepOutput, StepPlan
from workbench.runners.drafters.base import Stepped, TorchDrafter
from workbench.runners.drafting import propose
from workbench.runners.kv_tensors import NULL_BLOCKS, SavedKv, empty_blocks, read_blocks, write_blocks
from workbench.sampler import SampleRow, sample, token_logprobs
from workbench.speculative.acceptance import verify_greedy

# Up to this many rows, one thread has chosen the tokens before several are awake (and torch's idle threads stay out of the way).
ROWS_FOR_ONE_THREAD = 8

COPYING_THREADS = 1  # blocks are small: waking and waiting for other threads takes longer than copying


def kv_bytes_per_block(model: LoadedModel | ModelFacts, block_size: int) -> int:
    """Bytes that one block takes, over all layers, keys and values."""
    facts = model if isinstance(model, ModelFacts) else model.facts
    return facts.kv_bytes_per_token * block_size


class TorchRunner:
    """Runs a :class:`~workbench.models.loading.LoadedModel`; see :class:`~workbench.runners.base.Runner`.

    ``kv[layer]``: ``[2, num_blocks + 1, block_size, kv_heads, head_dim]``, keys then values.  Set ``keep_logits`` to find the step's
    float32 logits in ``last_logits`` (``[rows needing logits, vocab]``).  ``num_threads`` holds for the time of each step.
    ``StepOutput.prompt_logprobs[i]`` has one entry for each prompt token that the chunk predicts: those at ``start + 1`` … ``end``,
    so the chunks of a prompt add up to tokens 1 … n − 1 (nothing predicts token 0).
    Raises :class:`ConfigError` when the cache, or a step, does not fit memory.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        num_blocks: int,
        block_size: int,
        num_threads: int | None = None,
        drafter: TorchDrafter | None = None,
    ) -> None:
        self.loaded, self.facts = loaded, loaded.facts
        self.num_blocks, self.block_size = num_blocks, block_size
        self.num_threads = num_threads or default_num_threads()
        self.keep_logits = False
        self.last_logits: Tensor | None = None
        self.drafter = drafter
        self.kv = self._allocate()

    def _allocate(self) -> list[Tensor]:
        config, path, size = self.loaded.config, self.loaded.path, self.block_size
        try:
            if self.drafter is not None:
                self.drafter = self.drafter.on(self.num_blocks, size)
            shape = (size, config.num_kv_heads, config.head_dim)
            return [empty_blocks(self.num_blocks, *shape, path.dtype, self.loaded.device) for _ in range(config.num_layers)]
        except (RuntimeError, MemoryError):  # torch reports exhausted CPU memory as a plain RuntimeError
            size_gb = self.block_bytes * (self.num_blocks + NULL_BLOCKS) / 1e9
            raise ConfigError(
                f"{self.num_blocks} KV blocks of {self.block_size} tokens need {size_gb:,.1f} GB, more than can be allocated: "
                "lower num_blocks"
            ) from None

    def execute(self, plan: StepPlan) -> StepOutput:
        """Run every row of ``plan`` in one pass and return its tokens, row by row."""
        if not self.kv:
            raise EngineClosedError("this runner was closed: make a new engine")
        with torch.inference_mode(), torch_threads(self.num_threads):
            return self._execute(plan)

    @property
    def proposes_drafts(self) -> bool:
        """Whether there is anybody to propose drafts."""
        return self.drafter is not None

    def _execute(self, plan: StepPlan) -> StepOutput:
        started = time.perf_counter()
        rows = plan.rows
        scored = [_scored_tokens(row) for row in rows]
        batch = flatten(rows, self.block_size, scored)
        prepared = time.perf_counter()
        taps = self._taps(len(batch.input_ids))
        logits = self._forward(batch, taps)
        forwarded = time.perf_counter()
        with torch_threads(1 if len(logits) <= ROWS_FOR_ONE_THREAD else self.num_threads):
            output = _answer(rows, scored, logits)
        self.last_logits = logits.clone() if self.keep_logits else None
        output.prepare_ms = (prepared - started) * 1e3
        output.forward_ms = (forwarded - prepared) * 1e3
        output.sample_ms = (time.perf_counter() - forwarded) * 1e3
        if self.drafter is not None and (plan.num_drafts or self.drafter.reads_every_step):
            after = Stepped(self.kv, list(taps.values()), batch.subsequence_begins[:-1].tolist(), self.block_size)
            propose(plan, output, self.facts.vocab_size, partial(self.drafter.draft, after=after))
        return output

    def _taps(self, num_tokens: int) -> dict[int, Tensor]:
        """Room for what the drafter wants to see of the layers."""
        config, path = self.loaded.config, self.loaded.path
        layers = () if self.drafter is None else self.drafter.taps
        return {layer: torch.empty(num_tokens, config.hidden_size, dtype=path.compute_dtype, device=self.loaded.device) for layer in layers}

    def _forward(self, batch: FlatBatch, taps: Mapping[int, Tensor]) -> Tensor:
        try:
            logits = self.loaded.architecture(batch, self.kv, taps)
            if logits.is_cuda:
                torch.cuda.synchronize(logits.device)
            return logits
        except (torch.OutOfMemoryError, MemoryError):
            raise ConfigError(
                f"a step of {len(batch.input_ids)} tokens ran out of memory: lower max_num_batched_tokens, max_num_seqs or num_blocks"
            ) from None

    def fork(self, num_blocks: int) -> TorchRunner:
        """A runner on the same weights with ``num_blocks`` empty blocks of its own."""
        twin = TorchRunner(
            self.loaded, num_blocks=num_blocks, block_size=self.block_size, num_threads=self.num_threads, drafter=self.drafter
        )
        twin.keep_logits = self.keep_logits
        return twin

    @property
    def block_bytes(self) -> int:
        """What one block takes, over all layers, keys and values, the drafter's included."""
        own = 0 if self.drafter is None else self.drafter.kv_bytes_per_token * self.block_size
        return kv_bytes_per_block(self.loaded, self.block_size) + own

    def read_blocks(self, block_ids: Sequence[int]) -> SavedKv:
        """A copy of these blocks' keys and values, and of the drafter's, on the CPU."""
        with torch_threads(COPYING_THREADS):
            return SavedKv([read_blocks(layers, block_ids) for layers in self._pools])

    def write_blocks(self, block_ids: Sequence[int], saved: SavedKv, rows: Sequence[int] | None = None) -> None:
        """Make ``block_ids`` hold what :meth:`read_blocks` returned, or those ``rows`` of it."""
        with torch_threads(COPYING_THREADS):
            for layers, part in zip(self._pools, saved.parts, strict=True):
                write_blocks(layers, block_ids, part, rows)

    @property
    def _pools(self) -> list[list[Tensor]]:
        return [self.kv] if self.drafter is None or not self.drafter.kv else [self.kv, self.drafter.kv]

    def close(self) -> None:
        """Give back the KV memory; calling it twice is harmless."""
        self.kv, self.last_logits = [], None
        if self.drafter is not None:
            self.drafter.kv = []


def _scored_tokens(row: PlanRow) -> int:
    """How many of the row's last tokens need logits: all of them where log-probabilities of the prompt are asked for."""
    if row.request.sampling.prompt_logprobs is not None and row.start < row.request.num_prompt_tokens - 1:
        return row.num_tokens
    return 1 + len(row.draft_token_ids) if row.samples else 0


def _answer(rows: Sequence[PlanRow], scored: list[int], logits: Tensor) -> StepOutput:
    """Draw all tokens in one call; the token after ``j`` drafts is drawn as if those drafts were output already."""
    draws: list[SampleRow] = []
    places: list[int] = []
    for row, end in zip(rows, np.cumsum(scored).tolist(), strict=True):
        for left in range(len(row.draft_token_ids), -1, -1) if row.samples else ():
            seen = _seen(row, left)
            draws.append(SampleRow(row.request, seen, len(seen) - row.request.num_prompt_tokens))
            places.append(end - 1 - left)
    chosen = logits if len(places) == len(logits) else logits[torch.tensor(places, dtype=torch.long, device=logits.device)]
    token_ids, logprobs = sample(chosen, draws) if draws else ([], None)
    output = _accepted(rows, token_ids, logprobs)
    if any(row.request.sampling.prompt_logprobs is not None for row in rows):
        output.prompt_logprobs = [_of_prompt(row, part) for row, part in zip(rows, logits.split(scored), strict=True)]
    return output


def _seen(row: PlanRow, left: int) -> Sequence[int]:
    """All tokens before the draw that has ``left`` drafts after it."""
    if not row.draft_token_ids:
        return row.token_ids
    drafts = row.draft_token_ids[: len(row.draft_token_ids) - left]
    return [*row.token_ids, *(max(token, 0) for token in drafts)]  # what follows a padding draft is thrown away, but must be computable


def _accepted(rows: Sequence[PlanRow], token_ids: list[int], logprobs: Sequence[TokenLogprobs | None] | None) -> StepOutput:
    """Cut each row's drawn tokens after the first that differs from its draft.

    Drawing each position from the model and keeping drafts while they agree leaves the distribution (and, with stateless
    randomness, the very tokens) of decoding without drafts, whatever proposed them.
    """
    output = StepOutput(token_ids=[], logprobs=None if logprobs is None else [])
    at = 0
    for row in rows:
        drawn = 1 + len(row.draft_token_ids) if row.samples else 0
        emitted = verify_greedy(row.draft_token_ids, token_ids[at : at + drawn]) if drawn else []
        output.token_ids.append(emitted)
        if logprobs is not None and output.logprobs is not None:
            output.logprobs.append(tuple(entry for entry in logprobs[at : at + len(emitted)] if entry is not None))
        at += drawn
    return output


def _of_prompt(row: PlanRow, logits: Tensor) -> tuple[TokenLogprobs, ...]:
    """Log-probabilities of the prompt tokens that this chunk's scores predict: positions ``start + 1`` to ``end`` within the prompt."""
    wanted = row.request.sampling.prompt_logprobs
    predicted = row.request.prompt_token_ids[row.start + 1 : row.end + 1]
    if wanted is None or not predicted:
        return ()
    return tuple(token_logprobs(logits[: len(predicted)], predicted, wanted))
