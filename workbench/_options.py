"""Options of ``%%infer`` and of the command line, generated from the knobs of the settings classes.

One :class:`Options` parser serves both faces: every field of ``EngineConfig`` and ``SamplingParams`` becomes an option with
its unit, range and default in the help.  Only what was typed comes back, so a face can lay its own defaults underneath.
It knows nothing of models, engines or notebooks.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from workbench._knobs import Knob, knobs, problem_with
from workbench.config import EngineConfig
from workbench.errors import IntegrityError, WorkbenchError
from workbench.request import SamplingParams

GROUPS = {
    "model": "Model",
    "cache": "KV cache",
    "scheduler": "Scheduler",
    "speculation": "Speculation",
    "engine": "Engine",
    "sampling": "Sampling (every request of the run, unless it says otherwise)",
}
_CONFIG_KNOBS = {knob.name: knob for knob in knobs(EngineConfig)}
_SAMPLING_KNOBS = {knob.name: knob for knob in knobs(SamplingParams)}
KNOBS: dict[str, Knob] = _CONFIG_KNOBS | {  # seed is in both; the engine's own seeds all requests
    name: knob for name, knob in _SAMPLING_KNOBS.items() if name not in _CONFIG_KNOBS
}


class OptionError(WorkbenchError, ValueError):
    """An option is unknown, misspelt, incomplete or has an impossible value."""


class HelpRequested(Exception):  # noqa: N818 - not an error
    """The user asked for ``--help``; ``str()`` of it is the text."""


class Chosen(msgspec.Struct):
    """What was typed: engine knobs, sampling parameters, and the face's own options."""

    config: dict[str, Any]
    sampling: dict[str, Any]
    face: argparse.Namespace

    def settings(self, defaults: dict[str, Any] | None = None) -> tuple[EngineConfig, SamplingParams]:
        """Both settings objects, ``defaults`` underneath; raises ``ConfigError`` or ``RequestError``."""
        known = defaults or {}
        config = {name: value for name, value in known.items() if name in _CONFIG_KNOBS} | self.config
        sampling = {name: value for name, value in known.items() if name in _SAMPLING_KNOBS and name not in _CONFIG_KNOBS}
        return EngineConfig(**config), SamplingParams.of(**sampling | self.sampling)

    def on_existing_engine(self, defaults: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sampling parameters for an engine that is already built, ``defaults`` underneath; typed engine knobs raise ``OptionError``."""
        fixed = [KNOBS[name].flag for name in self.config if name != "seed"]
        if fixed:
            raise OptionError(f"{', '.join(fixed)} cannot be set on an existing engine: leave it out, or leave out --engine for a new one")
        sampling = {name: value for name, value in (defaults or {}).items() if name in _SAMPLING_KNOBS}
        return sampling | self.config | self.sampling


class Options(argparse.ArgumentParser):
    """A parser with every knob and the face's own options; raises :class:`OptionError`, never exits.

    >>> chosen = Options("%%infer").read(["--max-tokens", "8", "--no-enable-prefix-caching"])
    >>> chosen.sampling, chosen.config
    ({'max_tokens': 8}, {'enable_prefix_caching': False})
    >>> Options("%%infer").read(["--max-token", "8"])
    Traceback (most recent call last):
    workbench._options.OptionError: unknown option --max-token: did you mean --max-tokens?
    """

    def __init__(self, prog: str, *, usage: str | None = None, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog, usage=usage, description=description, epilog=epilog, add_help=False, allow_abbrev=False,
            argument_default=argparse.SUPPRESS, formatter_class=_HelpFormatter,
        )  # fmt: skip
        self.face_options = self.add_argument_group("This run")
        self.face_options.add_argument("-h", "--help", action="store_true", help="show this text")
        for group, title in GROUPS.items():
            section = self.add_argument_group(title)
            for knob in KNOBS.values():
                if knob.group == group:
                    _add_option(section, knob)

    def read(self, words: Sequence[str]) -> Chosen:
        """Sort the typed words into engine knobs, sampling parameters and the face's options."""
        chosen, others = self.read_with_words(words)
        if others:
            self._refuse(others[0])
        return chosen

    def read_with_words(self, words: Sequence[str]) -> tuple[Chosen, list[str]]:
        """The same, and the words that are no options."""
        space, others = self.parse_known_args(list(words))
        if getattr(space, "help", False):
            raise HelpRequested(self.format_help())
        for word in others:
            if word.startswith("-") and word != "-":
                self._refuse(word)
        typed = vars(space)
        return Chosen(
            config={name: typed.pop(name) for name in list(typed) if name in _CONFIG_KNOBS},
            sampling={name: typed.pop(name) for name in list(typed) if name in _SAMPLING_KNOBS},
            face=space,
        ), others

    def flags(self) -> dict[str, argparse.Action]:
        """Every option string and its action, for completion."""
        return dict(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        raise OptionError(_plainer(message))

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            raise OptionError(f"unexpected {word!r}: options start with --, see {self.prog} --help")
        flag = word.split("=")[0]
        close = difflib.get_close_matches(flag, self.flags(), n=1)
        raise OptionError(f"unknown option {flag}: " + (f"did you mean {close[0]}?" if close else f"see {self.prog} --help"))


def with_prompt_forms(options: Options) -> Options:
    """The same parser with the options that say how prompts are read."""
    face = options.face_options
    templated = "put each prompt into the model's chat template (default for chat models)"
    face.add_argument("--chat", dest="chat", action="store_true", help=templated)
    face.add_argument("--raw", dest="chat", action="store_false", help="give each prompt to the model as it is")
    face.add_argument("--yaml", action="store_true", help="read a YAML list of requests with their own arrival, priority and sampling")
    return options


def option_value(knob: Knob, text: str) -> Any:
    """The value that ``text`` means for ``knob``; raises ``OptionError`` with what would be right.

    >>> option_value(KNOBS["logit_bias"], "198:-100, 7:2.5")
    {198: -100.0, 7: 2.5}
    """
    try:
        value = text if text in knob.words else _READERS[knob.type](text) if knob.type in _READERS else _read_items(knob, text)
    except ValueError:
        raise OptionError(f"{knob.flag} takes {_takes(knob)}, not {text!r}") from None
    problem = problem_with(knob, value)
    if problem:
        raise OptionError(problem.replace(knob.name, knob.flag, 1))
    return value


def from_user(error: Exception) -> bool:
    """Whether an error is a user's mistake, to be shown as one line, rather than a bug of ours."""
    return isinstance(error, WorkbenchError) and not isinstance(error, IntegrityError)


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def metavar(knob: Knob) -> str:
    """How the help writes a knob's value."""
    if knob.choices:
        return "{" + ",".join(knob.choices) + "}"
    if knob.type is dict:
        return "ID:BIAS,…"
    if knob.item is int:
        return "ID,…"
    return "|".join([{int: "N", float: "X"}.get(knob.type, "TEXT"), *knob.words])


def _add_option(section: argparse._ArgumentGroup, knob: Knob) -> None:
    text = knob.help.replace("%", "%%")
    if knob.type is bool:
        section.add_argument(knob.flag, dest=knob.name, action=argparse.BooleanOptionalAction, help=text)
        return
    section.add_argument(knob.flag, dest=knob.name, metavar=metavar(knob), type=_reader(knob), action=_Set, help=text + _how(knob))


class _Set(argparse.Action):
    """Stores a value; a list option that is given again grows."""

    def __call__(self, parser: argparse.ArgumentParser, space: argparse.Namespace, value: Any, option: str | None = None) -> None:
        before = getattr(space, self.dest, None)
        if isinstance(value, tuple) and before:
            value = before + value
        elif isinstance(value, dict) and before:
            value = before | value
        setattr(space, self.dest, value)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=118)


def _reader(knob: Knob) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return option_value(knob, text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _read_bool(text: str) -> bool:
    if text.lower() in ("true", "on", "yes", "1"):
        return True
    if text.lower() in ("false", "off", "no", "0"):
        return False
    raise ValueError(text)


def _read_bias(text: str) -> dict[int, float]:
    pairs = [pair.split(":") for pair in text.split(",") if pair.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(text)
    return {int(token): float(bias) for token, bias in pairs}


def _read_items(knob: Knob, text: str) -> tuple[Any, ...]:
    if knob.item is str:  # a comma may belong to the text, so such an option is repeated instead
        return (text.replace("\\n", "\n").replace("\\t", "\t"),)
    return tuple(int(part) for part in text.split(",") if part.strip())


_READERS: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str, bool: _read_bool, dict: _read_bias}


def _takes(knob: Knob) -> str:
    if knob.type is dict:
        return "token ids with a bias each, as in 198:-100,7:2.5"
    if knob.item is int:
        return "token ids, as in 2,198"
    return " or ".join([{int: "a whole number", float: "a number", bool: "on or off"}.get(knob.type, "text"), *knob.words])


def _how(knob: Knob) -> str:
    return r" (repeat for more; \n is a newline)" if knob.item is str else ""


def _plainer(message: str) -> str:
    """Argparse's sentence without the option's name in front when ours already has it."""
    if message.startswith("argument "):
        name, _, rest = message.removeprefix("argument ").partition(": ")
        flag = next((part for part in name.split("/") if part.startswith("--")), name)
        return rest if rest.startswith("--") else f"{flag}: {rest}"
    return message


__all__ = [
    "KNOBS",
    "Chosen",
    "HelpRequested",
    "OptionError",
    "Options",
    "from_user",
    "metavar",
    "one_line",
    "option_value",
    "with_prompt_forms",
]
