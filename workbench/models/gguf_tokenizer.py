"""The tokenizer inside a GGUF file, rebuilt as ``tokenizer.json`` and its companions.

GGUF keeps vocabulary, merges (or scores) and the *name* of the pre-tokenizer; the name decides how text is cut before
merging, so it is mapped here by hand and an unknown one is refused: a tokenizer that is almost right would show in every
token id.  Pre-tokenizers are those of the models' own published ``tokenizer.json`` files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelIntegrityError, UnsupportedModelError
from workbench.models.gguf import GGUFFile, Kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4
_TEXTS, _SWITCHES = ("ggml.model", "ggml.pre", "chat_template"), ("ggml.add_bos_token", "ggml.add_space_prefix")
_LISTS: dict[str, Kind] = {
    "tokenizer.ggml.tokens": ("list", str),
    "tokenizer.ggml.merges": ("list", str),
    "tokenizer.ggml.token_type": ("list", int),
}
_NAMED = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id", "pad_token": "padding_token_id"}

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "smaug-bpe": _LLAMA3, "qwen2": _QWEN2, "tekken": _TEKKEN}
_SMOLLM, _GPT2 = ("smollm",), ("gpt-2", "default")
_IGNORES_MERGES = frozenset({"llama-bpe", "llama3", "llama-v3", "smaug-bpe", "tekken"})
_ADDS_BOS = frozenset({"llama-bpe", "llama3", "llama-v3", "tekken"})  # where the file does not say


def write_tokenizer(file: GGUFFile, folder: Path) -> dict[str, Any]:
    """Write tokenizer files into ``folder``; returns ``bos_token_id``, ``eos_token_id`` and ``pad_token_id``.

    Raises :class:`UnsupportedModelError` for a pre-tokenizer that we do not know.
    """
    _check_kinds(file)
    tokens = _tokens(file)
    ids = {name: _special_id(file, key, len(tokens)) for name, key in _NAMED.items()}
    build_tokenizer(file).save(str(folder / "tokenizer.json"), pretty=False)
    settings: dict[str, Any] = {name: tokens[token_id] for name, token_id in ids.items() if token_id is not None}
    settings |= {
        "add_bos_token": adds_bos(file),
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.get("context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    template = file.metadata.get("tokenizer.chat_template")
    if template:
        settings["chat_template"] = template
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    return {"bos_token_id": ids["bos_token"], "eos_token_id": _end_ids(file), "pad_token_id": ids["pad_token"]}


def build_tokenizer(file: GGUFFile) -> Tokenizer:
    """The tokenizer that ``file`` describes."""
    _check_kinds(file)
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        known = "gpt2 (byte-level BPE) and llama (SentencePiece BPE)"
        raise UnsupportedModelError(f"{file.path.name} has a tokenizer of kind {kind!r}; supported in GGUF: {known}")
    tokenizer = _byte_level(file) if kind == "gpt2" else _sentencepiece(file)
    _add_special(tokenizer, file)
    if adds_bos(file):
        _prefix_bos(tokenizer, file)
    return tokenizer


def _check_kinds(file: GGUFFile) -> None:
    ids = [f"ggml.{key}" for key in (*_NAMED.values(), "eot_token_id")]
    file.check_kinds(_LISTS)
    file.check_kinds({f"tokenizer.{key}": ("one", str) for key in _TEXTS})
    file.check_kinds({f"tokenizer.{key}": ("one", bool) for key in _SWITCHES})
    file.check_kinds({f"tokenizer.{key}": ("one", int) for key in ids})


def adds_bos(file: GGUFFile) -> bool:
    """Whether plain text gets the beginning-of-sequence token, as the file says or its tokenizer's kind implies."""
    if file.metadata.get("tokenizer.ggml.bos_token_id") is None:
        return False
    implied = file.metadata.get("tokenizer.ggml.model") == "llama" or file.metadata.get("tokenizer.ggml.pre") in _ADDS_BOS
    return bool(file.metadata.get("tokenizer.ggml.add_bos_token", implied))


