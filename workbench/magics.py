"""``%%infer`` and ``%infer``: the engine from a notebook cell.

The magics know IPython, the options and a :class:`~workbench._session.Session`.  They draw nothing themselves: the run they return
does.  The engine steps on the run's own thread while the cell waits, so ■ Interrupt always lands here and ends the run
between two steps.
"""

from __future__ import annotations

import atexit
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class
from traitlets import TraitError, TraitType

from workbench._completion import InferMatcher
from workbench._knobs import Knob, problem_with, unknown_name
from workbench._listing import Listing
from workbench._options import KNOBS, Chosen, HelpRequested, OptionError, Options, from_user, one_line, with_prompt_forms
from workbench._session import Session, model_names, wait_for
from workbench.errors import RequestError
from workbench.interrupts import held_back
from workbench.prompts import is_silenced, parse_prompts, parse_yaml
from workbench.render.progress import LiveText
from workbench.view.display import LiveCell, can_show, in_colab

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from workbench.engine import Engine
    from workbench.run import Run

SUBCOMMANDS = {
    "status": "what is loaded and what runs now",
    "list": "the runs of this kernel",
    "last": "the latest run, as a value",
    "stop": "stop every run that is under way",
    "models": "models at hand, and which are loaded",
    "config": "every knob with the default of this notebook; name one to see it alone",
    "help": "every option of %%infer",
}


def cell_options() -> Options:
    """The parser of the ``%%infer`` line."""
    options = Options("%%infer", usage="%%infer [options]\n<prompts>", description=_ABOUT, epilog=_NOTES)
    face = options.face_options
    face.add_argument("-o", "--out", metavar="NAME", help="bind the result to this variable")
    face.add_argument("--engine", metavar="NAME", help="run on this variable's Engine instead of a fresh one")
    face.add_argument("--background", action="store_true", help="return at once: the view's buttons steer the run while other cells go on")
    face.add_argument("--paused", action="store_true", help="like --background, but stand before the first step: press play or step")
    face.add_argument("--keep-live", action="store_true", help="leave the live view in place of the static result")
    face.add_argument("--no-player", action="store_true", help="a static result without the player, as small as possible")
    return with_prompt_forms(options)


class KnobTrait(TraitType[Any, Any]):
    """A ``%config`` default for one knob, checked like the knob itself."""

    def __init__(self, knob: Knob) -> None:
        super().__init__(default_value=knob.default, allow_none=knob.optional, help=knob.help, config=True)
        self._knob = knob

    def validate(self, obj: Any, value: Any) -> Any:
        """Traitlets' hook: the value to keep, or ``TraitError``."""
        value = tuple(value) if isinstance(value, list) else value
        problem = problem_with(self._knob, value)
        if problem:
            raise TraitError(problem)
        return value


_make_class: Any = type(Magics)  # traitlets' metaclass, which turns the traits into attributes
_Defaults: Any = _make_class("_Defaults", (Magics,), {name: KnobTrait(knob) for name, knob in KNOBS.items()})


