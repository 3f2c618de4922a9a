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


@cache
def uplot() -> str:
    """The ES module of uPlot, which draws the series."""
    return _read("uplot.js")


def is_built() -> bool:
    """Whether the files are there."""
    return all((STATIC / name).is_file() for name in ("view.js", "view.css", "uplot.js"))


def _read(name: str) -> str:
    try:
        return (STATIC / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ViewError(f"{name} was not built: run `make view`, or install inference-workbench from a wheel") from None