def _byte_level(file: GGUFFile) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pre = file.metadata.get("tokenizer.ggml.pre", "default")
    pairs = [merge.split(" ") for merge in file.metadata.get("tokenizer.ggml.merges", ())]
    vocabulary = {token: index for index, token in enumerate(_tokens(file))}
    known = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and {*pair, "".join(pair)} <= vocabulary.keys()]
    if len(known) != len(pairs) or not known:
        damaged = len(pairs) - len(known)
        raise ModelIntegrityError(f"{file.path.name} has {damaged} damaged merges of {len(pairs)}: its tokenizer cannot be rebuilt")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=known, ignore_merges=pre in _IGNORES_MERGES))
    if pre in _SMOLLM:
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif pre in _GPT2:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    elif pre in _PATTERNS:
        cut = pre_tokenizers.Split(Regex(_PATTERNS[pre]), behavior="isolated", invert=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        names = ", ".join(sorted((*_PATTERNS, *_SMOLLM, *_GPT2)))
        problem = f"{file.path.name} uses the pre-tokenizer {pre!r}; known in GGUF: {names}"
        raise UnsupportedModelError(f"{problem}: use the model's safetensors folder instead")
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(file: GGUFFile) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = _tokens(file)
    scores = file.metadata.get("tokenizer.ggml.scores", [])
    if not isinstance(scores, list) or len(scores) != len(tokens) or not all(isinstance(score, float) for score in scores):
        raise ModelIntegrityError(f"{file.path.name} has {len(tokens):,} tokens, but not as many scores: the header is damaged")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = tokens[_special_id(file, "unknown_token_id", len(tokens)) or 0]
    merges = _merges_of_scores(vocabulary, scores)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend("▁")] if file.metadata.get("tokenizer.ggml.add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return tokenizer


def _merges_of_scores(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece joins the pair whose result has the best score; BPE needs that order spelled out as merges."""
    ranked = []
    for piece, index in vocabulary.items():
        for cut in range(1, len(piece)):
            first, second = piece[:cut], piece[cut:]
            if first in vocabulary and second in vocabulary:
                ranked.append((-scores[index], vocabulary[first], vocabulary[second], first, second))
    ranked.sort()
    return [(first, second) for *_, first, second in ranked]


def _add_special(tokenizer: Tokenizer, file: GGUFFile) -> None:
    """Control and user-defined tokens are matched whole in the text; only control tokens count as special."""
    from tokenizers import AddedToken

    types = file.metadata.get("tokenizer.ggml.token_type", ())
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(_tokens(file), types, strict=False)
        if kind in (_CONTROL, _USER_DEFINED) and token
    ]
    tokenizer.add_tokens([token for token in added if not token.special])
    tokenizer.add_special_tokens([token for token in added if token.special])


def _prefix_bos(tokenizer: Tokenizer, file: GGUFFile) -> None:
    from tokenizers import processors

    tokens = _tokens(file)
    token_id = _special_id(file, "bos_token_id", len(tokens))
    if token_id is None:
        return
    token = tokens[token_id]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token}:0 $A:0", pair=f"{token}:0 $A:0 {token}:1 $B:1", special_tokens=[(token, token_id)]
    )


def _tokens(file: GGUFFile) -> list[str]:
    tokens: list[str] = file.metadata.get("tokenizer.ggml.tokens", [])
    if not tokens or "token_embd.weight" not in file.tensors:
        raise ModelIntegrityError(f"{file.path.name} has no vocabulary or no token embedding: it is not a complete model")
    if len(tokens) > file.tensors["token_embd.weight"].shape[0]:
        raise ModelIntegrityError(f"{file.path.name} has more tokens than rows in its embedding: the header is damaged")
    return tokens


def _special_id(file: GGUFFile, key: str, num_tokens: int) -> int | None:
    token_id: int | None = file.metadata.get(f"tokenizer.ggml.{key}")
    if token_id is not None and not 0 <= token_id < num_tokens:
        raise ModelIntegrityError(f"{file.path.name} says {key} is {token_id}, but it has {num_tokens:,} tokens: the header is damaged")
    return token_id


def _end_ids(file: GGUFFile) -> int | list[int] | None:
    """End of sequence, and end of turn where the file tells them apart."""
    ids = [_special_id(file, f"{name}_token_id", len(_tokens(file))) for name in ("eos", "eot")]
    distinct = sorted({token_id for token_id in ids if token_id is not None})
    return distinct[0] if len(distinct) == 1 else distinct or None
