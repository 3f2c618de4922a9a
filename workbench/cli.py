"""``workbench``: the command line.

``workbench infer`` takes the options of ``%%infer`` and does the same in a terminal.  Exit codes: 0 done, 1 it failed, 2 the command
line is wrong, 130 interrupted (with the partial result printed).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workbench
from workbench._knobs import unknown_name
from workbench._options import HelpRequested, OptionError, Options, from_user, one_line, with_prompt_forms
from workbench.prompts import Prompt, parse_prompts, parse_yaml

if TYPE_CHECKING:
    from workbench.run import Run

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
START_NOTEBOOK = "00_start.ipynb"
_EPILOG = "workbench COMMAND --help says more about each"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _command(words)
    except HelpRequested as asked:
        print(asked)
        return DONE
    except OptionError as error:
        return _complain(error, USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        return DONE
    except Exception as error:
        if from_user(error):
            return _complain(error, FAILED)
        raise


def infer_options() -> Options:
    """The parser of ``workbench infer``."""
    options = Options(
        "workbench infer",
        usage="workbench infer [options] PROMPT…   (- reads prompts from standard input)",
        description="Run prompts through an inference engine and show the text, the numbers and what each step did.",
        epilog="Words after -- are prompts, even when they start with a dash.",
    )
    options.face_options.add_argument("--json", action="store_true", help="print outputs, steps and metrics as JSON and nothing else")
    options.face_options.add_argument("--save", metavar="FILE", help="write the trace; load_trace(FILE) opens it")
    return with_prompt_forms(options)


def infer(words: list[str]) -> int:
    """``workbench infer``."""
    options = infer_options()
    dash = words.index("--") if "--" in words else len(words)
    chosen, texts = options.read_with_words(words[:dash])
    prompts = _prompts([*texts, *words[dash + 1 :]], as_yaml="yaml" in chosen.face)
    config, sampling = chosen.settings()
    from workbench._session import Session, wait_for
    from workbench.render.progress import LiveText

    live = None if "json" in chosen.face else LiveText()
    with Session().engine(config) as engine:
        run = engine.run(
            prompts, chat=getattr(chosen.face, "chat", None), sampling=sampling, background=True, on_step=live.on_step if live else None
        )
        interrupted = wait_for(run, live)
    if "save" in chosen.face:
        run.save(chosen.face.save)
    _show(run, as_json="json" in chosen.face)
    return INTERRUPTED if interrupted else DONE


def models(words: list[str]) -> int:
    """``workbench models list | fetch [NAME] | verify [NAME]``."""
    parser = _parser("workbench models", "The models that the workbench knows by name: where they are, and whether their bytes are right.")
    parser.add_argument("action", nargs="?", default="list", metavar="list|fetch|verify")
    parser.add_argument("name", nargs="?", default="smollm2", help="a model's name (default: smollm2)")
    parser.add_argument("--quiet", action="store_true", help="say nothing when there is nothing to do")
    chosen = parser.parse_args(words)
    actions: dict[str, Callable[[argparse.Namespace], int]] = {"list": _list_models, "fetch": _fetch, "verify": _verify}
    if chosen.action not in actions:
        raise OptionError(unknown_name("action", chosen.action, actions))
    return actions[chosen.action](chosen)


def lab(words: list[str]) -> int:  # noqa: RET503 - execv does not return
    """``workbench lab [ARGS]``: JupyterLab on the first notebook; ARGS are JupyterLab's own."""
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        return _complain("JupyterLab is not installed: pip install 'inference-workbench[lab]'", FAILED)
    as_root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []  # in a container everybody is root
    command = [sys.executable, "-m", "jupyterlab", *words, *as_root, str(_start_notebook())]
    os.execv(command[0], command)  # JupyterLab takes this process's place, and so its signals


