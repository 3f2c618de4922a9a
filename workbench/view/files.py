"""The built files of the view: read once, and given to every widget as text (a path would be watched, and leak with each instance)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from workbench.errors import ViewError

STATIC = Path(__file__).parent / "static"


@cache
def script() -> str:
    """The ES module of the view.  Raises :class:`ViewError` when it was not built."""
    return _read("view.js")


@cache
def style() -> str:
    """Its style sheet."""
    return _read("view.css")


def is_built() -> bool:
    """Whether the files are there."""
    return (STATIC / "view.js").is_file() and (STATIC / "view.css").is_file()


def _read(name: str) -> str:
    try:
        return (STATIC / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ViewError(f"{name} was not built: run `make view`, or install inference-workbench from a wheel") from None
