"""``%%infer`` in a real kernel, spoken to as JupyterLab does: over its sockets."""

from __future__ import annotations

import time
from queue import Empty

import pytest
from jupyter_client.manager import KernelManager

pytestmark = [pytest.mark.kernel, pytest.mark.model]
TIMEOUT_S = 120


class Kernel:
    """One kernel and what its cells print."""

    def __init__(self) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str) -> list[dict]:
        """Execute a cell to its end; its messages."""
        return list(self.messages(self.client.execute(code)))

    def messages(self, request: str):
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            yield message
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
        raise TimeoutError("the cell did not end")

    def value(self, code: str) -> str:
        return result_of(self.run(code))["text/plain"]


def result_of(messages: list[dict]) -> dict[str, str]:
    problems = [message["content"] for message in messages if message["msg_type"] == "error"]
    assert not problems, problems
    return next(message["content"]["data"] for message in messages if message["msg_type"] == "execute_result")


@pytest.fixture(scope="module")
def kernel():
    made = Kernel()
    result = made.run("%load_ext workbench")
    assert not [message for message in result if message["msg_type"] in ("error", "stream")]
    yield made
    made.close()


def test_a_cell_streams_text_and_ends_as_a_static_result(kernel):
    messages = kernel.run("%%infer --max-tokens 8 --num-blocks 32 -o run\nWhat is gravity?\nName three primes.")
    result = result_of(messages)
    assert {"text/plain", "text/html"} <= set(result)
    assert "<svg" in result["text/html"]
    assert result["text/html"].count("<script") == 1, "the player, and nothing else"
    updates = [message for message in messages if message["msg_type"] == "update_display_data"]
    assert updates, "nothing was shown while it ran"
    assert len(messages) < 200
    assert kernel.value("[len(output.token_ids) for output in run.outputs]") == "[8, 8]"


def _brings_steps(message: dict) -> bool:
    """Whether a message of the live view holds steps."""
    content = message["content"].get("data", {}).get("content", {}) if message["msg_type"] == "comm_msg" else {}
    return any(part.get("tape", {}).get("count") for part in content.get("parts", ()))


def test_an_interrupt_returns_the_partial_result_and_the_engine_goes_on(kernel):
    kernel.run('from workbench import Engine\nengine = Engine("smollm2", num_blocks=64)')
    request = kernel.client.execute("%%infer --engine engine --max-tokens 900 --ignore-eos -o partial\nTell me a very long story.")
    messages, interrupted = [], False
    for message in kernel.messages(request):
        messages.append(message)
        if not interrupted and _brings_steps(message):
            kernel.manager.interrupt_kernel()
            interrupted = True
    assert interrupted
    assert "text/html" in result_of(messages)
    assert kernel.value("partial.status, partial.outputs[0].finish_reason") == "('stopped', 'abort')"
    assert kernel.value("0 < len(partial.outputs[0].token_ids) < 900") == "True"
    kernel.run("%%infer --engine engine --max-tokens 4 -o again\nHello")
    assert kernel.value("(again.status, engine.has_unfinished)") == "('finished', False)"


def test_a_background_run_leaves_the_notebook_free_and_can_be_stopped(kernel):
    started = time.monotonic()
    kernel.run("%%infer --background --max-tokens 2000 --ignore-eos -o long;\nTell me a very long story.")
    assert kernel.value("long.status") == "'running'"
    assert time.monotonic() - started < 60
    assert "running" in kernel.value("%infer status")
    assert "stopped" in kernel.value("%infer stop")
    assert kernel.value("long.status") == "'stopped'"


def test_a_mistake_is_one_line_on_stderr(kernel):
    messages = kernel.run("%%infer --max-token 8\nhello")
    printed = "".join(message["content"]["text"] for message in messages if message["msg_type"] == "stream")
    assert printed.strip().splitlines() == ["UsageError: unknown option --max-token: did you mean --max-tokens?"]


def test_tab_completes_options_over_the_wire(kernel):
    kernel.client.complete("%%infer --max-num-s", cursor_pos=19)
    reply = kernel.client.get_shell_msg(timeout=TIMEOUT_S)
    while reply["msg_type"] != "complete_reply":
        reply = kernel.client.get_shell_msg(timeout=TIMEOUT_S)
    assert reply["content"]["matches"] == ["--max-num-seqs"]
    assert reply["content"]["cursor_start"] == len("%%infer ")
