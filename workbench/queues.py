"""The queues: who waits, who runs, and who is admitted next.

``fcfs`` keeps arrival order, and a preempted request goes back to the front.  ``priority`` keeps the smallest
``(priority, arrival)`` first, preempted or not.  Both are vLLM's rules.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from typing import Literal

from workbench.errors import IntegrityError
from workbench.state import RequestState


class WaitingQueue:
    """The waiting requests in the order in which they will be asked."""

    def __init__(self, policy: Literal["fcfs", "priority"]) -> None:
        self.policy = policy
        self._states: list[RequestState] = []

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[RequestState]:
        return iter(self._states)

    @property
    def head(self) -> RequestState:
        """Who is asked first."""
        return self._states[0]

    def arrive(self, state: RequestState) -> None:
        """A request that never ran joins."""
        if self.policy == "fcfs":
            self._states.append(state)
        else:
            insort(self._states, state, key=_key)

    def put_back(self, state: RequestState) -> None:
        """A preempted request returns."""
        if self.policy == "fcfs":
            self._states.insert(0, state)
        else:
            insort(self._states, state, key=_key)

    def pop(self) -> RequestState:
        """Take the head out."""
        return self._states.pop(0)

    def remove(self, state: RequestState) -> None:
        """Take any one out."""
        self._states.remove(state)


def _key(state: RequestState) -> tuple[int, int]:
    return state.key


class Queues:
    """Every unfinished request, in exactly one of three places; and those that are done but hold their batch's place."""

    def __init__(self, policy: Literal["fcfs", "priority"]) -> None:
        self.states: dict[str, RequestState] = {}  # unfinished, in the order in which they were added
        self.pending: list[RequestState] = []  # their arrival lies ahead
        self.waiting = WaitingQueue(policy)
        self.running: list[RequestState] = []  # batch order: the order of admission
        self.held: list[RequestState] = []

    def check_integrity(self) -> None:
        """Raise :class:`IntegrityError` unless each unfinished request is in exactly one queue."""
        listed = sorted(state.id for state in (*self.running, *self.waiting, *self.pending))
        if listed != sorted(self.states):
            raise IntegrityError(f"the queues hold {listed}, unfinished are {sorted(self.states)}")
