"""Tokenizers: the same ids and text as transformers, and for the embedded model the facts that are known of it."""

from __future__ import annotations

import json
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import gguf_files as files
import pytest

from workbench.errors import ModelError, ModelIntegrityError, RequestError, UnsupportedModelError
from workbench.models.chat_template import ChatTemplate
from workbench.models.convert import convert_gguf
from workbench.models.gguf import GGUFFile
from workbench.models.gguf_tokenizer import build_tokenizer
from workbench.tokenizer import load_tokenizer

CHAT_PREFIX = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198]
CHAT_PREFIX += [1, 4093, 198]
CHAT_SUFFIX = [2, 198, 1, 520, 9531, 198]
SAMPLES = [
    "", " ", "   ", "\n\n \t\n", "What is LLM inference?", " leading and trailing  ", "12345 007 3.14 1e10 10,000", "½ ² Ⅷ ٣٤ 日本２０２６",
    "don't WE'LL you've I'm", "def f(x):\n    return x**2  # ok\n\n\nclass A:\n\tpass\r\n", "naïve café e\u0301 ÀÉÎ",
    "日本語、テスト。 한국어 नमस्ते สวัสดี",
    "👩‍👩‍👧‍👦 🇩🇪 😀😀 \u200d\ufeff", "<|im_start|>user\nhi<|im_end|>", "<html>&amp;\"quotes\"' `x`",
    "a" * 300, "\x00\x01\x7f", "x\u0301\u0302\u0303" * 5,
]  # fmt: skip


@pytest.fixture(scope="module")
def smollm2():
    from workbench.models.store import fetch

    return fetch()


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return load_tokenizer(smollm2)


@pytest.fixture
def tiny_folder(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    convert_gguf(files.write(tmp_path / "tiny.gguf"), folder)
    return folder


def edit(path, **changes):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


# -- the embedded model ----------------------------------------------------------------------------------------------


@pytest.mark.model
def test_known_facts_of_smollm2(tokenizer):
    assert len(tokenizer.encode("What is LLM inference?")) == 6
    assert tokenizer.eos_token_ids == (2,)
    assert tokenizer.vocab_size == 49_152
    assert tokenizer.has_chat_template
    assert 1 not in tokenizer.encode("no beginning-of-sequence token")


@pytest.mark.model
def test_chat_of_smollm2_has_its_default_system_message(tokenizer):
    ids = tokenizer.encode_chat([{"role": "user", "content": "What is gravity?"}])
    assert ids == CHAT_PREFIX + tokenizer.encode("What is gravity?") + CHAT_SUFFIX


@pytest.mark.model
def test_equal_to_transformers_on_varied_text(smollm2, tokenizer):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smollm2)
    for text in SAMPLES:
        ids = tokenizer.encode(text)
        assert ids == theirs(text).input_ids, text
        for skip in (True, False):
            assert tokenizer.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
    turns = [("system", "Be brief."), ("user", "Hi 123"), ("assistant", "Yes?"), ("user", "👩‍👧")]
    chat = [{"role": role, "content": text} for role, text in turns]
    assert tokenizer.encode_chat(chat) == theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


@pytest.mark.model
def test_text_survives_encoding_and_decoding(tokenizer):
    for text in SAMPLES:
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def merge(piece, ranks):
    """Byte-pair encoding, as first described: join the best-ranked pair until there is none."""
    parts = list(piece)
    while len(parts) > 1:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get((parts[i], parts[i + 1]), len(ranks)))
        if (parts[best], parts[best + 1]) not in ranks:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def byte_alphabet():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in kept)}


@pytest.mark.model
def test_equal_to_a_plain_reading_of_the_gguf_file(smollm2, tokenizer):
    """Every digit alone, then GPT-2's split, then merges: written here without any tokenizer library."""
    import regex

    with GGUFFile(next(smollm2.glob("*.gguf"))) as file:
        ids = {token: index for index, token in enumerate(file.metadata["tokenizer.ggml.tokens"])}
        ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(file.metadata["tokenizer.ggml.merges"])}
        assert file.metadata["tokenizer.ggml.pre"] == "smollm"
    gpt2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    alphabet = byte_alphabet()
    for text in SAMPLES:
        if "<|" in text:
            continue
        runs, expected = [""], []
        for character in text:
            if unicodedata.category(character).startswith("N"):
                runs += [character, ""]
            else:
                runs[-1] += character
        for piece in (piece for run in runs for piece in gpt2.findall(run)):
            expected += [ids[part] for part in merge("".join(alphabet[byte] for byte in piece.encode()), ranks)]
        assert tokenizer.encode(text) == expected, text


@pytest.mark.model
def test_every_digit_is_a_token_of_its_own(tokenizer):
    assert [tokenizer.token_text(token_id) for token_id in tokenizer.encode("x 2026")] == ["x", " ", "2", "0", "2", "6"]


