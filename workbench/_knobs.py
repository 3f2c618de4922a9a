"""Knobs: the one description of a setting that every face is generated from.

A settings class is a frozen msgspec struct whose fields are ``Annotated[type, Meta(...)]``.
:func:`knobs` reads those annotations once per class; the ``%%infer`` options, the command-line
flags, the sliders and the tables in the docs are all made from the :class:`Knob` list, and
:func:`check` validates an instance against it.  Adding a knob is therefore one field in one class.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from workbench.errors import WorkbenchError

Kind = type[Any]  # the field below is called ``type``, which would hide the builtin


class Knob(msgspec.Struct, frozen=True):
    """One setting, as the faces need to know it.

    ``type`` is the plain Python type (``int``, ``float``, ``bool``, ``str``, ``list``, ``dict``), ``item`` the
    element type of a list, ``words`` what may be written instead of a number.  ``live`` says whether the value may change between two
    steps of a running engine, ``fork`` whether a fork may change it as well.
    """

    name: str
    type: Kind
    default: Any
    doc: str
    unit: str = ""
    group: str = ""
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # that may stand in the place of a number
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    item: Kind | None = None
    optional: bool = False
    live: bool = False
    fork: bool = False

    @property
    def flag(self) -> str:
        """The option that sets this knob on a command line: ``--max-num-seqs``."""
        return "--" + self.name.replace("_", "-")

    @property
    def help(self) -> str:
        """One line for ``?`` and ``--help``: meaning, unit, range and default."""
        notes = [note for note in (self.unit, self._range(), self._default()) if note]
        return f"{self.doc} [{'; '.join(notes)}]" if notes else self.doc

    def _range(self) -> str:
        low = f"≥ {self.ge:g}" if self.ge is not None else f"> {self.gt:g}" if self.gt is not None else ""
        high = f"≤ {self.le:g}" if self.le is not None else ""
        return ", ".join(part for part in (low, high) if part)

    def _default(self) -> str:
        if self.default is None:
            return "default: chosen for you" if self.group != "sampling" else "default: off"
        if self.type is bool:
            return "default: on" if self.default else "default: off"
        if self.default == ():
            return "default: none"
        return f"default: {self.default:g}" if self.type is float else f"default: {self.default}"


@cache
def knobs(cls: type[msgspec.Struct]) -> tuple[Knob, ...]:
    """The knobs of a settings class, in field order."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_knob(field, hints[field.name]) for field in msgspec.structs.fields(cls))


def check(settings: msgspec.Struct, error: type[WorkbenchError]) -> None:
    """Raise ``error`` for the first value of ``settings`` that its knob does not allow."""
    for knob in knobs(type(settings)):
        problem = problem_with(knob, getattr(settings, knob.name))
        if problem:
            raise error(problem)


def problem_with(knob: Knob, value: Any) -> str | None:
    """What is wrong with ``value`` for this knob, as a sentence; ``None`` when it is fine."""
    if value is None:
        return None if knob.optional else f"{knob.name} must be given"
    if knob.choices:
        return None if value in knob.choices else f"{knob.name} must be one of {_listed(knob.choices)}, not {value!r}"
    if type(value) is str and value in knob.words:
        return None
    if knob.type is float and type(value) is int:
        value = float(value)
    if type(value) is not knob.type:
        return f"{knob.name} must be {' or '.join([_article(knob.type), *map(repr, knob.words)])}, not {value!r}"
    if knob.type in (int, float):
        return _problem_with_number(knob, value)
    if knob.item is not None and not all(type(entry) is knob.item for entry in value):
        return f"{knob.name} must hold only {knob.item.__name__} values, not {value!r}"
    return None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence for a misspelt name that offers the closest known one."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"unknown {kind} {name!r}" + (f": did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}")


def _problem_with_number(knob: Knob, value: Any) -> str | None:
    if not math.isfinite(value):
        return f"{knob.name} must be a finite number, not {value!r}"
    if knob.ge is not None and value < knob.ge:
        return f"{knob.name} must be at least {knob.ge:g}, not {value:g}"
    if knob.gt is not None and value <= knob.gt:
        return f"{knob.name} must be greater than {knob.gt:g}, not {value:g}"
    if knob.le is not None and value > knob.le:
        return f"{knob.name} must be at most {knob.le:g}, not {value:g}"
    return None


def _knob(field: msgspec.structs.FieldInfo, hint: Any) -> Knob:
    meta = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Meta)), Meta())
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    options = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
    kinds = [option for option in options if option is not type(None)]
    kind, extra = kinds[0], meta.extra or {}
    words = [word for other in kinds[1:] if get_origin(other) is Literal for word in get_args(other)]
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    origin = get_origin(kind)
    return Knob(
        name=field.name,
        type=str if origin is Literal else origin or kind,
        default=None if default is msgspec.NODEFAULT else default,
        doc=meta.description or "",
        unit=extra.get("unit", ""),
        group=extra.get("group", ""),
        choices=get_args(kind) if origin is Literal else (),
        words=tuple(words),
        ge=meta.ge,
        gt=meta.gt,
        le=meta.le,
        item=get_args(kind)[0] if origin in (list, tuple) else None,
        optional=len(kinds) < len(options),
        live=extra.get("live", False),
        fork=extra.get("live", False) or extra.get("fork", False),
    )


def _listed(choices: tuple[str, ...]) -> str:
    return ", ".join(repr(choice) for choice in choices)


def _article(kind: Kind) -> str:
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text", tuple: "a sequence", dict: "a mapping"}
    return names.get(kind, kind.__name__)
