"""What the browser tests rest on: errors are seen, nothing leaves the machine, and pictures are compared by eye's measure."""

from __future__ import annotations

import io

import browser as harness
import pytest
from PIL import Image, ImageDraw
from view_page import opened_view

PROVOCATIONS = {
    "console: no good": "console.error('no good')",
    "uncaught: .*no such thing": "setTimeout(() => { throw new Error('no such thing'); })",
    "request beyond loopback: http://example": "new Image().src = 'http://example.invalid/a.png'",
}


@pytest.mark.parametrize("message", PROVOCATIONS)
def test_what_goes_wrong_on_a_page_is_reported(browser, view_address, message):
    with pytest.raises(AssertionError, match=message), opened_view(browser, view_address, None, ()) as view:
        view.page.evaluate(PROVOCATIONS[message])
        view.settle()


def test_the_page_wears_the_themes_of_jupyterlab(view_page):
    view = view_page(theme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = view.page.evaluate(ground)
    view.theme("dark")
    assert (light, view.page.evaluate(ground)) == ("rgb(255, 255, 255)", "rgb(17, 17, 17)")


def test_a_pixel_of_a_canvas_is_read_where_it_was_drawn(view_page):
    view = view_page()
    view.page.evaluate("""() => {
        const canvas = Object.assign(document.createElement("canvas"), {width: 200, height: 100, id: "drawn"});
        canvas.style.width = "100px";
        document.body.append(canvas);
        const context = canvas.getContext("2d");
        context.fillStyle = "#009e73";
        context.fillRect(100, 0, 100, 100);
    }""")
    assert (view.pixel("#drawn", 49, 10), view.pixel("#drawn", 51, 10)) == ((0, 0, 0, 0), (0, 158, 115, 255))


def picture(colour: str, side: int = 40) -> bytes:
    """A white square with a smaller one of the colour in it, which covers a quarter."""
    made, file = Image.new("RGB", (side, side), "white"), io.BytesIO()
    ImageDraw.Draw(made).rectangle((0, 0, side // 2 - 1, side // 2 - 1), fill=colour)
    made.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def golden(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "GOLDEN", tmp_path)
    monkeypatch.setenv("WORKBENCH_UPDATE_GOLDEN", "1")
    harness.assert_looks_like(picture("#0072b2"), "square")
    monkeypatch.delenv("WORKBENCH_UPDATE_GOLDEN")
    return tmp_path


def test_the_same_picture_looks_the_same(golden):
    harness.assert_looks_like(picture("#0072b2"), "square")
    harness.assert_looks_like(picture("#0a7abc"), "square")


def test_another_colour_is_told_by_the_share_of_pixels_and_kept_beside(golden):
    with pytest.raises(AssertionError, match=r"25\.0% of the pixels differ from square\.png \(allowed: 1\.0%\)"):
        harness.assert_looks_like(picture("#e69f00"), "square")
    assert sorted(path.name for path in golden.iterdir()) == ["square.new.png", "square.png"]


def test_another_size_never_looks_the_same(golden):
    with pytest.raises(AssertionError, match=r"100\.0%"):
        harness.assert_looks_like(picture("#0072b2", side=42), "square", tolerance=0.9)


def test_a_golden_picture_must_have_been_looked_at(golden):
    with pytest.raises(AssertionError, match="WORKBENCH_UPDATE_GOLDEN=1"):
        harness.assert_looks_like(picture("#0072b2"), "circle")


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_a_browser_tests_are_skipped_here_and_fail_in_ci(monkeypatch, required, outcome):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("WORKBENCH_REQUIRE_BROWSER", required)
    with pytest.raises(outcome, match="apt-get install chromium"):
        harness.chromium()
