"""What tests of saved pages share: a run worth looking at, and pages on loopback or on disk with a player on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from browser import watched_page
from scripted_cells import speaking_engine
from view_page import ViewPage

from workbench.run import Run


@cache
def story() -> Run:
    """Eight requests in about 300 steps, on a pool that is too small for them: they wait, and are preempted."""
    engine = speaking_engine(num_blocks=44, max_num_seqs=4, max_num_batched_tokens=128)
    return engine.run([f"Question {i}: is this a {'very ' * i}long story?" for i in range(8)], max_tokens=130)


def page_of(*fragments: str, style: str = "") -> str:
    """A page with the outputs of some cells on it."""
    cells = "\n".join(f'<div class="cell" id="cell{i}">{fragment}</div>' for i, fragment in enumerate(fragments))
    return f'<!doctype html><meta charset="utf-8"><title>saved</title><style>{style}</style><body>{cells}</body>'


class Pages:
    """Serves pages from memory."""

    def __init__(self) -> None:
        self._pages: dict[str, tuple[bytes, dict[str, str]]] = {}
        pages = self._pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content, headers = pages.get(self.path, (b"", {}))
                self.send_response(200 if content else 204)  # browsers ask for an icon of their own accord
                for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Requests are no news."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, name="saved-pages", daemon=True).start()

    def serve(self, html: str, **headers: str) -> str:
        """The address of a page; ``Content_Security_Policy="…"`` is a header."""
        path = f"/{len(self._pages)}.html"
        self._pages[path] = html.encode(), {name.replace("_", "-"): value for name, value in headers.items()}
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class SavedPage(ViewPage):
    """A page that was opened, what it asked for, and what it warned of."""

    def __init__(self, page: Any, errors: list[str]) -> None:
        super().__init__(page, errors)
        self.requests: list[str] = []
        self.warnings: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.warnings.append(message.text) if message.type == "warning" else None)

    def play(self, players: int = 1) -> SavedPage:
        """Wait until so many players have taken the place of the pictures, and are drawn."""
        self.page.wait_for_function(
            "(count) => [...document.querySelectorAll('.wb-saved')].filter((box) => box.lastChild?.shadowRoot).length === count",
            arg=players,
        )
        self.page.locator(".wb-view .wb-timeline canvas").first.wait_for()
        self.page.locator(".wb-view .uplot").first.wait_for()
        self.settle()
        return self


@contextmanager
def opened(
    browser: Any, where: str | Path, *, dark: bool = False, width: int = 1100, before: str = "", ignore: str = "(?!)"
) -> Iterator[SavedPage]:
    """A page by its address or its file; ``before`` is script that runs first.  An error on it fails the test."""
    with watched_page(browser, width=width, height=1600, ignore=ignore) as (page, errors):
        page.emulate_media(color_scheme="dark" if dark else "light")
        if before:
            page.add_init_script(before)
        saved = SavedPage(page, errors)
        page.goto(where.as_uri() if isinstance(where, Path) else where)
        yield saved


def beyond(requests: Sequence[str]) -> list[str]:
    """What a page asked for besides itself and what it carries."""
    return [url for url in requests[1:] if not url.startswith(("blob:", "data:")) and not url.endswith("/favicon.ico")]
