"""What a screen may ask for: each op is a function of the view's sources and the ask, and returns the answer's value.

Errors of ours go back as their one line; everything that changes an engine happens between two of its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from workbench.errors import IntegrityError, RequestError, TraceError, ViewError, WorkbenchError
from workbench.tape.why import why_payload
from workbench.trace import Trace
from workbench.view.sources import Source, Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RUNS = 6  # in one view: each branch has a KV cache of its own while it runs

Ask = Mapping[str, Any]


class Stage(Protocol):
    """The view, as commands need it."""

    @property
    def sources(self) -> Sequence[Source]:
        """Its runs."""
        ...

    def join(self, run: Watched | Trace, *, parent: int | None = None) -> Source:
        """Show another run."""
        ...


def answer(stage: Stage, ask: Ask) -> dict[str, Any]:
    """Do what was asked, and say what came of it: the reply's ``ok`` and ``value``, or ``error``."""
    try:
        return {"ok": True, "value": _do(stage, ask)}
    except IntegrityError as error:
        return {"ok": False, "error": f"a bug of ours, please report it: {error}"}
    except (WorkbenchError, IndexError) as error:
        return {"ok": False, "error": str(error)}
    except Exception as error:
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def _do(stage: Stage, ask: Ask) -> Any:
    op = OPS.get(str(ask.get("op")))
    if op is None:
        raise ViewError(f"there is no op {ask.get('op')!r}; there are: {', '.join(OPS)}")
    number = ask.get("run")
    if type(number) is not int or not 0 <= number < len(stage.sources):
        raise ViewError(f"there is no run {number!r} in this view; it has {len(stage.sources)}")
    return op(stage, stage.sources[number], ask)


def _run(source: Source) -> Watched:
    if source.run is None:
        raise ViewError(f"{source.name} is only a trace: Engine.from_trace(trace) makes an engine that can step, go back and fork")
    return source.run


def _why(stage: Stage, source: Source, ask: Ask) -> Any:
    step = _step(ask)
    way_back = source.run.way_back(step) if source.run is not None else None
    return why_payload(source.trace, step, scheduler_at=way_back)


def _pause(stage: Stage, source: Source, ask: Ask) -> None:
    _run(source).pause()


def _resume(stage: Stage, source: Source, ask: Ask) -> None:
    _run(source).resume(background=True)


def _take_step(stage: Stage, source: Source, ask: Ask) -> int:
    return _run(source).step().step


def _stop(stage: Stage, source: Source, ask: Ask) -> None:
    _run(source).stop()


def _rewind(stage: Stage, source: Source, ask: Ask) -> None:
    _run(source).rewind(_step(ask))


def _fork(stage: Stage, source: Source, ask: Ask) -> dict[str, int]:
    run, changes = _run(source), ask.get("changes") or {}
    if len(stage.sources) >= MAX_RUNS:
        raise ViewError(f"this view shows {MAX_RUNS} runs already: run.fork(…).view() in a cell opens another view")
    if not isinstance(changes, Mapping):
        raise RequestError(f"the changes of a fork are settings by name, not {changes!r}")
    branch = run.fork(_step(ask), **changes)
    joined = stage.join(branch, parent=source.number)
    branch.when_done(branch.engine.park)  # its numbers stay; its KV cache is computed again should somebody go back in it
    if ask.get("resume"):
        branch.resume(background=True)
    return {"run": joined.number}


def _change(stage: Stage, source: Source, ask: Ask) -> None:
    knobs = ask.get("knobs")
    if not isinstance(knobs, Mapping) or not knobs:
        raise RequestError("change takes settings by name, and got none")
    _run(source).engine.change(**knobs)


def _abort(stage: Stage, source: Source, ask: Ask) -> None:
    name = str(ask.get("request"))
    if not _run(source).engine.abort(name):
        raise RequestError(f"{name} is not in the engine (any more)")


def _add(stage: Stage, source: Source, ask: Ask) -> str:
    prompt, tokens = ask.get("prompt"), ask.get("max_tokens")
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError("the prompt is empty: write a few words")
    return _run(source).add(prompt, **({} if tokens is None else {"max_tokens": tokens})).id


def _step(ask: Ask) -> int:
    step = ask.get("step")
    if type(step) is not int:
        raise TraceError(f"a step is a whole number, not {step!r}")
    return step


OPS: dict[str, Callable[[Stage, Source, Ask], Any]] = {
    "why": _why,
    "pause": _pause,
    "resume": _resume,
    "step": _take_step,
    "stop": _stop,
    "rewind": _rewind,
    "fork": _fork,
    "change": _change,
    "abort": _abort,
    "add": _add,
}
SLOW = ("why", "fork")  # these must not keep a pause waiting
"""Ops that take long enough to be done beside the others."""
