"""How often a publisher speaks: rarely where speaking costs the engine much, at once when a run halts."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from workbench.view import publisher
from workbench.view.publisher import FRAME_S, SHARE, SLOW_FRAME_S, TURN_S, Publisher


class Ticking:
    """A source that always has something to tell, takes ``cost_s`` of a processor to say it, and stands as it is told to."""

    number, parent, parted, against = 0, None, None, None
    packer = ()

    def __init__(self, cost_s, state):
        self.cost_s, self.state = cost_s, state
        self.packed_s = []

    @property
    def is_running(self):
        return self.state == "running"

    def news(self):
        end_s = time.thread_time() + self.cost_s
        while time.thread_time() < end_s:
            pass
        self.packed_s.append(time.monotonic())

    def status(self, *, whole=False):
        return {"state": self.state, "tick": time.monotonic()}

    def info(self):
        return {"run": 0}


@pytest.fixture
def published():
    """Starts a publisher whose frames each cost so much processor time; its publisher, its source and the times of its frames."""
    made = []

    def start(cost_s, state="running"):
        source, times = Ticking(cost_s, state), []

        def send(frame, _buffers):
            times.append((time.monotonic(), frame["parts"][0]["status"]["state"]))

        made.append(Publisher(send, [source]))
        return made[-1], source, times

    yield start
    for each in made:
        each.close()


def take_steps(publisher, for_s):
    """Steps of 2 ms; how long the publisher held each of them up, as times of beginning and end."""
    end_s = time.monotonic() + for_s
    turns = []
    while time.monotonic() < end_s:
        time.sleep(0.002)
        began_s = time.monotonic()
        publisher.turn()
        turns.append((began_s, time.monotonic()))
    return turns


def gaps(times):
    return [later[0] - earlier[0] for earlier, later in pairwise(times)]


def test_frames_that_cost_little_come_twenty_times_a_second(published):
    steady, _, times = published(0.0)
    take_steps(steady, 1.0)
    assert min(gaps(times)) > 0.9 * FRAME_S
    assert len(times) > 8  # of 20, on a machine that may be busy


def test_frames_that_cost_much_are_rarer_while_an_engine_runs(published):
    cost_s = 1e-3
    dear, _, times = published(cost_s)
    take_steps(dear, 1.2)
    assert min(gaps(times)) > 0.9 * cost_s / SHARE > FRAME_S


def test_frames_are_never_rarer_than_four_a_second_however_much_they_cost(published):
    dear, _, _ = published(0.02)
    take_steps(dear, 0.5)
    assert dear.interval_s == SLOW_FRAME_S


def test_nothing_is_held_back_for_an_engine_that_stands(published):
    dear, _, _ = published(3e-3, state="paused")
    take_steps(dear, 0.3)
    assert dear.interval_s == FRAME_S


def test_that_a_run_halts_is_told_without_delay(published, monkeypatch):
    monkeypatch.setattr(publisher, "SLOW_FRAME_S", 60.0)
    dear, source, times = published(0.3)  # so that the next frame is due in half a minute
    take_steps(dear, 0.5)
    source.state = "paused"
    dear.turn()
    wait_until(lambda: times and times[-1][1] == "paused")  # on a busy machine no frame has come out before


def test_a_frame_that_is_due_is_packed_between_two_steps(published):
    steady, source, _ = published(1e-3)
    turns = take_steps(steady, 1.0)
    later = source.packed_s[1:]
    between = sum(any(began_s <= packed_s <= end_s for began_s, end_s in turns) for packed_s in later)
    assert between >= 0.8 * len(later) > 2


SEND_S = 0.1  # of a slow socket: a step that waited for it would be held up for nearly as long, every time


def test_a_step_does_not_wait_for_the_sockets(published, monkeypatch):
    slow, _, times = published(0.0)
    monkeypatch.setattr(slow, "_send", lambda frame, buffers: (times.append(0), time.sleep(SEND_S)))
    held_up = [end_s - began_s for began_s, end_s in take_steps(slow, 0.5)]
    assert len(times) > 2
    assert sorted(held_up)[-2] < SEND_S / 2  # one may have met a busy machine


def test_a_step_waits_only_for_a_frame_that_is_due_and_not_for_long(published):
    dear, _, times = published(0.1)
    turns = take_steps(dear, 1.0)
    held_up = [end_s - began_s for began_s, end_s in turns if end_s - began_s > 0.8 * TURN_S]
    assert len(held_up) <= len(times) + 2  # or the machine was busy
    assert sorted(held_up)[len(held_up) // 2] < 0.05 < 0.1


def test_news_are_not_held_back_for_a_step_that_takes_long(published):
    steady, _, times = published(0.0)
    steady.wake()
    wait_until(lambda: len(times) == 1)
    steady.wake()
    wait_until(lambda: len(times) == 2)


def wait_until(holds, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
