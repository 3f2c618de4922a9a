"""What was changed between two runs: settings, requests, arrivals, and commands between steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from workbench.comparison.pairing import Pairing, arrivals, names
from workbench.events import Command, StepRecord
from workbench.rebuild import config_before, originals
from workbench.render._format import plural, shorten
from workbench.request import Request
from workbench.trace import Trace

_MAX_NOTES = 12
_IDENTITY = ("id", "prompt", "prompt_token_ids", "arrival_step", "arrival_s", "parent", "index", "sampling")


class Changes:
    """Notes about two traces, in sentences."""

    def __init__(self, pairing: Pairing) -> None:
        self._pairing = pairing
        self._a, self._b = pairing.trace_a, pairing.trace_b
        self._requests = originals(self._a), originals(self._b)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Every change, those of the beginning first; more than a dozen are counted."""
        found = [*self._taken(), *self._arrivals, *self._settings(), *self._asked(), *self._commands()]
        if len(found) > _MAX_NOTES:
            found[_MAX_NOTES - 1 :] = [f"… and {plural(len(found) - _MAX_NOTES + 1, 'more change')}."]
        return tuple(found)

    @property
    def same_arrivals(self) -> bool:
        """Whether both were given the same prompts at the same times."""
        return not self._arrivals

    def _taken(self) -> Iterator[str]:
        """Requests that only their prompts tell."""
        taken = self._pairing.taken
        if taken:
            verb, what = ("is", "the same prompt") if len(taken) == 1 else ("are", "the same prompts in the same order")
            yield f"{_listed(list(taken))} in b {verb} taken for {_listed(list(taken.values()))} in a: {what}."

    @cached_property
    def _arrivals(self) -> list[str]:
        found = list(self._different_arrivals())
        if found:
            both = plural(len(self._pairing.common), "request")
            found.insert(0, f"These are not the same arrivals: compared are the {both} that both have.")
        return found

    def _different_arrivals(self) -> Iterator[str]:
        in_a, in_b = names(self._a), names(self._b)
        for letter, only in (("a", in_a - in_b), ("b", in_b - in_a)):
            if only:
                yield f"Only in {letter}: {_listed(sorted(only, key=_natural))}."
        other_prompt, other_time = [], []
        when_a, when_b = arrivals(self._pairing.a), arrivals(self._pairing.b)
        for name in sorted(self._pairing.common, key=_natural):
            a, b = (requests.get(name) for requests in self._requests)
            if a is None or b is None:
                continue
            if a.prompt_token_ids != b.prompt_token_ids:
                other_prompt.append(name)
            if (a.arrival_step, a.arrival_s) != (b.arrival_step, b.arrival_s) or (
                a.arrival_step is a.arrival_s is None and when_a.get(name) != when_b.get(name) and name in when_a and name in when_b
            ):
                other_time.append(name)
        if other_prompt:
            yield f"Other prompts in a and b: {_listed(other_prompt)}."
        if other_time:
            yield f"Other times of arrival in a and b: {_listed(other_time)}."

    def _settings(self) -> Iterator[str]:
        if self._a.model.name != self._b.model.name:
            yield f"The model is {self._a.model.name} in a, {self._b.model.name} in b."
        pools = _pool_at_first(self._a), _pool_at_first(self._b)
        if pools[0] != pools[1]:
            yield f"The pool has {plural(pools[0], 'block')} in a, {pools[1]:,} in b."
        configs = [config_before(trace, trace.first_step) for trace in (self._a, self._b)]
        for name in configs[0].__struct_fields__:
            mine, theirs = (getattr(config, name) for config in configs)
            if mine != theirs and name not in ("model", "num_blocks"):
                yield f"{name} is {mine!r} in a, {theirs!r} in b."

    def _asked(self) -> Iterator[str]:
        """Requests that both have and that ask otherwise."""
        for name in sorted(self._pairing.common, key=_natural):
            a, b = (requests.get(name) for requests in self._requests)
            if a is None or b is None or a == b:
                continue
            theirs = _fields(b)
            other = [f"{field} {mine!r} in a, {theirs[field]!r} in b" for field, mine in _fields(a).items() if mine != theirs[field]]
            if other:
                yield f"{name} asks otherwise: {', '.join(other)}."

    def _commands(self) -> Iterator[str]:
        """What was done between steps in one of them only."""
        for a, b in self._pairing:
            mine, theirs = _done(a), _done(b)
            for letter, here, there in (("a", mine, theirs), ("b", theirs, mine)):
                step = (a if letter == "a" else b).step
                yield from (f"Before step {step} {letter} {_in_words(command)}." for command in here if command not in there)


def _done(record: StepRecord) -> list[Command]:
    return [msgspec.structs.replace(command, at_s=0.0) for command in record.commands if command.kind != "add"]


def _in_words(command: Command) -> str:
    match command.kind:
        case "abort":
            return f"aborted {command.request_id}"
        case "reset":
            return "emptied its prefix cache"
        case "abandoned":
            return "took a plan back, whose execution failed or was interrupted"
    changed = ", ".join(f"{name} from {_short(command.before.get(name))} to {_short(value)}" for name, value in command.after.items())
    return f"changed {changed}" + (f" of {command.request_id}" if command.request_id else "")


def _short(value: Any) -> str:
    return plural(len(value), "token id") if isinstance(value, list | tuple) and len(value) > 4 else shorten(repr(value), 40)


def _pool_at_first(trace: Trace) -> int:
    first = trace.records[0]
    sizes = [command.before["num_blocks"] for command in first.commands if command.before.get("num_blocks") is not None]
    return int(sizes[0]) if sizes else first.kv.total


def _fields(request: Request) -> dict[str, Any]:
    own = {name: getattr(request, name) for name in request.__struct_fields__ if name not in _IDENTITY}
    return own | msgspec.structs.asdict(request.sampling)


def _listed(found: list[str]) -> str:
    return ", ".join(found[:8]) + (f" and {len(found) - 8:,} more" if len(found) > 8 else "")


def _natural(name: str) -> tuple[int, str]:
    return len(name), name
