"""``SamplingParams`` and ``Request``: what a user asks for, as values.

Names and meanings are vLLM's.  Two defaults differ on purpose, because a workbench should show the
same run for the same cell: ``temperature`` is 0 (greedy) and ``max_tokens`` is 64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from workbench._knobs import check, unknown_name
from workbench.errors import RequestError

_S: dict[str, Any] = {"group": "sampling"}
_TOKENS: dict[str, Any] = {"group": "sampling", "unit": "tokens"}


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of one request are chosen and when it ends.

    Raises :class:`~workbench.errors.RequestError` for a value out of range or a contradiction.

    >>> SamplingParams(temperature=0.7, top_p=0.9).greedy
    False
    >>> SamplingParams(top_p=float("nan"))
    Traceback (most recent call last):
    workbench.errors.RequestError: top_p must be a finite number, not nan
    """

    n: Annotated[int, Meta(ge=1, le=64, description="Completions of each prompt", extra=_S)] = 1
    temperature: Annotated[
        float, Meta(ge=0, le=100, description="0 takes the most likely token; higher is more random", extra=_S)
    ] = 0.0
    top_p: Annotated[
        float, Meta(gt=0, le=1, description="Sample from the likeliest tokens that add up to this probability", extra=_S)
    ] = 1.0
    top_k: Annotated[int, Meta(ge=-1, description="Sample from this many likeliest tokens; 0 or -1 takes all", extra=_TOKENS)] = 0
    min_p: Annotated[
        float, Meta(ge=0, le=1, description="Drop tokens less likely than this share of the likeliest", extra=_S)
    ] = 0.0
    seed: Annotated[int | None, Meta(description="Makes this request's sampling repeatable in any batch", extra=_S)] = None
    max_tokens: Annotated[int, Meta(ge=1, description="Longest output", extra=_TOKENS)] = 64
    min_tokens: Annotated[int, Meta(ge=0, description="No end of sequence or stop before this many output tokens", extra=_TOKENS)] = 0
    stop: Annotated[tuple[str, ...], Meta(description="Strings that end the output", extra=_S)] = ()
    stop_token_ids: Annotated[tuple[int, ...], Meta(description="Token ids that end the output", extra=_S)] = ()
    ignore_eos: Annotated[bool, Meta(description="Go on after the end-of-sequence token", extra=_S)] = False
    presence_penalty: Annotated[float, Meta(ge=-2, le=2, description="Lowers tokens that the output already has", extra=_S)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2, description="Lowers tokens by how often the output has them", extra=_S)] = 0.0
    repetition_penalty: Annotated[
        float, Meta(gt=0, description="Divides the scores of tokens in prompt or output; 1 is off", extra=_S)
    ] = 1.0
    logit_bias: Annotated[dict[int, float] | None, Meta(description="Added to the scores of these token ids", extra=_S)] = None
    bad_words: Annotated[tuple[str, ...], Meta(description="Words that must not appear", extra=_S)] = ()
    allowed_token_ids: Annotated[tuple[int, ...] | None, Meta(description="The only token ids that may be chosen", extra=_S)] = None
    logprobs: Annotated[int | None, Meta(ge=0, le=100, description="Log-probabilities of this many likeliest tokens", extra=_TOKENS)] = None
    prompt_logprobs: Annotated[
        int | None, Meta(ge=0, le=100, description="The same for each prompt token; rules out prefix hits", extra=_TOKENS)
    ] = None
    skip_special_tokens: Annotated[bool, Meta(description="Leave special tokens out of the text", extra=_S)] = True
    include_stop_str_in_output: Annotated[bool, Meta(description="Keep the stop string in the text", extra=_S)] = False

    def __post_init__(self) -> None:
        check(self, RequestError)
        if self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens is {self.min_tokens}, more than max_tokens {self.max_tokens}: lower the first or raise the second"
            )
        if "" in self.stop:
            raise RequestError("stop holds an empty string, which would end every output at once: remove it")
        if self.allowed_token_ids == ():
            raise RequestError("allowed_token_ids is empty, so no token could be chosen: leave it out or name some ids")
        for token, bias in (self.logit_bias or {}).items():
            if type(token) is not int or type(bias) not in (int, float) or not math.isfinite(bias):
                raise RequestError(f"logit_bias must map token ids to finite numbers, not {token!r} to {bias!r}")

    @classmethod
    def of(cls, **params: Any) -> SamplingParams:
        r"""Make one from loosely typed values: lists become tuples, one stop string may stand alone.

        >>> SamplingParams.of(stop="\n", stop_token_ids=[7]).stop
        ('\n',)
        """
        for name in params:
            if name not in cls.__struct_fields__:
                raise RequestError(unknown_name("sampling parameter", name, cls.__struct_fields__))
        return cls(**{name: _plain(name, value) for name, value in params.items()})

    def replace(self, **changes: Any) -> SamplingParams:
        """These parameters with some changed."""
        return SamplingParams.of(**{**msgspec.structs.asdict(self), **changes})

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken (``temperature`` 0)."""
        return self.temperature == 0.0

    @property
    def shapes_logits(self) -> bool:
        """Whether scores depend on anything beside the model: penalties, biases, masks, ``min_tokens``."""
        return bool(
            self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1.0
            or self.logit_bias
            or self.bad_words
            or self.allowed_token_ids
            or self.min_tokens
        )


_OWN_EDITABLE = ("prompt", "prompt_token_ids", "priority")
EDITABLE = (*_OWN_EDITABLE, *(name for name in SamplingParams.__struct_fields__ if name not in ("n", "bad_words")))
"""What may change of a request that is in an engine: all but its identity, its arrival, and what needs a tokenizer."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate: its prompt in tokens, its sampling, and when it arrives.

    ``arrival_step`` counts engine steps, ``arrival_s`` seconds on the engine's clock; without either it
    arrives when added.  ``parent`` names the prompt that this is completion number ``index`` of, when ``n > 1``.
    ``priority``: a smaller number is served first under ``policy="priority"``, TensorRT-LLM's policies, and ``lpm`` without a cache.
    """

    id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()
    prompt: str | None = None
    arrival_step: int | None = None
    arrival_s: float | None = None
    priority: int = 0
    eos_token_ids: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    parent: str | None = None
    index: int = 0

    @property
    def num_prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt_token_ids)

    def edited(self, **changes: Any) -> Request:
        """This request with another prompt, priority or sampling; its id and arrival stay.

        Raises :class:`~workbench.errors.RequestError` for any other field.
        """
        for name in changes:
            if name not in EDITABLE:
                raise RequestError(unknown_name("field of a request that can be edited", name, EDITABLE))
        own = {name: value for name, value in changes.items() if name in _OWN_EDITABLE}
        sampling = {name: value for name, value in changes.items() if name not in _OWN_EDITABLE}
        if "prompt_token_ids" in own:
            own["prompt_token_ids"] = tuple(own["prompt_token_ids"])
        if sampling:
            own["sampling"] = self.sampling.replace(**sampling)
        return msgspec.structs.replace(self, **own)

    def fields(self, names: Iterable[str]) -> dict[str, Any]:
        """These of its editable fields, sampling parameters among them."""
        return {name: getattr(self if name in _OWN_EDITABLE else self.sampling, name) for name in names}

    def __repr__(self) -> str:
        shown = repr(self.prompt if self.prompt is None or len(self.prompt) <= 40 else self.prompt[:39] + "…")
        return f"Request({self.id!r}, {shown}, {self.num_prompt_tokens} prompt tokens, max_tokens={self.sampling.max_tokens})"


def _plain(name: str, value: Any) -> Any:
    if name in ("stop", "bad_words") and isinstance(value, str):
        return (value,)
    if name in ("stop", "bad_words", "stop_token_ids") and value is None:
        return ()
    if name in ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty") and type(value) is int:
        return float(value)
    if name == "logit_bias" and isinstance(value, dict):
        return {int(token): float(bias) for token, bias in value.items()}
    return tuple(value) if isinstance(value, list) else value
