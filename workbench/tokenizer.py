"""Text to token ids and back, for a model folder in Hugging Face layout.

``tokenizer.json`` is read by the ``tokenizers`` library directly: a model is ready in a fifth of a second, where
``transformers`` takes seconds to import and build the same tokenizer.  Folders without that file (SentencePiece models)
go through ``transformers``.  Nothing here changes after loading, so one tokenizer may serve many threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, ModelIntegrityError, RequestError
from workbench.models.chat_template import ChatTemplate

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A model's tokenizer and chat template.

    ``eos_token_ids`` are the tokens that end an output: the tokenizer's own first, then those of the generation config.
    """

    def __init__(
        self, backend: Backend, *, special_tokens: Mapping[str, str], eos_token_ids: Sequence[int], chat_template: str | None
    ) -> None:
        backend.no_truncation()  # settings of the training, kept in some files
        backend.no_padding()
        self._backend = backend
        self._template = ChatTemplate(chat_template, special_tokens) if chat_template else None
        self.eos_token_ids: tuple[int, ...] = tuple(eos_token_ids)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    @property
    def has_chat_template(self) -> bool:
        """Whether :meth:`encode_chat` can be used: the mark of a model made for conversations."""
        return self._template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; with the beginning-of-sequence token only if the model's tokenizer adds it."""
        return self._encode(text, add_special_tokens=True)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation, ending where the assistant's answer begins.

        Raises :class:`RequestError` for messages that the template does not take, :class:`ModelError` without a template.
        """
        if self._template is None:
            raise ModelError("this model has no chat template: give plain text (in a cell, --raw)")
        return self._encode(self._template.render(messages), add_special_tokens=False)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD, ids out of range vanish."""
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """One token as shown to people: its text inside a sentence, or its bytes as ``<0xE2>`` when they are no whole character."""
        name = self._backend.id_to_token(token_id)
        if name is None:
            return f"<id {token_id}>"
        alone = self.decode([token_id], skip_special_tokens=False)
        if _REPLACEMENT in alone:
            return _bytes_shown(name)
        # Twice, less once: decoders may strip the space at the beginning of a text.
        return self.decode([token_id, token_id], skip_special_tokens=False)[len(alone) :]

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        except (TypeError, UnicodeError) as error:
            raise RequestError(f"a prompt must be text that can be written as UTF-8: {error}") from error


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the model in ``folder``.

    Raises :class:`ModelIntegrityError` for damaged files and :class:`ModelError` when there is no tokenizer to read.
    """
    folder = Path(folder)
    settings = _read_json(folder / "tokenizer_config.json")
    backend = _read_backend(folder / "tokenizer.json") if (folder / "tokenizer.json").is_file() else _convert(folder)
    special_tokens = {name: _content(settings[name]) for name in _NAMED_TOKENS if settings.get(name)}
    _add_missing(backend, settings, special_tokens)
    return Tokenizer(
        backend,
        special_tokens=special_tokens,
        eos_token_ids=_eos_token_ids(folder, backend, special_tokens),
        chat_template=_chat_template(folder, settings),
    )


def _read_backend(path: Path) -> Backend:
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelIntegrityError(f"{path} cannot be read as a tokenizer ({error!s:.120}): get the file again") from error


def _convert(folder: Path) -> Backend:
    """The backend of a tokenizer that only ``transformers`` can build (from ``tokenizer.model`` or vocabulary and merges)."""
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:
        problem = f"{folder} has no tokenizer.json, and transformers cannot build one ({error!s:.160})"
        raise ModelError(f"{problem}: save the tokenizer in the fast format") from error
    backend: Backend | None = getattr(slow, "backend_tokenizer", None)
    if backend is None:
        kind = type(slow).__name__
        raise ModelError(f"{folder} has a tokenizer of a kind that cannot be made fast ({kind}): save it with a tokenizer.json")
    return backend


def _add_missing(backend: Backend, settings: Mapping[str, Any], special_tokens: Mapping[str, str]) -> None:
    """Special tokens that only ``tokenizer_config.json`` knows about."""
    from tokenizers import AddedToken

    entries = settings.get("added_tokens_decoder") or {}
    listed = [entries[key] for key in sorted(entries, key=int)]
    for entry in listed:
        if backend.token_to_id(_content(entry)) is None:
            flags = {key: bool(entry.get(key, False)) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
            backend.add_tokens([AddedToken(_content(entry), **flags)])
    backend.add_special_tokens([name for name in special_tokens.values() if backend.token_to_id(name) is None])


def _eos_token_ids(folder: Path, backend: Backend, special_tokens: Mapping[str, str]) -> tuple[int, ...]:
    ids: list[int] = []
    own = backend.token_to_id(special_tokens["eos_token"]) if "eos_token" in special_tokens else None
    ids += [] if own is None else [own]
    generation = _read_json(folder / "generation_config.json").get("eos_token_id")
    configured = generation if generation is not None else _read_json(folder / "config.json").get("eos_token_id")
    ids += configured if isinstance(configured, list) else [] if configured is None else [configured]
    return tuple(dict.fromkeys(ids))


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The default template: its own file first, then the tokenizer's settings (one text, or a list of named ones)."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelIntegrityError(f"{path} is not readable JSON ({error}): get the file again") from error
    return content if isinstance(content, dict) else {}


def _content(token: Any) -> str:
    """The text of a token that settings give as text or as a table."""
    return str(token["content"] if isinstance(token, dict) else token)


def _bytes_shown(name: str) -> str:
    """A byte-level token's name (each byte a printable character) with the bytes that are no text written out; others as they are."""
    bytes_of = _byte_of_character()
    if not all(character in bytes_of for character in name):
        return name
    text = bytes(bytes_of[character] for character in name).decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(character) - 0xDC00:02X}>" if "\udc80" <= character <= "\udcff" else character for character in text)


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(0x100 + offset): byte for offset, byte in enumerate(others)}