@pytest.mark.model
def test_a_token_is_shown_as_its_text_or_its_bytes(tokenizer):
    shown = [tokenizer.token_text(token_id) for token_id in tokenizer.encode("a 日")]
    assert shown[0] == "a"
    assert "".join(shown[1:]).replace("<0x", "").replace(">", "").strip() == "日".encode().hex().upper()
    assert tokenizer.token_text(2) == "<|im_end|>"
    assert tokenizer.token_text(10**6) == "<id 1000000>"


@pytest.mark.model
def test_many_threads_may_use_one_tokenizer(tokenizer):
    expected = [tokenizer.encode(text) for text in SAMPLES]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(tokenizer.encode, SAMPLES)) == expected
            assert list(pool.map(tokenizer.decode, expected)) == [tokenizer.decode(ids) for ids in expected]


# -- folders ---------------------------------------------------------------------------------------------------------


def test_equal_to_transformers_on_a_converted_folder(tiny_folder):
    from transformers import AutoTokenizer

    ours, theirs = load_tokenizer(tiny_folder), AutoTokenizer.from_pretrained(tiny_folder)
    for text in ("the thing in 2026", "  the\n\nend ", "<|im_start|>the<|im_end|>"):
        assert ours.encode(text) == theirs(text).input_ids
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text).input_ids, skip_special_tokens=True)


@pytest.mark.parametrize("pre", ["gpt-2", "default", "llama-bpe", "qwen2", "tekken", "smollm"])
def test_known_pre_tokenizers_lose_no_text(tmp_path, pre):
    alphabet = list(byte_alphabet().values())
    tokens = ["<s>", *alphabet, "he", "Ġt"]
    source = files.write(
        tmp_path / "m.gguf", tokenizer__ggml__pre=pre, tokenizer__ggml__tokens=tokens, tokenizer__ggml__merges=["h e", "Ġ t"],
        tokenizer__ggml__token_type=[3] + [1] * (len(tokens) - 1), tensors={"token_embd.weight": files.np.zeros((300, 32), "float32")},
        tokenizer__ggml__bos_token_id=0, tokenizer__ggml__add_bos_token=False,
    )  # fmt: skip
    with GGUFFile(source) as file:
        backend = build_tokenizer(file)
    for text in SAMPLES:
        if "<|" not in text:
            expected = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
            assert backend.decode(backend.encode(text).ids, skip_special_tokens=False) == expected


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["x", "Ġ1", "2", "3", "4"]),
        ("smollm", ["x", "Ġ", "1", "2", "3", "4"]),
        ("qwen2", ["x", "Ġ", "1", "2", "3", "4"]),
        ("llama-bpe", ["x", "Ġ", "123", "4"]),
    ],
)
def test_pre_tokenizers_differ_where_they_should(tmp_path, pre, pieces):
    tokens = ["<s>", *byte_alphabet().values(), "Ġ1", "12", "123", "34"]
    merges = ["Ġ 1", "1 2", "12 3"] if pre != "gpt-2" else ["Ġ 1", "1 2"]
    source = files.write(
        tmp_path / "m.gguf", tokenizer__ggml__pre=pre, tokenizer__ggml__tokens=tokens, tokenizer__ggml__merges=merges,
        tokenizer__ggml__token_type=[3] + [1] * (len(tokens) - 1), tensors={"token_embd.weight": files.np.zeros((300, 32), "float32")},
        tokenizer__ggml__bos_token_id=0, tokenizer__ggml__add_bos_token=False,
    )  # fmt: skip
    with GGUFFile(source) as file:
        assert build_tokenizer(file).encode("x 1234").tokens == pieces


def test_a_sentencepiece_vocabulary_is_rebuilt_from_its_scores(tmp_path):
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["▁", "a", "b", "ab", "▁ab", "c"]
    source = files.write(
        tmp_path / "m.gguf", tokenizer__ggml__model="llama", tokenizer__ggml__pre=None, tokenizer__ggml__merges=None,
        tokenizer__ggml__tokens=["<unk>", "<s>", "</s>", *bytes_, *words],
        tokenizer__ggml__scores=[0.0] * 259 + [-5.0, -6.0, -7.0, -2.0, -1.0, -9.0],
        tokenizer__ggml__token_type=[2, 3, 3] + [6] * 256 + [1] * 6, tensors={"token_embd.weight": files.np.zeros((300, 32), "float32")},
    )  # fmt: skip
    with GGUFFile(source) as file:
        backend = build_tokenizer(file)
    assert backend.encode("ab cab é").tokens == ["<s>", "▁ab", "▁", "c", "ab", "▁", "<0xC3>", "<0xA9>"]
    assert backend.decode(backend.encode("ab cab é").ids) == "ab cab é"


def test_bos_is_added_only_where_the_tokenizer_adds_it(tmp_path, tiny_folder):
    with_bos = tmp_path / "bos"
    with_bos.mkdir()
    convert_gguf(files.write(tmp_path / "bos.gguf", tokenizer__ggml__add_bos_token=True), with_bos)
    assert load_tokenizer(with_bos).encode("the") == [1, *load_tokenizer(tiny_folder).encode("the")]
    chat = [{"role": "user", "content": "the"}]
    assert load_tokenizer(with_bos).encode_chat(chat) == load_tokenizer(tiny_folder).encode_chat(chat)


