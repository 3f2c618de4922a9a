"""What every test may rely on."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest
from browser import browsing, chromium
from jupyter_lab import lab_server
from view_page import opened_view, view_server

# A shell without job control starts its background processes deaf to SIGINT; the tests of interrupts need it heard.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser():
    """A headless browser; of a module and not of the session, because while it lives nothing else may run an asyncio loop."""
    with browsing() as started:
        yield started


@pytest.fixture(scope="module")
def view_address():
    with view_server() as address:
        yield address


@pytest.fixture
def view_page(browser, view_address):
    """Opens the live view on a frame: ``view_page(header, buffers, theme="dark")`` is a ``ViewPage``; an error on it fails the test."""
    with ExitStack() as pages:
        yield lambda frame=None, buffers=(), **look: pages.enter_context(opened_view(browser, view_address, frame, buffers, **look))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of this module's own, with an empty folder of notebooks."""
    chromium()  # without a browser there is no use in a server
    with lab_server(tmp_path_factory.mktemp("lab")) as server:
        yield server
