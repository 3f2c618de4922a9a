"""``ModelDrafter``: another model drafts, one that knows the same tokens.

It keeps keys and values of its own, in blocks of the same numbers as the target's: what the target finds by prefix, it finds too, and what
is preempted, copied or put back is so for both.  After every step it reads what the target has read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from workbench.errors import ConfigError, ModelIntegrityError, UnknownModelError, UnsupportedModelError
from workbench.models import load_model
from workbench.models.batch import FlatBatch
from workbench.models.loading import LoadedModel
from workbench.models.store import resolve
from workbench.runners.drafters.base import Chain, Choose, DraftRow, Stepped, batch_of, likeliest
from workbench.runners.drafters.own import has_slot
from workbench.runners.drafting import Grown
from workbench.runners.kv_tensors import empty_blocks
from workbench.sampler import Chosen
from workbench.tokenizer import Tokenizer

PROBE = "Drafts are verified: 3.14159 x 2 = ?\n\n\tdef f(x):  return 'na\u00efve' # \u6f22\u5b57 \U0001f600 <|im_end|></s><eos>"
"""A text with something for every rule that splits text: words, digits, spaces, code, other scripts and control tokens."""

ID_STEP = 97  # every so many tokens are compared: two vocabularies of the same size differ almost everywhere, or nowhere


class ModelDrafter:
    """Runs ``model`` after every step of the target; ``choose`` makes drafts of its scores."""

    taps: tuple[int, ...] = ()
    reads_every_step = True

    def __init__(self, model: LoadedModel, choose: Choose = likeliest, least: float = 0.0, kv: list[Tensor] | None = None) -> None:
        self.model, self.choose, self.least = model, choose, least
        self.kv = kv or []
        self.kv_bytes_per_token = model.facts.kv_bytes_per_token

    def on(self, num_blocks: int, block_size: int) -> Self:
        """The same model with an empty cache."""
        config, dtype, device = self.model.config, self.model.path.dtype, self.model.device
        sizes = (num_blocks, block_size, config.num_kv_heads, config.head_dim)
        return type(self)(self.model, self.choose, self.least, [empty_blocks(*sizes, dtype, device) for _ in range(config.num_layers)])

    def draft(self, rows: Sequence[Grown], after: Stepped) -> list[list[int]]:
        """Read what the target has read, and for those who want drafts the newest token too; then go on from there."""
        living = [index for index, row in enumerate(rows) if row.limit and has_slot(row, after.block_size)]
        drafting = set(living)
        read = [_read(row, newest=index in drafting) for index, row in enumerate(rows)]
        batch = batch_of(read, after.block_size, [index in drafting for index in range(len(rows))])
        drafts = Chain(rows, [row.end - 1 for row in read], after.block_size, living, self.least)

        def following(batch: FlatBatch) -> Chosen:
            return drafts.chosen(self.model.architecture(batch, self.kv), self.choose)

        return drafts.run(following(batch), lambda batch, _: following(batch))


def _read(row: Grown, *, newest: bool) -> DraftRow:
    """What the target has read and keeps, with the newest token or without."""
    start, end = row.row.start, row.row.start + row.num_read + newest
    return DraftRow(start, end, row.token_ids[start:end], row.row.block_ids)


def load_draft_model(model: str, target: LoadedModel, max_model_len: int | None = None, *, trust_remote_code: bool = False) -> LoadedModel:
    """The model that ``model`` names, on the target's device and in its dtype; the target itself is not loaded twice.

    ``max_model_len``: the longest prompt and output, the target's own limit by default.  ``trust_remote_code``: whether a hub model may run
    its own Python code while loading, asked once for target and draft model alike.
    Raises :class:`ConfigError` when there is no such model, or it does not go with the target, and the loader's errors.
    """
    try:
        if resolve(model, trust_remote_code=trust_remote_code).resolve() == target.folder.resolve():
            return target
        dtype, device = str(target.path.dtype).removeprefix("torch."), target.device.type
        draft = load_model(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    except UnknownModelError as error:
        raise ConfigError(f"speculative='draft:{model}' names no model that can be found: {error}") from None
    except (ModelIntegrityError, UnsupportedModelError) as error:
        raise type(error)(f"speculative='draft:{model}' cannot draft: {error}; or take another draft model") from None
    check_goes_with(draft, target, max_model_len or target.facts.max_model_len)
    return draft


def check_goes_with(draft: LoadedModel, target: LoadedModel, max_model_len: int) -> None:
    """Raise :class:`ConfigError` unless ``draft`` knows the target's tokens and reads ``max_model_len`` of them."""
    mine, theirs = draft.facts, target.facts
    if mine.vocab_size != theirs.vocab_size:
        raise ConfigError(
            f"{draft.name} cannot draft for {target.name}: it knows {mine.vocab_size:,} tokens, the target {theirs.vocab_size:,}: "
            "choose a draft model with the same vocabulary"
        )
    difference = _difference(draft.tokenizer, target.tokenizer, mine.vocab_size)
    if difference is not None:
        raise ConfigError(
            f"{draft.name} cannot draft for {target.name}: their tokenizers differ ({difference}): "
            "choose a draft model with the same vocabulary"
        )
    if mine.max_model_len < max_model_len:
        raise ConfigError(
            f"{draft.name} cannot draft for {target.name}: it reads at most {mine.max_model_len:,} tokens, and requests may have "
            f"{max_model_len:,}: choose a draft model that reads as many, or set max_model_len to {mine.max_model_len} or less"
        )


def _difference(draft: Tokenizer, target: Tokenizer, vocab_size: int) -> str | None:
    """The first difference of two tokenizers, in words."""
    for token in range(0, vocab_size, ID_STEP):
        mine, theirs = draft.token_text(token), target.token_text(token)
        if mine != theirs:
            return f"token {token:,} is {mine!r}, the target's {theirs!r}"
    if draft.encode(PROBE) != target.encode(PROBE):
        return f"a sample text becomes {len(draft.encode(PROBE))} tokens, the target's {len(target.encode(PROBE))} others"
    return None
