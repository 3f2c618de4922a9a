"""``Mailbox``: commands reach a running engine between two of its steps.

Whoever calls from outside (a cell, a button, another thread) never touches the scheduler while a step is under way: the
command waits here until the run that owns the engine picks it up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from workbench.interrupts import wait_for_event


class Owner(Protocol):
    """Whoever steps the engine on a thread of its own."""

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is that thread."""
        ...


OwnerT = TypeVar("OwnerT", bound=Owner)


class Mailbox(Generic[OwnerT]):
    """A queue of commands and the run that will apply them; ``owner`` is ``None`` while nobody runs."""

    def __init__(self) -> None:
        self.owner: OwnerT | None = None
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._guard = threading.Lock()

    def call(self, command: Callable[[], Any], idle_lock: AbstractContextManager[Any]) -> Any:
        """Apply ``command`` between two steps and return its result; at once, under ``idle_lock``, when nobody runs."""
        with self._guard:
            queued = self.owner is not None and not self.owner.is_current_thread
            if queued:
                answer: Future[Any] = Future()
                self._commands.append((command, answer))
        if queued:
            answered = threading.Event()
            answer.add_done_callback(lambda _: answered.set())
            wait_for_event(answered)
            return answer.result()
        with idle_lock:
            return command()

    def apply(self) -> None:
        """Run everything that waits; an error goes back to whoever asked."""
        while self._commands:
            command, answer = self._commands.popleft()
            try:
                answer.set_result(command())
            except BaseException as error:
                answer.set_exception(error)

    def release(self) -> None:
        """The owner is done: apply what still waits and let others in."""
        with self._guard:
            self.apply()
            self.owner = None