def test_end_tokens_are_the_tokenizers_and_the_generation_configs(tiny_folder):
    edit(tiny_folder / "generation_config.json", eos_token_id=[5, 2, 7])
    assert load_tokenizer(tiny_folder).eos_token_ids == (2, 5, 7)
    (tiny_folder / "generation_config.json").unlink()
    edit(tiny_folder / "config.json", eos_token_id=9)
    assert load_tokenizer(tiny_folder).eos_token_ids == (2, 9)


def test_padding_and_truncation_of_the_training_are_switched_off(tiny_folder):
    tokenizer_json = json.loads((tiny_folder / "tokenizer.json").read_text())
    tokenizer_json["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    padding["pad_token"] = "<|unk|>"
    (tiny_folder / "tokenizer.json").write_text(json.dumps({**tokenizer_json, "padding": padding}))
    assert len(load_tokenizer(tiny_folder).encode("abcdefgh")) == 8


def test_tokens_that_only_the_settings_know_are_added(tiny_folder):
    edit(tiny_folder / "tokenizer_config.json", added_tokens_decoder={"101": {"content": "<tool>", "special": True}})
    tokenizer = load_tokenizer(tiny_folder)
    assert tokenizer.encode("<tool>") == [101]
    assert tokenizer.decode([101]) == ""


def test_a_slow_tokenizer_goes_through_transformers(tiny_folder):
    vocabulary = json.loads((tiny_folder / "tokenizer.json").read_text())["model"]
    expected = load_tokenizer(tiny_folder).encode("thing")
    (tiny_folder / "tokenizer.json").unlink()
    (tiny_folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in vocabulary["merges"]]
    (tiny_folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    edit(tiny_folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert load_tokenizer(tiny_folder).encode("thing") == expected


def test_a_damaged_tokenizer_file_is_one_line(tiny_folder):
    (tiny_folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ModelIntegrityError, match=r"tokenizer\.json"):
        load_tokenizer(tiny_folder)


def test_text_that_is_no_unicode_is_refused(tiny_folder):
    with pytest.raises(RequestError, match="UTF-8"):
        load_tokenizer(tiny_folder).encode("a\ud800")


def test_an_odd_tokenizer_kind_is_refused(tmp_path):
    source = files.write(tmp_path / "m.gguf", tokenizer__ggml__model="bert")
    with GGUFFile(source) as file, pytest.raises(UnsupportedModelError, match="bert"):
        build_tokenizer(file)


# -- chat templates --------------------------------------------------------------------------------------------------


def test_the_template_file_goes_before_the_settings(tiny_folder):
    (tiny_folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    tokenizer = load_tokenizer(tiny_folder)
    assert tokenizer.encode_chat([{"role": "user", "content": "the"}]) == tokenizer.encode("the")


def test_of_several_named_templates_the_default_is_taken(tiny_folder):
    (tiny_folder / "chat_template.jinja").unlink()
    templates = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "the"}]
    edit(tiny_folder / "tokenizer_config.json", chat_template=templates)
    tokenizer = load_tokenizer(tiny_folder)
    assert tokenizer.encode_chat([{"role": "user", "content": "x"}]) == tokenizer.encode("the")


def test_a_model_without_template_says_how_to_prompt_it(tiny_folder):
    (tiny_folder / "chat_template.jinja").unlink()
    edit(tiny_folder / "tokenizer_config.json", chat_template=None)
    tokenizer = load_tokenizer(tiny_folder)
    assert not tokenizer.has_chat_template
    with pytest.raises(ModelError, match="--raw"):
        tokenizer.encode_chat([{"role": "user", "content": "x"}])


def test_templates_have_the_helpers_that_transformers_gives_them():
    source = (
        "{% for m in messages %}{% if m.role == 'stop' %}{% break %}{% endif %}{{ bos_token }}{{ m | tojson }}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') | length }}{{ add_generation_prompt }}"
    )
    text = ChatTemplate(source, {"bos_token": "<s>"}).render([{"role": "user", "content": "<é>"}, {"role": "stop", "content": ""}])
    assert text == '<s>{"role": "user", "content": "<é>"}<é>4True'


def test_what_a_template_refuses_is_a_request_error():
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(RequestError, match="roles must alternate"):
        template.render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
    ],
)
def test_templates_stay_in_their_sandbox(attack):
    with pytest.raises(RequestError):
        ChatTemplate(attack, {}).render([{"role": "user", "content": "x"}])


def test_a_template_with_an_error_is_the_models_fault():
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate("{% if %}", {})


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["hi"],
        [{"content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "image"}]}],
    ],
)
def test_messages_of_the_wrong_form_are_refused(messages):
    with pytest.raises(RequestError, match="message"):
        ChatTemplate("x", {}).render(messages)


def test_text_parts_are_joined():
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ChatTemplate("{{ messages[0].content }}", {}).render([{"role": "user", "content": content}]) == "ab"
