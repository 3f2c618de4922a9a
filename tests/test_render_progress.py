from __future__ import annotations

import io
import threading
from html.parser import HTMLParser

import pytest
from render_fixtures import ONERROR, SCRIPT, make_trace, scripted_run
from rich.console import Console

from workbench.render.progress import LiveText, status_line
from workbench.render.screens import NotebookScreen, TerminalScreen, html_frame, plain_frame, screen_here


class Recorder:
    def __init__(self) -> None:
        self.frames: list[tuple[str, dict[str, str]]] = []
        self.closed: list[object] = []

    def show(self, line, texts) -> None:
        self.frames.append((line, dict(texts)))

    def close(self, final) -> None:
        self.closed.append(final)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Handle:
    """Stands in for a notebook's display handle."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, object]] = []

    def display(self, content, raw) -> None:
        self.sent.append(("display", content))

    def update(self, content, raw) -> None:
        self.sent.append(("update", content))


@pytest.fixture
def screen() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(screen, clock) -> LiveText:
    return LiveText(screen=screen, clock=clock)


# -- the line ----------------------------------------------------------------------------------------------------------


def test_the_line_speaks_of_the_newest_step():
    records = make_trace(5).records[:14]
    last = records[-1]
    line = status_line(records)
    assert line.startswith(f"step {last.step} · {len(last.running)} running, {len(last.waiting)} waiting · KV ")
    assert f"KV {100 * last.kv.in_use / last.kv.total:.0f} %" in line


def test_the_rate_counts_the_tokens_of_the_last_second():
    records = make_trace(5).records
    window = [record for record in records if records[-1].end_s - record.end_s <= 1.0]
    tokens = sum(len(sampled.token_ids) for record in window for sampled in record.sampled)
    rate = tokens / (records[-1].end_s - window[0].start_s)
    assert status_line(records).endswith(f"{rate:.1f} tok/s" if rate < 100 else f"{rate:.0f} tok/s")


def test_before_the_first_step_the_line_says_so():
    assert status_line([]) == "starting"


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_text_streams_as_steps_come_in(live, screen, clock):
    run = scripted_run([[1, 2, 3]], max_tokens=3)
    for record in make_trace(1).records[:5]:
        live.on_step(record)
    clock.now += 1
    assert live.pump()
    assert screen.frames[-1][1] == {"r0": " word" * sum(len(s.token_ids) for r in make_trace(1).records[:5] for s in r.sampled)}
    assert run.status == "finished"


def test_a_thousand_steps_in_a_second_are_drawn_at_most_ten_times(live, screen, clock):
    for record in make_trace(8, 200).records[:1000]:
        live.on_step(record)
        live.pump()
        clock.now += 0.001
    assert 1 <= len(screen.frames) <= 10


def test_slow_drawing_gets_a_small_share_of_the_time(clock):
    class Slow(Recorder):
        def show(self, line, texts):
            super().show(line, texts)
            clock.now += 0.2

    slow = Slow()
    live = LiveText(screen=slow, clock=clock)
    for record in make_trace(8, 400).records[:1000]:
        live.on_step(record)
        live.pump()
        clock.now += 0.01
    assert len(slow.frames) * 0.2 <= 0.06 * clock.now + 0.2


def test_nothing_new_is_not_drawn_again(live, screen, clock):
    live.on_step(make_trace(1).records[0])
    assert live.pump()
    clock.now += 5
    assert not live.pump()


def test_only_the_newest_characters_of_a_long_text_are_kept_in_sight(live, screen, clock):
    live.update([], {"r0": "x" * 50_000})
    assert len(screen.frames[-1][1]["r0"]) < 1000
    assert screen.frames[-1][1]["r0"].startswith("…")


def test_of_many_requests_the_running_ones_are_in_sight(live, screen, clock):
    record = make_trace(40, 6, max_seqs=4, blocks=400).records[60]
    live.update([record], {f"r{i}": "text" for i in range(40)})
    assert len(screen.frames[-1][1]) == 12
    assert set(record.running) <= set(screen.frames[-1][1])


def test_steps_may_come_from_many_threads(live, screen, clock):
    records = make_trace(4).records
    threads = [threading.Thread(target=lambda: [live.on_step(record) for record in records]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        live.pump()
        thread.join()
    clock.now += 1
    live.pump()
    tokens = sum(len(sampled.token_ids) for record in records for sampled in record.sampled)
    assert sum(text.count("word") for text in live._texts.values()) == 4 * tokens


def test_closing_puts_the_result_in_place_once_and_ends_drawing(live, screen, clock):
    live.close("result")
    live.close("again")
    clock.now += 1
    assert not live.update(make_trace(1).records)
    assert screen.closed == ["result"]


def test_leaving_the_block_closes_even_on_an_interrupt(screen, clock):
    with pytest.raises(KeyboardInterrupt), LiveText(screen=screen, clock=clock):
        raise KeyboardInterrupt
    assert screen.closed == [None]


# -- screens -----------------------------------------------------------------------------------------------------------


def test_a_notebook_gets_one_display_and_then_only_updates():
    screen = NotebookScreen()
    screen._handle = handle = Handle()
    for step in range(5):
        screen.show(f"step {step}", {"r0": "text"})
    screen.close(None)
    assert [kind for kind, _ in handle.sent] == ["update"] * 6
    assert handle.sent[-1][1] == {"text/plain": "", "text/html": ""}


def test_a_notebook_that_was_never_drawn_on_is_left_alone():
    screen = NotebookScreen()
    screen.close(None)
    assert screen._handle is None


def test_a_pipe_sees_no_progress():
    console = Console(file=io.StringIO(), force_terminal=False)
    screen = TerminalScreen(console)
    screen.show("step 1", {"r0": "text"})
    screen.close(None)
    assert console.file.getvalue() == ""


def test_a_terminal_sees_the_text_and_the_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    screen = TerminalScreen(console)
    screen.show("step 1 · 1 running", {"r0": "[red]text[/]"})
    screen.close(None)
    assert "[red]text[/]" in console.file.getvalue()
    assert "step 1 · 1 running" in console.file.getvalue()


def test_outside_a_notebook_the_screen_is_a_terminal():
    assert isinstance(screen_here(), TerminalScreen)


@pytest.mark.parametrize("hostile", [SCRIPT, ONERROR, "</pre><script>x</script>"])
def test_streamed_text_is_escaped(hostile):
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(html_frame(hostile, {hostile: hostile}))
    assert set(tags) == {"div", "b", "pre"}


def test_a_frame_for_terminals_holds_no_control_characters():
    assert "\x1b" not in plain_frame("line", {"r0": "\x1b[2J"})
