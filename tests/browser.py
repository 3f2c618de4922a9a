"""A headless Chromium for tests: which one, how it is started, what counts as an error on a page, and how two pictures are compared.

``CHROMIUM`` names the browser; without it the usual names are looked up on ``PATH``.  Where there is none, tests that need it are
skipped, or fail with ``WORKBENCH_REQUIRE_BROWSER=1`` (as in CI).  Nothing here reaches beyond loopback.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A sandbox needs rights that containers lack; the rest keeps the browser from calling home.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)
GOLDEN = Path(__file__).parent / "data" / "golden"
GOLDEN_LIMIT_BYTES = 150_000
# Of 255: what the anti-aliasing of two builds of the same browser may differ by, and a change of colour may not.
CHANNEL_TOLERANCE = 40
OWN = re.compile(r"^(http://(127\.0\.0\.1|localhost)[:/]|ws://(127\.0\.0\.1|localhost)[:/]|data:|blob:|about:|file:///)")


def chromium() -> str:
    """The path of the browser; skips the test (or fails it, where browsers are required) with what to install."""
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found:
        return found
    missing = "no Chromium found: install chromium (Debian: apt-get install chromium) or name one with CHROMIUM=/path/to/chromium"
    if os.environ.get("WORKBENCH_REQUIRE_BROWSER", "0") not in ("", "0"):
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def browsing() -> Iterator:
    """A running headless browser.

    While it lives an asyncio loop runs in this thread, so nothing else may call ``asyncio.run``: keep it for a module of tests, not longer.
    """
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def watched_page(browser, *, width: int, height: int, ignore: str = "(?!)") -> Iterator:
    """A new page and the list of what went wrong on it, but for what matches ``ignore``; at the end the list must be empty.

    Console errors, uncaught exceptions and requests beyond loopback are wrong.  A test that provokes one takes it off the list.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=1, reduced_motion="reduce", locale="en-GB", timezone_id="UTC"
    )
    page, errors = context.new_page(), []

    def note(text: str) -> None:
        if not re.search(ignore, text):
            errors.append(text)

    page.on("console", lambda message: note(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: note(f"uncaught: {error.stack or error}"))
    page.on("request", lambda request: None if OWN.match(request.url) else note(f"request beyond loopback: {request.url}"))
    page.route(lambda url: not OWN.match(url), lambda route: route.abort())
    try:
        yield page, errors
        assert not errors, "\n".join(errors)
    finally:
        context.close()


def pixel(page, canvas: str, x: float, y: float) -> tuple[int, int, int, int]:
    """Red, green, blue and opacity (0–255) that a canvas (a selector) holds at a place in CSS pixels from its top left corner."""
    return tuple(
        page.locator(canvas).first.evaluate(
            """(canvas, [x, y]) => {
                const ratio = canvas.width / canvas.clientWidth;
                return Array.from(canvas.getContext("2d").getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data);
            }""",
            [x, y],
        )
    )


def assert_looks_like(png: bytes, name: str, tolerance: float = 0.01) -> None:
    """Compare a screenshot with ``tests/data/golden/<name>.png``; at most the share ``tolerance`` of its pixels may look different.

    On a difference the new picture is written beside it as ``<name>.new.png``; ``WORKBENCH_UPDATE_GOLDEN=1`` makes it the golden one.
    """
    from PIL import Image

    new, path = Image.open(io.BytesIO(png)).convert("RGB"), GOLDEN / f"{name}.png"
    if os.environ.get("WORKBENCH_UPDATE_GOLDEN", "0") not in ("", "0"):
        keep_golden(new, path)
        return
    assert path.exists(), f"there is no {path.name} to compare with: look at the picture, then run with WORKBENCH_UPDATE_GOLDEN=1"
    share = different_share(new, Image.open(path).convert("RGB"))
    if share > tolerance:
        beside = path.with_suffix(".new.png")
        new.save(beside, optimize=True)
        raise AssertionError(f"{share:.1%} of the pixels differ from {path.name} (allowed: {tolerance:.1%}); the new picture is {beside}")


def different_share(one, other) -> float:
    """Share of pixels in which a channel differs by more than the tolerance; 1.0 for pictures of two sizes."""
    from PIL import ImageChops

    if one.size != other.size:
        return 1.0
    red, green, blue = ImageChops.difference(one, other).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return sum(most.histogram()[CHANNEL_TOLERANCE + 1 :]) / (one.width * one.height)


def keep_golden(picture, path: Path) -> None:
    """Write the golden picture, with a palette of 256 colours so that it stays small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256).save(path, optimize=True)
    assert path.stat().st_size <= GOLDEN_LIMIT_BYTES, f"{path.name} has {path.stat().st_size} bytes; show less of the page"
