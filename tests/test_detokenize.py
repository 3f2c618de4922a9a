"""Text of a growing output: equal to decoding at once, never half a character, never beyond a stop string, never taken back."""

from __future__ import annotations

import copy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.detokenize import TextStream
from workbench.request import SamplingParams

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"


class Bytes:
    """A tokenizer whose ids are bytes; ids from 256 on are special tokens; ``words`` gives further ids to whole texts."""

    def __init__(self, words=()):
        self.words = {1000 + number: word.encode() for number, word in enumerate(words)}

    def decode(self, ids, skip_special_tokens=True):
        parts = []
        for token_id in ids:
            special = b"" if skip_special_tokens else f"<{token_id}>".encode()
            parts.append(self.words.get(token_id, bytes([token_id]) if token_id < 256 else special))
        return b"".join(parts).decode("utf-8", "replace")


class Sentences:
    """Like a SentencePiece decoder: pieces carry their leading space, and the first space of a text is dropped."""

    pieces = (" the", " cat", "s", " sat", ".", "\n", " 東", "京")

    def decode(self, ids, skip_special_tokens=True):
        return "".join(self.pieces[token_id] for token_id in ids).removeprefix(" ")


def stream(tokenizer=None, tail=(), **params):
    return TextStream(tokenizer or Bytes(), SamplingParams.of(**params), tail)


def run(text_stream, ids):
    """What was shown after each token, and at the end."""
    shown = []
    for token_id in ids:
        ended = text_stream.push(token_id)
        shown.append(text_stream.take())
        if ended:
            break
    return [*shown, text_stream.finish()]


