from __future__ import annotations

import os
import signal
import threading

import pytest

from workbench import Engine
from workbench.interrupts import held_back, wait_for_event
from workbench.runners.scripted import ScriptedRunner


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # a signal is handled between bytecodes, not at once
        pass


def test_an_interrupt_waits_until_the_block_ends():
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back():
        interrupt()
        reached.append("the end")
    assert reached == ["the end"]


def test_an_interrupt_strikes_at_once_where_it_is_allowed():
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back() as interrupts, interrupts.allowed():
        interrupt()
        reached.append("too far")
    assert reached == []


def test_one_that_came_before_is_raised_where_it_is_allowed():
    with pytest.raises(KeyboardInterrupt), held_back() as interrupts:
        interrupt()
        with interrupts.allowed():
            raise AssertionError("too far")


def test_a_block_in_a_block_knows_of_an_interrupt_and_leaves_it_to_the_outer_one():
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back() as outer:
        interrupt()
        with held_back() as inner:
            assert outer.is_waiting
            assert inner.is_waiting
        with held_back() as inner:
            interrupt()
            assert inner.is_waiting
        reached.append("the end")
    assert reached == ["the end"]


@pytest.mark.parametrize("_", range(20))
def test_an_interrupt_while_waiting_for_an_event_leaves_the_event_usable(_):
    event = threading.Event()
    killer = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        killer.start()
        while not wait_for_event(event, 0.0001):
            pass
    killer.join()
    setter = threading.Thread(target=event.set, daemon=True)
    setter.start()
    setter.join(5)
    assert event.is_set()


def test_waiting_for_an_event_ends_in_time_and_with_the_event():
    event = threading.Event()
    assert not wait_for_event(event, 0.01)
    threading.Timer(0.01, event.set).start()
    assert wait_for_event(event, 5)
    assert wait_for_event(event)
    assert wait_for_event(event, 0)


def test_the_handler_is_the_old_one_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with held_back() as interrupts, interrupts.allowed():
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_hold_nothing_back():
    handlers = []

    def work() -> None:
        with held_back() as interrupts, interrupts.allowed():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


class InterruptedAt(ScriptedRunner):
    def __init__(self, step: int) -> None:
        super().__init__(lambda name, position: position)
        self.step = step

    def execute(self, plan):
        if plan.step == self.step:
            self.step = -1
            interrupt()
        return super().execute(plan)


@pytest.mark.parametrize("step", range(5))
def test_an_interrupt_in_the_middle_of_a_step_loses_nothing(step):
    engine = Engine(InterruptedAt(step), num_blocks=16, debug=True)
    engine.add_request(list(range(20)), max_tokens=5)
    tokens, interrupted = [], 0
    while engine.has_unfinished:
        try:
            tokens += [token for sampled in engine.step().sampled for token in sampled.token_ids]
        except KeyboardInterrupt:
            interrupted += 1
    assert (tokens, interrupted) == ([0, 1, 2, 3, 4], 1)
