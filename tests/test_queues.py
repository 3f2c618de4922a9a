"""The waiting queue: its order, and what is said of all who wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.config import EngineConfig
from workbench.draft import StepDraft
from workbench.events import Decision, Reason, Verdict
from workbench.queues import Queues, WaitingQueue
from workbench.request import Request
from workbench.state import RequestState


def state(order, priority=0):
    return RequestState(Request(id=f"r{order}", prompt_token_ids=(1,), priority=priority), order, 100)


def queue_of(count):
    queue = WaitingQueue("fcfs")
    for order in range(count):
        queue.arrive(state(order))
    return queue


VERBS = st.tuples(st.sampled_from(["arrive", "back", "pop", "remove", "sort"]), st.integers(0, 9))


@given(st.sampled_from(["fcfs", "priority"]), st.lists(VERBS))
def test_what_is_said_of_all_who_wait_is_true_after_every_change(policy, verbs):
    queue, plain = WaitingQueue(policy), []

    def insert(new, at):
        plain.insert(at, new)
        if policy == "priority":
            plain.sort(key=lambda other: other.key)

    for order, (verb, number) in enumerate(verbs):
        if verb == "arrive":
            queue.arrive(new := state(order, number))
            insert(new, len(plain))
        elif verb == "back":
            queue.put_back(new := state(order, number))
            insert(new, 0)
        elif verb == "pop" and plain:
            assert queue.pop() is plain.pop(0)
        elif verb == "remove" and plain:
            queue.remove(plain.pop(number % len(plain)))
        elif verb == "sort" and policy == "fcfs":
            queue.sort(lambda other: other.request.priority)
            plain.sort(key=lambda other: other.request.priority)
        names = [other.id for other in plain]
        assert list(queue.ids) == names
        assert queue.refused(Reason.MAX_NUM_SEQS, 0, 4, None, places=True) == {
            name: Decision(name, Verdict.DEFERRED, Reason.MAX_NUM_SEQS, 0, place, 0, 4, None) for place, name in enumerate(names, start=1)
        }


def test_the_same_is_said_again_without_being_made_again():
    queue = queue_of(3)
    first = queue.refused(Reason.MAX_NUM_SEQS, 0, 4, None, places=True)
    assert queue.refused(Reason.MAX_NUM_SEQS, 0, 4, None, places=True) is first
    assert queue.refused(Reason.HEAD_OF_LINE, 0, 0, "r0", places=False)["r2"].needed == 0
    assert queue.refused(Reason.MAX_NUM_SEQS, 0, 4, None, places=True) == first


def test_who_has_a_decision_keeps_it_and_its_place():
    draft, queue = StepDraft(0, 0.0, 0.0, EngineConfig()), queue_of(3)
    draft.defer(next(iter(queue)), Reason.NO_FREE_BLOCKS, 3, 1, 8)
    draft.defer_behind(queue.head, queue)
    assert [(name, told.reason) for name, told in draft.decisions.items()] == [
        ("r0", Reason.NO_FREE_BLOCKS),
        ("r1", Reason.HEAD_OF_LINE),
        ("r2", Reason.HEAD_OF_LINE),
    ]
    assert draft.decisions["r2"].blocker == "r0"


def test_a_copy_says_its_own():
    queues = Queues("fcfs")
    for order in range(2):
        queues.states[f"r{order}"] = one = state(order)
        queues.waiting.arrive(one)
    twin = queues.copy()
    twin.waiting.pop()
    assert (queues.waiting.ids, twin.waiting.ids) == (("r0", "r1"), ("r1",))
