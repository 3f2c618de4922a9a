"""A real kernel with a live view in it, the test playing the browser: comm messages, the control channel, and frames as they come."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

TESTS = Path(__file__).parent
TIMEOUT_S = 90
# Beside the environment's own ipykernel an older one, without subshells; `make test` puts it here.
OLDER = Path(sys.prefix) / "ipykernel-6.31"


class ViewKernel:
    """One kernel; every message that it publishes is kept in order."""

    def __init__(self, *, older: bool = False) -> None:
        places = [TESTS, TESTS.parent, *([OLDER] if older else [])]
        path = os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": path})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self.seen: list[dict[str, Any]] = []
        self.run("import faulthandler, signal, sys\nfaulthandler.register(signal.SIGUSR1, sys.__stderr__)")

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    # -- cells -----------------------------------------------------------------------------------------------------

    def start(self, code: str) -> str:
        return self.client.execute(code)

    def run(self, code: str) -> list[dict[str, Any]]:
        """Execute a cell to its end; its own messages.  An error in it fails the test."""
        return self.finish(self.start(code))

    def finish(self, request: str) -> list[dict[str, Any]]:
        def ended(message: dict[str, Any]) -> bool:
            idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            return idle and message["parent_header"].get("msg_id") == request

        self.wait_for(ended)
        own = [message for message in self.seen if message["parent_header"].get("msg_id") == request]
        problems = [message["content"]["evalue"] for message in own if message["msg_type"] == "error"]
        assert not problems, problems
        return own

    def value(self, code: str) -> str:
        own = self.run(code)
        return next(message["content"]["data"]["text/plain"] for message in own if message["msg_type"] == "execute_result")

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The next message that is wanted."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except Empty:
                continue
            self.seen.append(message)
            if wanted(message):
                return message
        self.manager.signal_kernel(signal.SIGUSR1)  # says where each of its threads stands
        raise TimeoutError("the message did not come")

    def drain(self, for_s: float) -> None:
        """Take in what comes for a while."""
        deadline = time.monotonic() + for_s
        while time.monotonic() < deadline:
            with suppress(Empty):
                self.seen.append(self.client.get_iopub_msg(timeout=0.02))

    # -- views -----------------------------------------------------------------------------------------------------

    def opened_views(self) -> list[str]:
        """Comm ids of the views that were opened so far, the newest last."""
        opened = [message["content"] for message in self.seen if message["msg_type"] == "comm_open"]
        return [content["comm_id"] for content in opened if content["data"].get("state", {}).get("_model_name") == "AnyModel"]

    def frames(self, comm_id: str) -> list[tuple[dict[str, Any], list[bytes]]]:
        """What the view sent so far: contents and buffers."""
        found = []
        for message in self.seen:
            data = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
            if data.get("method") == "custom" and message["content"]["comm_id"] == comm_id:
                found.append((data["content"], [bytes(buffer) for buffer in message["buffers"]]))
        return found

    def ask(self, comm_id: str, op: str, *, control: bool = False, client: str = "test", **args: Any) -> int:
        """Ask as a button does; the number of the ask."""
        number = self._asks = getattr(self, "_asks", 0) + 1
        content = {"kind": "ask", "id": number, "client": client, "op": op, "run": 0, **args}
        if control:
            session, channel = self.client.session, self.client.control_channel
            channel.send(session.msg("workbench_request", {**content, "view": comm_id}))
        else:
            data = {"comm_id": comm_id, "data": {"method": "custom", "content": content}}
            self.client.shell_channel.send(self.client.session.msg("comm_msg", data))
        return number

    def answer(self, comm_id: str, number: int, timeout_s: float = 20) -> dict[str, Any]:
        """The reply to an ask."""

        def is_it(message: dict[str, Any]) -> bool:
            content = custom(message, comm_id)
            return content.get("kind") == "reply" and content["id"] == number

        return custom(self.wait_for(is_it, timeout_s), comm_id)

    def wait_for_state(self, comm_id: str, state: str, run: int = 0, timeout_s: float = 20) -> dict[str, Any]:
        """The first frame from which on a run stands so."""
        told = [(content, part["status"]) for content, _ in self.frames(comm_id) for part in content.get("parts", ()) if part["run"] == run]
        if told and told[-1][1]["state"] == state:
            return told[-1][0]

        def is_it(message: dict[str, Any]) -> bool:
            return any(part["run"] == run and part["status"]["state"] == state for part in custom(message, comm_id).get("parts", ()))

        return custom(self.wait_for(is_it, timeout_s), comm_id)


def custom(message: dict[str, Any], comm_id: str) -> dict[str, Any]:
    """The content of a custom message of one comm; empty for anything else."""
    if message["msg_type"] != "comm_msg" or message["content"]["comm_id"] != comm_id:
        return {}
    data = message["content"]["data"]
    return data["content"] if data.get("method") == "custom" else {}


@contextmanager
def view_kernel(*, older: bool = False) -> Iterator[ViewKernel]:
    if older and not (OLDER / "ipykernel").is_dir():
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER", "0") not in ("", "0"):
            pytest.fail(f"there is no older ipykernel in {OLDER.name}: make test installs it")
        pytest.skip("there is no older ipykernel: make test installs it")
    kernel = ViewKernel(older=older)
    try:
        yield kernel
    finally:
        kernel.close()
