from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import RequestError
from workbench.prompts import is_silenced, parse_prompts, parse_yaml


def test_each_line_is_one_prompt():
    assert parse_prompts("What is gravity?\nName three primes.\n") == ["What is gravity?", "Name three primes."]


def test_blank_lines_are_no_prompts():
    assert parse_prompts("\n\na\n   \nb\n\n") == ["a", "b"]


def test_separator_lines_make_prompts_of_several_lines():
    assert parse_prompts("first\n  line two\n\nline four\n---\nsecond\n") == ["first\n  line two\n\nline four", "second"]


def test_one_leading_separator_makes_the_whole_cell_one_prompt():
    assert parse_prompts("---\na\nb") == ["a\nb"]


def test_a_separator_inside_a_line_is_text():
    assert parse_prompts("a --- b\n----") == ["a --- b", "----"]


@pytest.mark.parametrize("text", ["{x} {{y}} $HOME $(ls) %d %%", "it's \"quoted\" (and open", "<script>", "tab\tand  spaces", "🙂 é ￼"])
def test_text_reaches_the_model_as_typed(text):
    assert parse_prompts(text) == [text]


@pytest.mark.parametrize("body", ["", "\n", "  \n\t\n", "---\n---\n", ";", "\n;\n"])
def test_a_cell_without_a_prompt_is_refused(body):
    with pytest.raises(RequestError, match="no prompt"):
        parse_prompts(body)


def test_a_last_line_of_a_lone_semicolon_only_silences():
    assert parse_prompts("a\nb\n;\n") == ["a", "b"]
    assert is_silenced("", "a\nb\n;\n")


def test_a_prompt_that_ends_with_a_semicolon_keeps_it():
    assert parse_prompts("int x = 5;") == ["int x = 5;"]


def test_silence_needs_no_valid_python():
    assert not is_silenced("--n 2", "What's this (")
    assert is_silenced("--n 2;", "What's this (")


LINES = st.text(st.characters(exclude_characters="\n\r"), min_size=1).filter(lambda line: line.strip() and line.strip() not in ("---", ";"))


@given(st.lists(LINES, min_size=1))
def test_lines_in_are_prompts_out(lines):
    assert parse_prompts("\n".join(lines)) == lines


def test_yaml_requests_bring_their_own_arrival_priority_and_sampling():
    body = """
- plain
- prompt: urgent
  id: vip
  priority: -1
  arrival_step: 3
  sampling: {max_tokens: 8, stop: ["\\n"]}
- {messages: [{role: user, content: Hi}], arrival_s: 0.5, temperature: 0.7}
- {prompt_token_ids: [1, 2, 3]}
"""
    assert parse_yaml(body) == [
        "plain",
        {"prompt": "urgent", "id": "vip", "priority": -1, "arrival_step": 3, "max_tokens": 8, "stop": ["\n"]},
        {"prompt": [{"role": "user", "content": "Hi"}], "arrival_s": 0.5, "temperature": 0.7},
        {"prompt": [1, 2, 3]},
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "list of requests"),
        ("prompt: x", "list of requests"),
        ("- [unclosed", "not YAML: .* line"),
        ("- {priority: 1}", "request 1 needs exactly one of prompt"),
        ("- {prompt: a, prompt_token_ids: [1]}", "not prompt and prompt_token_ids"),
        ("- ok\n- {prompt: a, priorty: 1}", "request 2: unknown field 'priorty': did you mean 'priority'"),
        ("- {prompt: a, sampling: {max_token: 1}}", "did you mean 'max_tokens'"),
        ("- {prompt: a, sampling: 3}", "sampling must be a mapping"),
        ("- {prompt: a, max_tokens: 0}", "request 1: max_tokens must be at least 1"),
        ("- {prompt: ''}", "prompt must be text"),
        ("- ''", "expected text"),
        ("- {prompt_token_ids: [a]}", "whole numbers"),
        ("- {messages: [{role: user}]}", "role and a content"),
        ("- !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_wrong_yaml_request_is_named(body, says):
    with pytest.raises(RequestError, match=says):
        parse_yaml(body)
