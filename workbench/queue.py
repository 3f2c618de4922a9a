"""``WaitingQueue``: who is admitted next.

``fcfs`` keeps arrival order, and a preempted request goes back to the front.  ``priority`` keeps the smallest
``(priority, arrival)`` first, preempted or not.  Both are vLLM's rules.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from typing import Literal

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
        return self._states.pop(0)

    def remove(self, state: RequestState) -> None:
        self._states.remove(state)


def _key(state: RequestState) -> tuple[int, int]:
    return state.key
