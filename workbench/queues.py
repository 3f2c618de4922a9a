"""The queues: who waits, who runs, and who is admitted next.

``priority`` keeps the smallest ``(priority, arrival)`` first, preempted or not.  Every other policy keeps arrival order, and a
preempted request goes back to the front.  Both are vLLM's rules.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from workbench.errors import IntegrityError
from workbench.events import Decision, Reason, Verdict
from workbench.state import RequestState


class WaitingQueue:
    """The waiting requests in the order in which they will be asked.

    What is said of all of them together is kept until the queue changes: with a thousand waiting, a step would else be spent on
    saying the same again, and a record on holding it.
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._states: list[RequestState] = []
        self._ids: tuple[str, ...] | None = None
        self._refused: tuple[object, dict[str, Decision]] | None = None

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[RequestState]:
        return iter(self._states)

    @property
    def head(self) -> RequestState:
        """Who is asked first."""
        return self._states[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids, in order."""
        if self._ids is None:
            self._ids = tuple([state.id for state in self._states])
        return self._ids

    def refused(self, reason: Reason, available: int, limit: int, blocker: str | None, *, places: bool) -> dict[str, Decision]:
        """One decision for each: deferred, for a reason they share; ``needed`` is the place in the queue, or 0.  Not to be changed."""
        key = (reason, available, limit, blocker, places)
        if self._refused is None or self._refused[0] != key:
            told = {}
            for place, name in enumerate(self.ids, start=1):
                told[name] = Decision(name, Verdict.DEFERRED, reason, 0, place if places else 0, available, limit, blocker)
            self._refused = key, told
        return self._refused[1]

    def arrive(self, state: RequestState) -> None:
        """A request that never ran joins."""
        self._changes()
        if self.policy == "priority":
            insort(self._states, state, key=_key)
        else:
            self._states.append(state)

    def put_back(self, state: RequestState) -> None:
        """A preempted request returns."""
        self._changes()
        if self.policy == "priority":
            insort(self._states, state, key=_key)
        else:
            self._states.insert(0, state)

    def pop(self) -> RequestState:
        """Take the head out."""
        self._changes()
        return self._states.pop(0)

    def remove(self, state: RequestState) -> None:
        """Take any one out."""
        self._changes()
        self._states.remove(state)

    def sort(self, key: Callable[[RequestState], Any]) -> None:
        """Put the waiting requests in another order; equal keys keep theirs."""
        self._changes()
        self._states.sort(key=key)

    def follow(self, policy: str) -> None:
        """Order by another policy from now on: by priority at once, else by who was added first."""
        self.policy = policy
        self.sort(_key if policy == "priority" else lambda state: state.key[1])

    def _changes(self) -> None:
        self._ids = self._refused = None


def _key(state: RequestState) -> tuple[int, int]:
    return state.key


class Queues:
    """Every unfinished request, in exactly one of three places; and those that are done but hold their batch's place."""

    def __init__(self, policy: str) -> None:
        self.states: dict[str, RequestState] = {}  # unfinished, in the order in which they were added
        self.pending: list[RequestState] = []  # their arrival lies ahead
        self.waiting = WaitingQueue(policy)
        self.running: list[RequestState] = []  # batch order: the order of admission
        self.held: list[RequestState] = []

    def everyone(self) -> list[RequestState]:
        """Every request that holds, or may come to hold, blocks: unfinished ones as they were added, then those held."""
        return [*self.states.values(), *self.held]

    def copy(self) -> Queues:
        """Independent queues of independent states."""
        twins = {id(state): state.copy() for state in self.everyone()}

        def twin_of(states: Iterable[RequestState]) -> list[RequestState]:
            return [twins[id(state)] for state in states]

        copied = Queues(self.waiting.policy)
        copied.states = {name: twins[id(state)] for name, state in self.states.items()}
        copied.pending, copied.running, copied.held = twin_of(self.pending), twin_of(self.running), twin_of(self.held)
        copied.waiting._states = twin_of(self.waiting)
        return copied

    def check_integrity(self) -> None:
        """Raise :class:`IntegrityError` unless each unfinished request is in exactly one queue."""
        listed = sorted(state.id for state in (*self.running, *self.waiting, *self.pending))
        if listed != sorted(self.states):
            raise IntegrityError(f"the queues hold {listed}, unfinished are {sorted(self.states)}")
