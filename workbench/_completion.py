"""Tab completion of ``%%infer`` and ``%infer``: one matcher, built from the option parser.

It answers only on the magic's own lines.  There it asks IPython to drop everybody else's suggestions: ``--max`` should offer
``--max-tokens`` and not Python's ``max``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from typing import Any

from workbench._options import Options

Names = Callable[[], Iterable[str]]


class InferMatcher:
    """A matcher of IPython's completion API, version 2.

    ``values`` gives, per option name, a function that lists what may follow (model names, variables).
    """

    matcher_api_version = 2
    matcher_identifier = "workbench.infer"
    matcher_priority = 100.0

    def __init__(self, options: Options, subcommands: Iterable[str], values: dict[str, Names]) -> None:
        self.__qualname__ = self.matcher_identifier  # IPython reads it of every matcher, as if all were functions
        self._flags = options.flags()
        self._subcommands = tuple(subcommands)
        self._values = values

    def __call__(self, context: Any) -> dict[str, Any]:
        from IPython.core.completer import SimpleCompletion

        kind = _place(context.full_text, context.cursor_line, context.text_until_cursor)
        if kind is None:
            return {"completions": [], "suppress": False}
        fragment, found = self._suggest(kind, context.text_until_cursor)

        return {
            "completions": [SimpleCompletion(text=text, type=what) for text, what in found],
            "matched_fragment": fragment,
            "suppress": True,
        }

    def _suggest(self, kind: str, text: str) -> tuple[str, list[tuple[str, str]]]:
        words = text.split(" ")
        before, word = words[-2] if len(words) > 1 else "", words[-1]
        if kind == "line":
            return word, [(name, "keyword") for name in self._subcommands if name.startswith(word)] if len(text.split()) <= 2 else []
        flag, equals, part = word.partition("=")
        if equals and flag in self._flags:
            return part, self._choices(self._flags[flag], part)
        action = self._flags.get(before)
        if action is not None and action.nargs != 0:
            return word, self._choices(action, word)
        if word and not word.startswith("-"):
            return word, []
        return word, [(flag, "option") for flag in self._flags if flag.startswith(word) and (len(flag) > 2 or word == flag)]

    def _choices(self, action: argparse.Action, start: str) -> list[tuple[str, str]]:
        if action.dest in self._values:
            offered: Iterable[str] = self._values[action.dest]()
        else:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            offered = metavar[1:-1].split(",") if metavar.startswith("{") else ()
        return [(name, "value") for name in offered if name.startswith(start)]


def _place(full_text: str, cursor_line: int, text: str) -> str | None:
    """Where the cursor is: the ``options`` line of a cell, a ``line`` magic, or ``None`` for elsewhere, a cell's prompts included."""
    lines = full_text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if re.match(r"\s*%%infer(\s|$)", lines[first]):
        return "options" if cursor_line == first and re.match(r"\s*%%infer\s", text) else None
    return "line" if re.match(r"\s*%infer\s", text) else None