def first_stop(text, stops):
    """Reference: read character by character; the first stop string to be complete, the longest of several."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end, max(found, key=len)
    return None


CHARACTERS = ["a", "b", " ", "\n", "é", "日", "本", "😀", "\N{ZERO WIDTH JOINER}", "👩", "🇩", "🇪", "\u0301"]
texts = st.text(st.sampled_from(CHARACTERS), max_size=40)
short = st.text("ab日😀", min_size=1, max_size=4)


@given(texts)
def test_takes_add_up_to_the_text(text):
    assert "".join(run(stream(), text.encode())) == text


@given(texts)
def test_a_character_is_shown_with_its_last_byte_and_not_before(text):
    text_stream = stream()
    for character in text:
        *first, last = character.encode()
        assert [text_stream.push(byte) or text_stream.take() for byte in first] == [""] * len(first)
        text_stream.push(last)
        assert text_stream.take() == character


@given(st.lists(st.integers(0, 300), max_size=60))
def test_any_bytes_add_up_to_what_decoding_at_once_gives(ids):
    assert "".join(run(stream(), ids)) == Bytes().decode(ids)


@given(st.lists(st.integers(0, 300), max_size=40))
def test_special_tokens_are_kept_when_asked_for(ids):
    assert "".join(run(stream(skip_special_tokens=False), ids)) == Bytes().decode(ids, skip_special_tokens=False)


@given(st.lists(st.integers(0, 7), max_size=30), st.lists(st.integers(0, 7), min_size=1, max_size=9))
def test_output_continues_the_prompt_with_its_spaces(ids, prompt):
    whole, before = Sentences().decode(prompt + ids), Sentences().decode(prompt)
    assert "".join(run(stream(Sentences(), prompt), ids)) == whole[len(before) :]


def test_emoji_of_several_code_points_arrives_whole_code_points():
    shown = run(stream(), FAMILY.encode())
    assert "".join(shown) == FAMILY
    assert [piece for piece in shown if piece] == list(FAMILY)


def test_an_unfinished_character_is_flushed_as_a_replacement_character():
    text_stream = stream()
    for byte in "日".encode()[:2]:
        text_stream.push(byte)
    assert text_stream.take() == ""
    assert text_stream.finish() == "\N{REPLACEMENT CHARACTER}"
    assert text_stream.text == "\N{REPLACEMENT CHARACTER}"
    assert text_stream.finish() == ""


def test_a_replacement_character_of_the_model_itself_is_text():
    assert "".join(run(stream(), "a\N{REPLACEMENT CHARACTER}b".encode())) == "a\N{REPLACEMENT CHARACTER}b"


def tokens_of(text, cuts, words):
    """``text`` cut into whole-text tokens at ``cuts``; registers them in ``words``."""
    ids, start = [], 0
    for end in [*sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]:
        if text[start:end]:
            words.append(text[start:end])
            ids.append(1000 + len(words) - 1)
        start = end
    return ids


@given(texts, st.lists(short, min_size=1, max_size=3), st.lists(st.integers(0, 60), max_size=12), st.booleans())
def test_a_stop_string_is_found_however_tokens_cut_the_text(text, stops, cuts, include):
    text = text.replace("é", "ab日")
    words: list[str] = []
    ids = tokens_of(text, cuts, words)
    text_stream = stream(Bytes(words), stop=stops, include_stop_str_in_output=include)
    shown = run(text_stream, ids)
    found = first_stop(text, stops)
    if found is None:
        assert ("".join(shown), text_stream.stop_reason) == (text, None)
    else:
        end, stop = found
        assert ("".join(shown), text_stream.stop_reason) == (text[: end if include else end - len(stop)], stop)


@given(texts, st.lists(short, max_size=2))
def test_text_never_shrinks_and_equals_what_was_shown(text, stops):
    text_stream, shown = stream(stop=stops), ""
    for byte in text.encode():
        text_stream.push(byte)
        shown += text_stream.take()
        assert text_stream.text == shown
    shown += text_stream.finish()
    assert text_stream.text == shown


def test_a_possible_beginning_of_a_stop_string_is_held_back_until_it_is_none():
    assert run(stream(stop="END"), b"a EN") == ["a", " ", "", "", "EN"]
    assert run(stream(stop="END"), b"ENE!") == ["", "", "EN", "E!", ""]
    assert run(stream(stop="END"), b"ab END more") == ["a", "b", " ", "", "", "", ""]


def test_nothing_is_held_back_when_the_stop_string_is_to_be_shown():
    assert run(stream(stop="END", include_stop_str_in_output=True), b"aEND!") == ["a", "E", "N", "D", ""]


def test_what_follows_a_stop_string_in_the_same_token_is_cut():
    text_stream = stream(Bytes(["one. Two"]), stop=".")
    assert text_stream.push(1000)
    assert (text_stream.take(), text_stream.finish(), text_stream.stop_reason) == ("one", "", ".")


def test_pushes_after_a_stop_change_nothing():
    text_stream = stream(stop=".")
    assert text_stream.push(ord("."))
    assert text_stream.push(ord("a"))
    assert (text_stream.take(), text_stream.text) == ("", "")


def test_a_stop_string_that_ends_within_min_tokens_is_text():
    text_stream = stream(stop="b", min_tokens=3)
    assert [text_stream.push(byte) for byte in b"abcb"] == [False, False, False, True]
    assert text_stream.text == "abc"


def test_a_stop_string_that_begins_within_min_tokens_and_ends_after_counts():
    text_stream = stream(stop="cd", min_tokens=3)
    assert [text_stream.push(byte) for byte in b"abcd"] == [False, False, False, True]
    assert text_stream.text == "ab"


@given(texts, texts, st.integers(0, 20))
def test_a_copy_goes_its_own_way(text, other, cut):
    data = text.encode()
    original = stream(stop="zz")
    shown = "".join(original.take() for byte in data[:cut] if not original.push(byte))
    twin = copy.copy(original)
    for byte in other.encode():
        twin.push(byte)
    twin.finish()
    assert shown + "".join(run(original, data[cut:])) == text


@pytest.mark.parametrize(
    "data", ["日本語".encode() * 900, b"\x80" * 8000, b"\xff\xe2" * 4000, b"plain " * 1400, "😀".encode() * 2000, b"\xf0\x9f" * 4000]
)
def test_the_window_stays_short_whatever_arrives(data):
    text_stream, longest = stream(), 0
    for byte in data:
        text_stream.push(byte)
        longest = max(longest, len(text_stream._window))
    text_stream.finish()
    assert longest <= 24
    assert text_stream.text == Bytes().decode(data)


def test_ten_thousand_tokens_take_well_under_a_second():
    # About 10 to 20 µs a token on an idle core; a decode of everything at each token would take minutes.
    text_stream = stream(stop=["###", "</s>"])
    started = time.perf_counter()
    for byte in b"the quick brown fox " * 500:
        text_stream.push(byte)
        text_stream.take()
    assert time.perf_counter() - started < 2.0


@pytest.mark.model
def test_the_real_tokenizer_streams_what_it_decodes():
    import random

    from workbench.models.store import fetch
    from workbench.tokenizer import load_tokenizer

    tokenizer, chance = load_tokenizer(fetch()), random.Random(3)
    texts = [f"1234 {FAMILY} 日本語、テスト。 ünïcødé\n\n  def f(x):\treturn x", "🇩🇪🇫🇷 \u200d नमस्ते สวัสดี"]
    samples = [tokenizer.encode(text) for text in texts]
    samples += [[chance.randrange(tokenizer.vocab_size) for _ in range(80)] for _ in range(200)]
    for ids in samples:
        assert "".join(run(stream(tokenizer), ids)) == tokenizer.decode(ids)
