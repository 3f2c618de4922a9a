"""Intake: from what a person hands in (text, token ids, messages, a mapping) to :class:`Request` values.

Everything that needs the tokenizer happens here, once, before the scheduler sees a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from workbench._knobs import unknown_name
from workbench.errors import RequestError
from workbench.request import Request, SamplingParams

if TYPE_CHECKING:
    from workbench.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
OWN_KEYS = ("prompt", "prompt_token_ids", "messages", "id", "priority", "arrival_step", "arrival_s", "chat")


class Intake:
    """Makes requests for one engine; ``tokenizer`` is ``None`` when only token ids are understood."""

    def __init__(self, tokenizer: Tokenizer | None, *, vocab_size: int, seed: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.seed = seed

    def requests(self, entry: Prompt | Mapping[str, Any], request_id: str, sampling: SamplingParams, chat: bool | None) -> list[Request]:
        """The request for one prompt, or its ``n`` completions.

        A mapping may carry its own ``id``, ``priority``, ``arrival_step``, ``arrival_s``, ``chat`` and sampling parameters.
        Raises :class:`RequestError` with what to change.
        """
        own: dict[str, Any] = {"prompt": entry} if not isinstance(entry, Mapping) else dict(entry)
        params = {key: own.pop(key) for key in list(own) if key not in OWN_KEYS}
        for key in params:
            if key not in SamplingParams.__struct_fields__:
                raise RequestError(unknown_name("field of a request", key, (*OWN_KEYS, *SamplingParams.__struct_fields__)))
        sampling = sampling.replace(**params) if params else sampling
        name = str(own.pop("id", None) or request_id)
        text, token_ids = self._prompt(own, own.pop("chat", None) if own.get("chat") is not None else chat)
        self._check_ids(sampling, token_ids)
        base = Request(
            id=name,
            prompt=text,
            prompt_token_ids=tuple(token_ids),
            sampling=sampling,
            priority=_whole("priority", own.get("priority", 0)),
            arrival_step=_optional(_whole, "arrival_step", own.get("arrival_step")),
            arrival_s=_optional(_seconds, "arrival_s", own.get("arrival_s")),
            eos_token_ids=self.tokenizer.eos_token_ids if self.tokenizer else (),
            bad_words_ids=self._bad_words(sampling.bad_words),
        )
        return [self._completion(base, index) for index in range(sampling.n)]

    def edit(self, request: Request, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that an edit of ``request`` changes, ready for :meth:`Request.edited`: a new prompt text becomes tokens.

        ``changes`` may hold ``prompt`` or ``messages``, ``prompt_token_ids``, ``chat``, ``priority`` and sampling parameters.
        """
        own = dict(changes)
        chat = own.pop("chat", None)
        if any(own.get(key) is not None for key in ("prompt", "messages", "prompt_token_ids")):
            text, token_ids = self._prompt(own, chat)
            for key in ("prompt", "messages", "prompt_token_ids"):
                own.pop(key, None)
            own.update(prompt=text, prompt_token_ids=tuple(token_ids))
        edited = request.edited(**own)
        self._check_ids(edited.sampling, edited.prompt_token_ids)
        if edited.sampling.seed is None and not edited.sampling.greedy:
            own["seed"] = self._seed_of(request.id)
        return own

    def _seed_of(self, name: str) -> int:
        return int.from_bytes(blake2b(f"{self.seed}/{name}".encode(), digest_size=4).digest(), "little")

    def _completion(self, base: Request, index: int) -> Request:
        """One of ``n`` completions: its own id and, when sampling, its own seed (vLLM adds the index to it)."""
        alone = base.sampling.n == 1
        name = base.id if alone else f"{base.id}.{index}"
        seed = base.sampling.seed
        if seed is None and not base.sampling.greedy:
            seed = self._seed_of(name)
        elif seed is not None:
            seed += index
        sampling = msgspec.structs.replace(base.sampling, seed=seed)
        return msgspec.structs.replace(base, id=name, sampling=sampling, parent=None if alone else base.id, index=index)

    def _prompt(self, own: dict[str, Any], chat: bool | None) -> tuple[str | None, list[int]]:
        given = [key for key in ("prompt", "prompt_token_ids", "messages") if own.get(key) is not None]
        if len(given) != 1:
            raise RequestError(f"a request needs exactly one of prompt, prompt_token_ids and messages, not {given or 'none'}")
        value = own[given[0]]
        if isinstance(value, str):
            return value, self._encode(value, chat)
        if isinstance(value, Sequence) and value and all(isinstance(message, Mapping) for message in value):
            return self._messages(value)
        if isinstance(value, Sequence) and all(type(token) is int for token in value):
            if not value:
                raise RequestError("the prompt is empty: give it at least one token")
            return None, list(value)
        raise RequestError(f"a prompt is text, a list of token ids or a list of chat messages, not {type(value).__name__}")

    def _encode(self, text: str, chat: bool | None) -> list[int]:
        if not text.strip():
            raise RequestError("the prompt is empty: write some text")
        tokenizer = self._need_tokenizer("text")
        if chat and not tokenizer.has_chat_template:
            raise RequestError("this model has no chat template: use --raw (chat=False)")
        if chat or (chat is None and tokenizer.has_chat_template):
            return tokenizer.encode_chat([{"role": "user", "content": text}])
        return tokenizer.encode(text)

    def _messages(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[int]]:
        for message in messages:
            if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
                raise RequestError(f"a chat message needs a role and a content, both text, not {dict(message)!r}")
        tokenizer = self._need_tokenizer("chat messages")
        if not tokenizer.has_chat_template:
            raise RequestError("this model has no chat template: give it plain text")
        shown = messages[0]["content"] if len(messages) == 1 else "\n".join(f"{m['role']}: {m['content']}" for m in messages)
        return shown, tokenizer.encode_chat([dict(message) for message in messages])

    def _need_tokenizer(self, what: str) -> Tokenizer:
        if self.tokenizer is None:
            raise RequestError(f"this engine has no tokenizer, so it cannot read {what}: give token ids, or Engine(..., tokenizer=...)")
        return self.tokenizer

    def _bad_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Token sequences to forbid: each word as it opens a text and, where that is one as long, after a space (vLLM's rule)."""
        found: list[tuple[int, ...]] = []
        for word in words:
            tokenizer = self._need_tokenizer("bad_words")
            opening = tuple(tokenizer.encode(word.lstrip()))
            spaced = tuple(tokenizer.encode(" " + word.lstrip()))
            if not opening:
                raise RequestError(f"bad_words holds {word!r}, which has no tokens: remove it")
            found.append(opening)
            if spaced[0] != opening[0] and len(spaced) == len(opening):
                found.append(spaced)
        return tuple(found)

    def _check_ids(self, sampling: SamplingParams, token_ids: Sequence[int]) -> None:
        named = {
            "the prompt": token_ids,
            "stop_token_ids": sampling.stop_token_ids,
            "allowed_token_ids": sampling.allowed_token_ids or (),
            "logit_bias": sampling.logit_bias or (),
        }
        for where, ids in named.items():
            low, high = (min(ids), max(ids)) if ids else (0, 0)
            if low < 0 or (self.vocab_size and high >= self.vocab_size):
                wrong = low if low < 0 else high
                limit = f"0 to {self.vocab_size - 1}" if self.vocab_size else "0 and up"
                raise RequestError(f"{where} holds token id {wrong}; this model's ids are {limit}")


def _optional(read: Any, name: str, value: Any) -> Any:
    return None if value is None else read(name, value)


def _whole(name: str, value: Any) -> int:
    if type(value) is not int:
        raise RequestError(f"{name} must be a whole number, not {value!r}")
    return value


def _seconds(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise RequestError(f"{name} must be a number of seconds, 0 or more, not {value!r}")
    return float(value)
