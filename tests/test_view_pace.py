"""How often a publisher speaks: rarely where speaking costs the engine much, at once when a run halts."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from workbench.view import publisher
from workbench.view.publisher import FRAME_S, SHARE, SLOW_FRAME_S, Publisher


class Ticking:
    """A source that always has something to tell, and stands as it is told to."""

    number, parent, parted = 0, None, None
    packer = ()

    def __init__(self, state="running"):
        self.state = state

    @property
    def is_running(self):
        return self.state == "running"

    def news(self):
        return None

    def status(self, *, whole=False):
        return {"state": self.state, "tick": time.monotonic()}

    def info(self):
        return {"run": 0}


@pytest.fixture
def published():
    """Starts a publisher whose frames each cost so much processor time; its publisher, its source and the times of its frames."""
    made = []

    def start(cost_s, state="running"):
        source, times = Ticking(state), []

        def send(frame, _buffers):
            times.append((time.monotonic(), frame["parts"][0]["status"]["state"]))
            end_s = time.thread_time() + cost_s
            while time.thread_time() < end_s:
                pass

        made.append(Publisher(send, [source]))
        return made[-1], source, times

    yield start
    for each in made:
        each.close()


def keep_waking(publisher, for_s):
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        publisher.wake()
        time.sleep(0.002)


def gaps(times):
    return [later[0] - earlier[0] for earlier, later in pairwise(times)]


def test_frames_that_cost_little_come_twenty_times_a_second(published):
    steady, _, times = published(0.0)
    keep_waking(steady, 1.0)
    assert min(gaps(times)) > 0.9 * FRAME_S
    assert len(times) > 8  # of 20, on a machine that may be busy


def test_frames_that_cost_much_are_rarer_while_an_engine_runs(published):
    cost_s = 1.5e-3
    dear, _, times = published(cost_s)
    keep_waking(dear, 1.2)
    assert min(gaps(times)) > 0.9 * cost_s / SHARE > FRAME_S


def test_frames_are_never_rarer_than_five_a_second_however_much_they_cost(published):
    dear, _, _ = published(0.02)
    keep_waking(dear, 0.5)
    assert dear.interval_s == SLOW_FRAME_S


def test_nothing_is_held_back_for_an_engine_that_stands(published):
    dear, _, _ = published(3e-3, state="paused")
    keep_waking(dear, 0.3)
    assert dear.interval_s == FRAME_S


def test_that_a_run_halts_is_told_without_delay(published, monkeypatch):
    monkeypatch.setattr(publisher, "SLOW_FRAME_S", 30.0)
    dear, source, times = published(0.3)  # so that the next frame would be due in half a minute
    keep_waking(dear, 0.5)
    source.state = "paused"
    dear.wake()
    deadline = time.monotonic() + 10
    while times[-1][1] != "paused" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert times[-1][1] == "paused"
