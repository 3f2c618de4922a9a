"""Where a live display is drawn: one display handle of a notebook cell, or the lower end of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

from workbench.render._format import escape, plain, shorten


class Screen(Protocol):
    """One place that is drawn over and over."""

    def show(self, line: str, texts: Mapping[str, str]) -> None:
        """Replace what is there by the texts by request id and a status line."""
        ...

    def close(self, final: Any | None) -> None:
        """Replace it for the last time, by ``final`` or by nothing."""
        ...


class NotebookScreen:
    """One display of the current cell; each redraw is one message of a few kilobytes."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, line: str, texts: Mapping[str, str]) -> None:
        """Draw a frame."""
        self._put({"text/plain": plain_frame(line, texts), "text/html": html_frame(line, texts)}, raw=True)

    def close(self, final: Any | None) -> None:
        """Draw ``final``, or clear the place."""
        if final is not None:
            self._put(final, raw=False)
        elif self._handle is not None:
            self._put({"text/plain": "", "text/html": ""}, raw=True)

    def _put(self, content: Any, *, raw: bool) -> None:
        from IPython.display import DisplayHandle

        if self._handle is None:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(content, raw=raw)
        else:
            self._handle.update(content, raw=raw)


class TerminalScreen:
    """The lower end of a terminal, on standard error so that a piped result stays clean; nothing at all where there is no terminal."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        console = console or Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def show(self, line: str, texts: Mapping[str, str]) -> None:
        """Draw a frame."""
        from rich.text import Text

        if self._live.console.is_terminal:
            self._live.start()
            self._live.update(Text(plain_frame(line, texts)), refresh=True)

    def close(self, final: Any | None) -> None:
        """Draw ``final`` below, where the live text was."""
        self._live.stop()
        if final is not None:
            self._live.console.print(final)


def screen_here() -> Screen:
    """The screen that fits where this runs."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return NotebookScreen() if getattr(shell, "kernel", None) is not None else TerminalScreen()


def plain_frame(line: str, texts: Mapping[str, str]) -> str:
    """One row per text, cut to its newest words, then the line; no control character of theirs survives."""
    rows = [f"{plain(name)}  {shorten(plain(text)[-160:], 160)}" for name, text in texts.items()]
    return "\n".join([*rows, plain(line)])


def html_frame(line: str, texts: Mapping[str, str]) -> str:
    """The same as HTML; styled inline, because it is replaced ten times a second and must not leave a stylesheet behind."""
    pre = "margin:0;padding:0;font:inherit;white-space:pre-wrap;overflow-wrap:anywhere;background:none;color:inherit"
    rows = "".join(
        f'<div style="display:flex;gap:12px;padding:2px 0"><b style="min-width:34px">{escape(name)}</b>'
        f'<pre dir="auto" style="{pre}">\n{escape(text)}</pre></div>'
        for name, text in texts.items()
    )
    status = f'<div style="opacity:.65;font-size:12px;padding:4px 0;font-variant-numeric:tabular-nums">{escape(line)}</div>'
    font = "font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif)"
    return f'<div class="mathjax_ignore tex2jax_ignore" style="{font}">{rows}{status}</div>'
