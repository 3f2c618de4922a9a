"""The body of a ``%%infer`` cell as prompts: pure text in, values for ``Engine.run`` out.

A prompt is data.  Nothing is interpolated, escaped or trimmed but line ends, so braces, ``$`` and quotes reach the model as
typed.  Three forms: one prompt per line; sections between ``---`` lines, for prompts of several lines; and YAML, where each
request brings its own arrival, priority and sampling.
"""

from __future__ import annotations

from typing import Any

import msgspec

from workbench._knobs import unknown_name
from workbench.errors import RequestError
from workbench.request import SamplingParams

Prompt = str | dict[str, Any]

SEPARATOR = "---"
_CONTENT = ("prompt", "messages", "prompt_token_ids")
_OWN = ("id", "priority", "arrival_step", "arrival_s", "chat", "sampling")


def parse_prompts(body: str) -> list[Prompt]:
    r"""Split a cell's body into prompts, one per line, or by ``---`` lines when there is one.

    Blank lines between prompts are dropped; a last line of a lone ``;`` only silences the cell.  Raises ``RequestError`` when
    nothing is left.

    >>> parse_prompts("What is {gravity}?\n\nThree primes, $5 each\n")
    ['What is {gravity}?', 'Three primes, $5 each']
    >>> parse_prompts("a\nb\n---\nc")
    ['a\nb', 'c']
    """
    lines = [line.rstrip("\r") for line in body.split("\n")]
    while lines and lines[-1].strip() in ("", ";"):
        lines.pop()
    if any(line.rstrip() == SEPARATOR for line in lines):
        found = ["\n".join(section) for section in _sections(lines)]
    else:
        found = lines
    prompts: list[Prompt] = [prompt for prompt in found if prompt.strip()]
    if not prompts:
        raise RequestError("the cell has no prompt: write one prompt per line, or several lines between --- lines")
    return prompts


def parse_yaml(body: str) -> list[Prompt]:
    r"""Read a YAML list of requests: plain strings, or mappings with ``prompt`` (or ``messages``, or ``prompt_token_ids``).

    A mapping may hold ``id``, ``priority``, ``arrival_step``, ``arrival_s``, ``chat``, and sampling parameters, either beside these or
    under ``sampling``.  Raises ``RequestError`` that names the entry.

    >>> parse_yaml("- Hello\n- {prompt: Hi, arrival_step: 4, sampling: {max_tokens: 8}}")
    ['Hello', {'prompt': 'Hi', 'arrival_step': 4, 'max_tokens': 8}]
    """
    import yaml

    try:
        entries = yaml.safe_load(body.rstrip().removesuffix("\n;"))
    except yaml.YAMLError as error:
        raise RequestError(f"the cell is not YAML: {_where(error)}") from None
    if not isinstance(entries, list) or not entries:
        raise RequestError('--yaml wants a list of requests, each line starting with "- ", with a prompt each')
    return [_entry(number, entry) for number, entry in enumerate(entries, start=1)]


def is_silenced(line: str, body: str | None) -> bool:
    """Whether the user ended the option line or the cell with ``;``, Jupyter's way to hide a result.

    IPython's own check reads the cell as Python and fails on a prompt with an apostrophe, so we look ourselves.
    """
    return line.rstrip().endswith(";") or (body or "").rstrip().endswith(";")


def _sections(lines: list[str]) -> list[list[str]]:
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.rstrip() == SEPARATOR:
            sections.append([])
        else:
            sections[-1].append(line)
    return [_without_blank_edges(section) for section in sections]


def _without_blank_edges(lines: list[str]) -> list[str]:
    filled = [index for index, line in enumerate(lines) if line.strip()]
    return lines[filled[0] : filled[-1] + 1] if filled else []


def _entry(number: int, entry: Any) -> Prompt:
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        entry = str(entry)  # "- 42" is a prompt, too
    if isinstance(entry, str) and entry.strip():
        return entry
    if not isinstance(entry, dict):
        raise RequestError(f"request {number}: expected text or a mapping with a prompt, not {entry!r}")
    given = [name for name in _CONTENT if name in entry]
    if len(given) != 1:
        found = f", not {' and '.join(given)}" if given else ""
        raise RequestError(f"request {number} needs exactly one of prompt, messages and prompt_token_ids{found}")
    nested = entry.get("sampling") or {}
    if not isinstance(nested, dict):
        raise RequestError(f"request {number}: sampling must be a mapping such as {{max_tokens: 8}}, not {nested!r}")
    fields = {name: value for name, value in entry.items() if name not in (*_CONTENT, "sampling")}
    _check_names(number, fields, nested)
    return {"prompt": _content(number, given[0], entry[given[0]]), **fields, **nested}


def _check_names(number: int, fields: dict[str, Any], nested: dict[str, Any]) -> None:
    sampling = SamplingParams.__struct_fields__
    for kind, names, known in (("field", fields, (*_CONTENT, *_OWN, *sampling)), ("sampling parameter", nested, sampling)):
        for name in names:
            if name not in known:
                raise RequestError(f"request {number}: {unknown_name(kind, str(name), known)}")
    try:
        SamplingParams.of(**{name: value for name, value in {**fields, **nested}.items() if name in sampling})
    except RequestError as error:
        raise RequestError(f"request {number}: {error}") from None


def _content(number: int, kind: str, value: Any) -> Any:
    if kind == "prompt" and isinstance(value, str) and value.strip():
        return value
    if kind == "prompt_token_ids" and isinstance(value, list) and value and all(type(token) is int for token in value):
        return value
    if kind == "messages" and isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
        return [_message(number, message) for message in value]
    wanted = {"prompt": "text", "prompt_token_ids": "a list of whole numbers", "messages": "a list of {role: …, content: …}"}[kind]
    raise RequestError(f"request {number}: {kind} must be {wanted}, not {msgspec.json.encode(value, enc_hook=str).decode()}")


def _message(number: int, message: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
        raise RequestError(f"request {number}: each message needs a role and a content, both text")
    return message


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark else problem
