"""Render a model's chat template, in a sandbox: templates come with models and are not trusted.

Templates get what ``transformers`` gives them: ``messages``, ``add_generation_prompt``, the special tokens by name,
``raise_exception``, ``strftime_now``, a ``tojson`` that leaves HTML alone, loop controls and ``{% generation %}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from workbench.errors import ModelError, RequestError

if TYPE_CHECKING:
    from jinja2 import Environment, Template


class ChatTemplate:
    """A compiled template; raises :class:`~workbench.errors.ModelError` when ``source`` is not one."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        import jinja2

        self._special_tokens = dict(special_tokens)
        try:
            self._template: Template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template cannot be read ({error}): use plain prompts, or repair the template") from error

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The conversation as one text; raises :class:`~workbench.errors.RequestError` for messages that the template refuses."""
        import jinja2

        plain = [_plain_message(number, message) for number, message in enumerate(messages, start=1)]
        if not plain:
            raise RequestError("a chat needs at least one message such as {'role': 'user', 'content': 'Hello'}")
        try:
            return self._template.render(messages=plain, add_generation_prompt=add_generation_prompt, **self._special_tokens)
        except (jinja2.TemplateError, TypeError) as error:
            raise RequestError(f"the model's chat template does not take these messages: {error}") from error


def _environment() -> Environment:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what the assistant wrote; for a prompt it means nothing."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _plain_message(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy made of plain JSON values, with text parts joined; anything else never reaches the template."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RequestError(f"message {number} needs a 'role' (system, user or assistant) and a 'content', not {message!r:.80}")
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(_text_of_part(number, part) for part in content)
    if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise RequestError(f"message {number} needs text as its 'content', not {content!r:.80}")
    try:
        plain: dict[str, Any] = json.loads(json.dumps({**message, "content": content}))
    except (TypeError, ValueError) as error:
        raise RequestError(f"message {number} holds a value that is no plain data ({error})") from error
    return plain


def _text_of_part(number: int, part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise RequestError(f"message {number} has a part that is not text ({part!r:.80}): only text models are supported")


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)
