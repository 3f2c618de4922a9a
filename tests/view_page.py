"""The built live view in a real browser on a stub model: the test plays the kernel.

``tests/data/view_page/stub.js`` is the half of this harness that runs in the browser.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import pixel, watched_page

STATIC = Path(__file__).parents[1] / "workbench" / "view" / "static"
PAGE = Path(__file__).parent / "data" / "view_page"
# JupyterLab's own variables, from where it is installed; "none" is a place that knows none of them.
LAB_THEMES = Path(sys.prefix) / "share" / "jupyter" / "lab" / "themes" / "@jupyterlab"
THEMES = ("light", "dark", "none")
BUILT = ("view.js", "view.css", "uplot.js")
SCRIPTS = {**{f"/{name}": STATIC / name for name in BUILT}, "/stub.js": PAGE / "stub.js"}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
Buffers = Sequence[bytes | bytearray | memoryview]


@dataclass
class ViewPage:
    """One page with the view on it, and the kernel's side of its comm."""

    page: Any
    errors: list[str]

    def push(self, content: dict, buffers: Buffers = (), *, shift: int = 0) -> None:
        """Send a custom message with binary buffers, and wait until what it changes is drawn.

        ``shift`` bytes put before each buffer take it off the alignment of typed arrays, as some front ends do.
        """
        self._call("push", content, buffers, shift)
        self.settle()

    def greet(self, header: dict, buffers: Buffers = (), *, shift: int = 0) -> None:
        """From now on a hello is answered with this frame (its ``to`` is filled in)."""
        self._call("greet", header, buffers, shift)

    def answer(self, op: str, value: Any = None, *, error: Any = None) -> None:
        """From now on asks of ``op`` are answered with the value, or refused with the error."""
        reply = {"value": value} if error is None else {"error": error}
        self.page.evaluate("([op, reply]) => { window.answers[op] = JSON.parse(reply); }", [op, json.dumps(reply, allow_nan=False)])

    @property
    def sent(self) -> list[dict]:
        """Every message that the view has sent, in order."""
        return self.page.evaluate("window.sent")

    def asked(self, op: str) -> list[dict]:
        """The asks of one op so far, in order."""
        return [message for message in self.sent if message.get("kind") == "ask" and message["op"] == op]

    def wait_for_ask(self, op: str, count: int = 1, *, timeout_s: float = 20) -> list[dict]:
        """The asks of ``op`` once there are at least ``count``."""
        enough = "([op, count]) => window.sent.filter((each) => each.kind === 'ask' && each.op === op).length >= count"
        self.page.wait_for_function(enough, arg=[op, count], timeout=timeout_s * 1e3)
        return self.asked(op)

    def render(self, width: str = "auto") -> int:
        """Show the same model once more, as in a second output; the number of the picture."""
        number = self.page.evaluate("(width) => window.harness.render(width)", width)
        self.settle()
        return number

    def close(self, picture: int) -> None:
        """Take one picture off the page."""
        self.page.evaluate("(picture) => window.harness.close(picture)", picture)

    def destroy(self) -> None:
        """End the model and with it every picture, as when the widget is closed."""
        self.page.evaluate("window.harness.destroy()")

    def theme(self, name: str) -> None:
        """Change the page's theme under the view."""
        self.page.evaluate("(name) => window.harness.theme(name)", name)
        self.settle()

    def settle(self) -> None:
        """Wait until a change that is under way has been drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")

    def pixel(self, canvas: str, x: float, y: float) -> tuple[int, int, int, int]:
        """What a canvas shows at a place in CSS pixels."""
        return pixel(self.page, canvas, x, y)

    def screenshot(self, selector: str = ".picture") -> bytes:
        """The PNG of what the first match shows, with nothing hovered."""
        self.page.mouse.move(0, 0)
        self.settle()
        return self.page.locator(selector).first.screenshot(animations="disabled", caret="hide")

    def _call(self, name: str, content: dict, buffers: Buffers, shift: int) -> None:
        encoded = [base64.b64encode(buffer).decode() for buffer in buffers]
        text = json.dumps(content, allow_nan=False)
        self.page.evaluate(
            "([name, text, encoded, shift]) => window.harness[name](JSON.parse(text), encoded, shift)", [name, text, encoded, shift]
        )


@contextmanager
def opened_view(
    browser, url: str, frame: dict | None, buffers: Buffers, *, theme: str = "light", width: int = 1100, height: int = 1000, shift: int = 0
) -> Iterator[ViewPage]:
    """A page on which the view is initialised and shown once; its hello is answered with ``frame``, if there is one."""
    with watched_page(browser, width=width, height=height) as (page, errors):
        page.goto(f"{url}/{theme}/")
        page.wait_for_function("window.harness !== undefined", timeout=30_000)
        view = ViewPage(page, errors)
        if frame is not None:
            view.greet(frame, buffers, shift=shift)
        page.evaluate("window.harness.initialize()")
        view.render()
        yield view


@contextmanager
def view_server() -> Iterator[str]:
    """The address of a server on loopback with the built view and the page around it."""
    if not all((STATIC / name).is_file() for name in BUILT):
        pytest.fail("the live view is not built: make view (or npm ci && npm run build in extensions/view)")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="view-page", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Gives out the page under ``/<theme>/`` and the scripts beside it."""

    def do_GET(self) -> None:
        content, suffix = self.found()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", TYPES.get(suffix, "text/plain"))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content or b"")

    def found(self) -> tuple[bytes | None, str]:
        if self.path in SCRIPTS:
            return SCRIPTS[self.path].read_bytes(), SCRIPTS[self.path].suffix
        theme, _, name = self.path.strip("/").partition("/")
        if theme not in THEMES or name not in ("", "theme.css"):
            return None, ""
        if not name:
            return (PAGE / "page.html").read_bytes(), ".html"
        return b"" if theme == "none" else (LAB_THEMES / f"theme-{theme}-extension" / "index.css").read_bytes(), ".css"

    def log_message(self, *_: Any) -> None:
        """Requests are no news."""