@magics_class
class InferMagics(_Defaults):  # type: ignore[misc]
    """The magics of one shell; ``%config InferMagics.max_tokens = 32`` sets a default for the following cells."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.session = Session()
        self.options = cell_options()
        values = {"model": model_names, "engine": self._engine_names, "out": self._variable_names}
        self.matcher = InferMatcher(self.options, SUBCOMMANDS, values)

    @line_cell_magic
    def infer(self, line: str, cell: str | None = None) -> Any:
        """Replaced below by the generated help, which is what ``%%infer?`` shows."""
        try:
            result = self._subcommand(line.rstrip(" ;")) if cell is None else self._run_cell(line.rstrip(" ;"), cell)
        except HelpRequested as asked:
            print(asked)
            return None
        except Exception as error:
            if from_user(error):
                raise UsageError(one_line(error)) from None
            raise
        return None if is_silenced(line, cell) else result

    def defaults(self) -> dict[str, Any]:
        """What ``%config`` changed."""
        return {name: getattr(self, name) for name, knob in KNOBS.items() if getattr(self, name) != knob.default}

    def _run_cell(self, line: str, cell: str) -> Run:
        chosen = self.options.read(_words(line))
        face = chosen.face
        prompts = parse_yaml(cell) if "yaml" in face else parse_prompts(cell)
        out = _variable(getattr(face, "out", None))
        engine, params = self._engine_for(chosen)
        later, shows = "background" in face or "paused" in face, can_show()
        live = None if later or shows else LiveText()
        on_step = live.on_step if live else None
        paused = "paused" in face or shows  # a view is there before the first step
        with suppress(KeyboardInterrupt), held_back():  # an interrupt finds a whole run and its view
            run = engine.run(prompts, chat=getattr(face, "chat", None), background=True, paused=paused, on_step=on_step, **params)
            run.with_player = "no_player" not in face
            run.name = self.session.remember(run, out)
            if out:
                self.shell.push({out: run})
            if live:
                wait_for(run, live)
            elif shows:
                self._show(run, chosen, wait=not later or in_colab())
        return run

    def _show(self, run: Run, chosen: Chosen, *, wait: bool) -> None:
        """Let the run go on under its live view."""
        cell = LiveCell(run, keep="keep_live" in chosen.face, result_comes=wait)
        if "paused" not in chosen.face:
            run.resume(background=True)
        if wait:
            wait_for(run, cell)

    def _engine_for(self, chosen: Chosen) -> tuple[Engine, dict[str, Any]]:
        name = getattr(chosen.face, "engine", None)
        if name is None:
            config, sampling = chosen.settings(self.defaults())
            return self.session.engine(config), {"sampling": sampling}
        return self._existing_engine(name), chosen.on_existing_engine(self.defaults())

    def _existing_engine(self, name: str) -> Engine:
        from workbench.engine import Engine

        engine = self.shell.user_ns.get(name)
        if isinstance(engine, Engine):
            return engine
        known = ", ".join(self._engine_names()) or "none so far"
        what = f"{name} is a {type(engine).__name__}, not an Engine" if name in self.shell.user_ns else f"there is no variable {name!r}"
        raise OptionError(f"--engine: {what}; engines in this notebook: {known}")

    def _subcommand(self, line: str) -> Any:
        words = _words(line) or ["help"]
        if words[0] not in SUBCOMMANDS:
            raise OptionError(_hint(words[0]))
        if len(words) > 1 and words[0] != "config":
            raise OptionError(f"%infer {words[0]} takes no more words, but got {' '.join(words[1:])!r}")
        return getattr(self, f"_{words[0]}")(*words[1:])

    def _help(self) -> None:
        print("\n".join(f"%infer {name:<8}{text}" for name, text in SUBCOMMANDS.items()) + "\n\n" + self.options.format_help())

    def _last(self) -> Run:
        if self.session.last is None:
            raise RequestError("there is no run yet: write prompts in a %%infer cell")
        return self.session.last

    def _stop(self) -> Listing:
        stopped = self.session.stop()
        for _, run in stopped:
            run.wait()
        return _runs("Stopped" if stopped else "Nothing is running", stopped)

    def _list(self) -> Listing:
        return _runs("Runs", self.session.runs, "%infer last gives the latest as a value" if self.session.runs else "none yet")

    def _status(self) -> Listing:
        active = self.session.active()
        loaded = ", ".join(f"{model.name} ({model.facts.dtype}, {model.facts.device})" for model in self.session.models.values())
        return _runs("Running now" if active else "Nothing is running", active, f"loaded: {loaded or 'no model yet'}")

    def _models(self) -> Listing:
        from workbench.models.store import list_models

        loaded = {model.name for model in self.session.models.values()}
        rows = [(entry.name, "loaded" if entry.name in loaded else entry.state, entry.description) for entry in list_models()]
        return Listing("Models", ("name", "where", "what"), rows, "a folder, a GGUF file or a hub id works as well: --model PATH")

    def _config(self, *names: str) -> Listing:
        for name in names:
            if name.lstrip("-").replace("-", "_") not in KNOBS:
                raise OptionError(unknown_name("knob", name, KNOBS))
        wanted = {name.lstrip("-").replace("-", "_") for name in names} or set(KNOBS)
        rows = [(name, _shown(getattr(self, name)), knob.unit, knob.doc) for name, knob in KNOBS.items() if name in wanted]
        return Listing("Defaults of %%infer", ("knob", "value", "unit", "meaning"), rows, "%config InferMagics.max_tokens = 32 sets one")

    def _engine_names(self) -> list[str]:
        from workbench.engine import Engine

        return sorted(name for name, value in self.shell.user_ns.items() if isinstance(value, Engine) and not name.startswith("_"))

    def _variable_names(self) -> list[str]:
        hidden = getattr(self.shell, "user_ns_hidden", {})
        return sorted(name for name in self.shell.user_ns if not name.startswith("_") and name not in hidden)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Give a shell ``%%infer``, ``%infer`` and their completion: ``%load_ext workbench``."""
    magics = InferMagics(shell)
    shell.register_magics(magics)
    shell.Completer.custom_matchers.append(magics.matcher)
    atexit.register(magics.session.stop)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics back and stop what still runs."""
    magics = shell.magics_manager.registry.pop("InferMagics", None)
    if magics is None:
        return
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("infer", None)
    shell.Completer.custom_matchers[:] = [matcher for matcher in shell.Completer.custom_matchers if matcher is not magics.matcher]
    shell.configurables[:] = [configurable for configurable in shell.configurables if configurable is not magics]
    magics.session.stop()
    atexit.unregister(magics.session.stop)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise OptionError(f"cannot read the option line: {str(error).lower()}") from None


def _variable(name: str | None) -> str | None:
    if name is not None and not name.isidentifier():
        raise OptionError(f"-o takes the name of a variable, not {name!r}")
    return name


def _hint(word: str) -> str:
    if word.startswith("-"):
        return "options belong to a %%infer cell with prompts below; %infer takes " + ", ".join(SUBCOMMANDS)
    return unknown_name("subcommand", word, SUBCOMMANDS) + "; %infer help lists them"


def _runs(title: str, runs: list[tuple[str, Run]], hint: str = "") -> Listing:
    rows: list[tuple[object, ...]] = []
    for name, run in runs:
        tokens = sum(len(output.token_ids) for output in run.outputs)
        rows.append((name, run.status, len(run.outputs), len(run.trace), tokens))
    return Listing(title, ("run", "status", "requests", "steps", "tokens"), rows, hint)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "–"
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


_ABOUT = "Run the prompts of this cell through an inference engine and record every step."
_NOTES = """The body is one prompt per line; a line --- switches to prompts of several lines, divided by --- lines.
It is data: nothing in it is expanded. With --yaml it is a list of requests with settings of their own, such as
  - {prompt: Hi, arrival_step: 3, priority: -1, sampling: {max_tokens: 8}}

■ Interrupt ends the run and returns what there is. The result is the cell's value (_ and Out); a last ; hides it."""

InferMagics.infer.__doc__ = cell_options().format_help()