def doctor(words: list[str]) -> int:
    """``workbench doctor``: what is installed, what this machine offers, and what is missing."""
    _parser("workbench doctor", "Versions, threads, memory, the model cache, the fast paths in use, and what is missing.").parse_args(words)
    from workbench.doctor import findings, report

    found = findings()
    print(report(found))
    return FAILED if any(finding.level == "wrong" for finding in found) else DONE


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "infer": (infer, "run prompts and show text, numbers and steps"),
    "models": (models, "list, fetch or verify the models that have a name"),
    "lab": (lab, "open JupyterLab on the first notebook"),
    "doctor": (doctor, "versions, threads, memory, model cache, what is missing"),
}


def _command(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE if words else USAGE
    if words[0] == "--version":
        print(f"workbench {workbench.__version__}")
        return DONE
    if words[0] not in COMMANDS:
        raise OptionError(unknown_name("option" if words[0].startswith("-") else "command", words[0], [*COMMANDS, "--help", "--version"]))
    return COMMANDS[words[0]][0](words[1:])


def overview() -> str:
    """What ``workbench --help`` prints."""
    commands = "\n".join(f"  workbench {name:<8}{text}" for name, (_, text) in COMMANDS.items())
    return f"{(workbench.__doc__ or '').splitlines()[0]}\n\n{commands}\n  workbench --version\n\n{_EPILOG}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise OptionError(f"{message}: see {self.prog} --help")


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    return _Parser(prog=prog, description=description, allow_abbrev=False)


def _prompts(texts: list[str], *, as_yaml: bool) -> list[Prompt]:
    if not texts:
        raise OptionError("no prompt given: workbench infer 'What is gravity?', or - for standard input")
    found: list[Prompt] = []
    for text in texts:
        if text == "-" or as_yaml:
            body = sys.stdin.read() if text == "-" else text
            found += parse_yaml(body) if as_yaml else parse_prompts(body)
        elif text.strip():
            found.append(text)
        else:
            raise OptionError("a prompt is empty: give it some text")
    return found


def _show(run: Run, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(as_data(run)).decode() + "\n")
        return
    from workbench.render.text import render_text, rich_result

    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_result(run))
    else:
        print(render_text(run))


def as_data(run: Run) -> dict[str, Any]:
    """A run as plain dictionaries and lists with every field named."""
    return {
        "outputs": [_plain(output) for output in run.outputs],
        "steps": [_plain(record) for record in run.trace],
        "metrics": _plain(run.metrics),
    }


def _plain(value: Any) -> Any:
    import enum

    import msgspec

    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


def _list_models(chosen: argparse.Namespace) -> int:
    from workbench._listing import Listing
    from workbench.models.store import cache_dir, list_models

    rows = [
        (entry.name, entry.state, f"{entry.size_bytes / 1e6:,.0f} MB", entry.licence, entry.problem or entry.description)
        for entry in list_models()
    ]
    print(Listing("Models", ("name", "state", "size", "licence", "what"), rows, f"cache: {cache_dir()}"))
    return DONE


def _fetch(chosen: argparse.Namespace) -> int:
    from workbench.models.store import fetch, list_models

    ready = any(entry.name == chosen.name and entry.state == "ready" for entry in list_models())
    folder = fetch(chosen.name)
    if not ready:
        from workbench.models.native import library

        library()  # compile the kernels now, so that the first run need not
    if not chosen.quiet:
        print(folder)
    return DONE


def _verify(chosen: argparse.Namespace) -> int:
    from workbench.models.store import verify

    entry = verify(chosen.name)
    print(f"{entry.name}: {entry.problem or entry.state}")
    return DONE if entry.state == "ready" else FAILED


def _start_notebook() -> Path:
    """The first notebook: of this checkout, or a copy of the installed one in the current folder."""
    package = Path(workbench.__file__).parent
    checkout = package.parent / "notebooks" / START_NOTEBOOK
    if checkout.exists():
        return checkout
    here = Path.cwd() / START_NOTEBOOK
    if not here.exists():
        here.write_bytes((package / "_notebooks" / START_NOTEBOOK).read_bytes())
    return here


def _complain(error: object, code: int) -> int:
    print(f"workbench: {one_line(error) if isinstance(error, BaseException) else error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
