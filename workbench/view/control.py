"""The kernel's control channel: it is heard while a cell runs, which comm messages are not.

ipykernel has no documented way to add a message type, so everything here is looked for before it is used; without it, asks come over the
comm only.  Which message types a kernel knows is the kernel's own state: the door hangs on it, not on this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakMethod

REQUEST = "workbench_request"

Listener = Callable[[Mapping[str, Any]], object]


class Door:
    """Answers ``workbench_request``: gives the message to the view that it names, and says whether there was one."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._listeners: dict[str, WeakMethod[Any]] = {}

    def __call__(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """ipykernel's hook, on its control thread."""
        content = parent.get("content", {})
        held = self._listeners.get(str(content.get("view")))
        listener = held() if held is not None else None
        if listener is not None:
            listener(content)
        reply = {"status": "ok", "heard": listener is not None}
        self._kernel.session.send(stream, "workbench_reply", reply, parent, ident)

    def open(self, address: str, listener: Listener) -> None:
        """Messages to ``address`` go to ``listener``, a bound method, while its object lives."""
        self._listeners = {name: held for name, held in self._listeners.items() if held() is not None}
        self._listeners[address] = WeakMethod(listener)

    def close(self, address: str) -> None:
        """Hear nothing for ``address`` any more."""
        self._listeners.pop(address, None)


def door() -> Door | None:
    """The door of the kernel that we are in; ``None`` where there is no kernel, or one that takes no new message types."""
    kernel = kernel_here()
    handlers = getattr(kernel, "control_handlers", None)
    if kernel is None or not isinstance(handlers, dict) or not hasattr(getattr(kernel, "session", None), "send"):
        return None
    if REQUEST not in handlers:
        handlers[REQUEST] = Door(kernel)
    found = handlers[REQUEST]
    return found if isinstance(found, Door) else None


def kernel_here() -> Any | None:
    """The Jupyter kernel that this process is, if any."""
    return getattr(_shell(), "kernel", None)


def in_terminal() -> bool:
    """Whether this is IPython in a terminal, which shows nothing but text."""
    return _shell() is not None and kernel_here() is None


def _shell() -> Any | None:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()
