"""``View``: the anywidget.  It joins a publisher, a worker for buttons and a door for the control channel, and decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from workbench.errors import ViewError
from workbench.render._format import escape
from workbench.trace import Trace
from workbench.view.commands import OPS, SLOW, answer
from workbench.view.control import door
from workbench.view.files import script, style, uplot
from workbench.view.page import write_screen
from workbench.view.publisher import Publisher
from workbench.view.sources import Source, Watched
from workbench.view.worker import Worker

_NO_WIDGET = "<div>The live view of {} stood here: run the cell again, or open it with <code>run.view()</code>.</div>"
_SHOWS_NOTHING = "export default {}"


class View(anywidget.AnyWidget):
    """A picture of runs and traces: ``View(run)``, ``View(load_trace("run.wbt"))``, ``View(a, b)`` with one cursor for both.

    It goes on while the runs do, and its buttons steer their engines; a trace alone can only be looked at.  ``names`` are what the runs are
    called on the screen; ``parted`` is the position where the second leaves the first, and a sentence.  :meth:`close` ends the view and
    leaves the runs alone.  Raises :class:`ViewError` for anything else, and where the view was not built.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    _uplot = traitlets.Unicode().tag(sync=True)
    _control = traitlets.Unicode("").tag(sync=True)  # where the control channel finds us; empty if it does not

    def __init__(self, *runs: Watched | Trace, names: Sequence[str] | None = None, parted: tuple[int, str] | None = None) -> None:
        if not runs:
            raise ViewError("a view needs a run or a trace to show")
        self.sources: list[Source] = []
        self.screens: set[str] = set()  # browsers that were heard; a hello over the comm waits for the cell to end
        self.result: Callable[[], dict[str, str]] | None = None  # texts by MIME type that are to stand in this view's place
        self._forget: list[Any] = []
        self._publisher = Publisher(self._publish, self.sources)
        self._quick, self._slow = Worker("workbench buttons"), Worker("workbench answers")
        super().__init__(_esm=script(), _css=style(), _uplot=uplot())
        self.on_msg(self._on_message)
        self._door = door()
        if self._door is not None:
            self._door.open(self.model_id, self.hear)
            self._control = self.model_id
        for number, run in enumerate(runs):
            self._join(run, names[number] if names is not None else None, None)
        if parted is not None:
            self.sources[-1].parted = parted
        else:
            for source in self.sources[1:]:
                source.against = 0
        self._publisher.wake()

    @property
    def runs(self) -> list[Any]:
        """The runs and traces on the screen; branches that were made there are among them."""
        return [source.run if source.run is not None else source.trace for source in self.sources]

    def join(self, run: Watched | Trace, *, parent: int | None = None) -> Source:
        """Show another run; with ``parent`` as a branch of that one."""
        source = self._join(run, None, parent)
        self._publisher.wake()
        return source

    def hear(self, ask: Mapping[str, Any]) -> None:
        """Take a message of a screen, on any thread; the answer goes over the comm."""
        op, client = ask.get("op"), str(ask.get("client"))
        new = client not in self.screens
        self.screens.add(client)
        if op == "hello":
            self._publisher.greet(client)
            if new and self.result is not None:
                self._slow.do(self.tell_result)  # it may have to be made
        elif op == "ack":
            seq = ask.get("seq")
            self._publisher.ack(seq if isinstance(seq, int) else 0)
        else:
            (self._slow if op in SLOW or op not in OPS else self._quick).do(lambda: self._answer(ask))

    def tell_result(self) -> None:
        """Have the pages that show this view put its ``result`` there instead, if it has one, and their notebook lets them."""
        if self.result is not None:
            self._publish({"kind": "result", "view": self.model_id, "data": self.result()}, [])

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write what is on the screen as one page that opens from disk and scrubs without a kernel.

        Raises :class:`TraceError` when the place cannot be written.
        """
        return write_screen([source.again() for source in self.sources], Path(path))

    def close(self) -> None:
        """End the view: its comm, its listening, its threads."""
        for forget in self._forget:
            forget()
        self._forget.clear()
        self._publisher.close()
        if self._door is not None:
            self._door.close(self.model_id or "")
            self._door = None
        with self.hold_sync():  # who saves the state of widgets, saves that of closed ones too: it need not hold the code
            self._esm, self._css, self._uplot = _SHOWS_NOTHING, "", ""
        self.layout.close()  # a widget of its own, which nobody else would close
        super().close()

    def _join(self, run: Watched | Trace, name: str | None, parent: int | None) -> Source:
        if not (isinstance(run, Trace) or hasattr(run, "watch")):
            raise ViewError(f"a view shows runs and traces, not {type(run).__name__}")
        source = Source(run, len(self.sources), name, parent=parent)
        if parent is not None:
            source.leave(self.sources[parent])
        self.sources.append(source)
        if source.run is not None:
            self._forget.append(source.run.watch(self._publisher.turn))
        return source

    def _answer(self, ask: Mapping[str, Any]) -> None:
        reply = {"kind": "reply", "id": ask.get("id"), "client": ask.get("client"), **answer(self, ask)}
        self._publish(reply, [])
        self._publisher.wake()

    def _publish(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(content, buffers=buffers)

    def _on_message(self, _widget: object, content: object, _buffers: object) -> None:
        if isinstance(content, Mapping) and content.get("kind") == "ask":
            self.hear(content)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and for pages that keep no widgets a line in its place."""
        bundle = super()._repr_mimebundle_(**kwargs)
        for data in bundle[:1] if isinstance(bundle, tuple) else [bundle]:
            if data:
                data["text/html"] = _NO_WIDGET.format(escape(", ".join(source.name for source in self.sources)))
        return bundle

    def __repr__(self) -> str:
        return f"<View of {', '.join(source.name for source in self.sources)}>"
