"""A real JupyterLab with real kernels, driven in a real browser.

``lab_server`` is one server on loopback with nothing of the user's in it: own settings, workspaces, runtime files and IPython profile.
``Notebook`` is one notebook open in it.  Cells are counted from 0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from browser import watched_page

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 20
CELL_TIMEOUT_S = 180
# No questions and no news from the network, and only such saving as a test asks for.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
NOTEBOOK = "window.jupyterapp.shell.currentWidget"
KERNEL_IDLE = f"() => window.jupyterapp && {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'"
CONTENT_READY = f"() => window.jupyterapp && {NOTEBOOK}?.context?.isReady && {NOTEBOOK}.content.widgets.length > 0"


@dataclass(frozen=True)
class LabServer:
    """A running server: its address, and the folder whose notebooks it shows."""

    url: str
    folder: Path

    def write(self, name: str, *cells: str) -> None:
        """Put a notebook of code cells into the folder."""
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        made = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=[nbformat.v4.new_code_cell(source) for source in cells])
        nbformat.write(made, self.folder / name)

    def read(self, name: str) -> nbformat.NotebookNode:
        """The notebook as it was last saved."""
        return nbformat.read(self.folder / name, as_version=4)


@contextmanager
def lab_server(folder: Path, *, theme: str = "JupyterLab Light") -> Iterator[LabServer]:
    """A JupyterLab without a token on a free port of loopback; it is ended, and its kernels with it."""
    rooms = {name: folder / name for name in ("notebooks", "config", "data", "runtime", "ipython", "settings", "workspaces")}
    for room in rooms.values():
        room.mkdir(parents=True)
    write_settings(rooms["settings"], theme)
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command(rooms), env=environment(rooms), stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            yield LabServer(address(server, rooms["runtime"], folder / "server.log"), rooms["notebooks"])
        finally:
            stop(server)


def command(rooms: dict[str, Path]) -> list[str]:
    settings = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,
        "ServerApp.root_dir": rooms["notebooks"],
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
        "JupyterNotebookApp.expose_app_in_browser": True,
        "LabApp.user_settings_dir": rooms["settings"],
        "LabApp.workspaces_dir": rooms["workspaces"],
    }
    return [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *(f"--{name}={value}" for name, value in settings.items())]


def environment(rooms: dict[str, Path]) -> dict[str, str]:
    own = {
        "JUPYTER_CONFIG_DIR": rooms["config"],
        "JUPYTER_DATA_DIR": rooms["data"],
        "JUPYTER_RUNTIME_DIR": rooms["runtime"],
        "IPYTHONDIR": rooms["ipython"],
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def write_settings(folder: Path, theme: str) -> None:
    for name, values in {**SETTINGS, "apputils-extension/themes": {"theme": theme}}.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")


def address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """The address that the server says it has, once it answers."""
    told, deadline = runtime / f"jpserver-{server.pid}.json", time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            return json.loads(told.read_text(encoding="utf-8"))["url"]
        except (FileNotFoundError, json.JSONDecodeError):
            time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")


def stop(server: subprocess.Popen) -> None:
    """End the server, and wait for its kernels to be gone with it."""
    if server.poll() is not None:
        return
    kernels = psutil.Process(server.pid).children(recursive=True)
    server.terminate()
    _, left = psutil.wait_procs(kernels, timeout=STOP_TIMEOUT_S)
    for kernel in left:
        kernel.kill()
    try:
        server.wait(2)
    except subprocess.TimeoutExpired:  # stopped while it read a file, it waits for the reading thread for ever
        server.kill()
        server.wait()


@dataclass
class Notebook:
    """A notebook open in a page of JupyterLab."""

    page: Any
    errors: list[str]

    def cell(self, index: int) -> Any:
        """The cell as a locator."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Any:
        """What is shown under a cell, as a locator."""
        return self.cell(index).locator(".jp-OutputArea-output")

    def outputs(self, index: int) -> list[dict]:
        """The outputs of a cell as the notebook file would hold them."""
        return self.page.evaluate(f"(index) => {NOTEBOOK}.content.widgets[index].model.outputs.toJSON()", index)

    def text(self, index: int) -> str:
        """The plain text of a cell's outputs: what was printed, values and errors."""
        return "\n".join(plain(output) for output in self.outputs(index))

    def run_cell(self, index: int, *, wait: bool = True, timeout_s: float = CELL_TIMEOUT_S) -> None:
        """Run a cell as Ctrl+Enter does; without ``wait`` come back at once."""
        self.page.evaluate(
            f"(index) => {{ {NOTEBOOK}.content.deselectAll(); {NOTEBOOK}.content.activeCellIndex = index; }}",
            index,
        )
        self._command("notebook:run-cell")
        if wait:
            self.wait_until_idle(timeout_s=timeout_s)

    def run_all(self, *, timeout_s: float = CELL_TIMEOUT_S) -> None:
        """Run every cell as the menu does, and wait for the last."""
        self._command("notebook:run-all-cells")
        self.wait_until_idle(timeout_s=timeout_s)

    def interrupt(self) -> None:
        """The notebook's ■."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")

    def wait_until_idle(self, *, timeout_s: float = CELL_TIMEOUT_S) -> None:
        """Wait until every cell that was run from here has ended, and the kernel, having sent all its output, says that it is idle."""
        self.page.wait_for_function(f"() => !window.cellsRunning && ({KERNEL_IDLE})()", timeout=timeout_s * 1e3)

    def scroll_to(self, index: int) -> None:
        """Bring a cell on screen; JupyterLab draws only what is."""
        self.cell(index).scroll_into_view_if_needed()

    def save(self) -> None:
        """Write the notebook to disk."""
        self.page.evaluate(f"() => {NOTEBOOK}.context.save()")

    def reload(self) -> None:
        """Load the page again; the kernel goes on."""
        self.page.reload()
        self.wait_until_open()

    def _command(self, name: str) -> None:
        self.page.evaluate(
            """(name) => {
                window.cellsRunning = (window.cellsRunning ?? 0) + 1;
                window.jupyterapp.commands.execute(name).finally(() => { window.cellsRunning -= 1; });
            }""",
            name,
        )

    def wait_until_open(self, *, kernel: bool = True) -> None:
        self.page.wait_for_function(CONTENT_READY, timeout=START_TIMEOUT_S * 1e3)
        if kernel:
            self.page.wait_for_function(KERNEL_IDLE, timeout=START_TIMEOUT_S * 1e3)


@contextmanager
def opened_notebook(
    browser,
    server: LabServer,
    name: str,
    *,
    kernel: bool = True,
    width: int = 1250,
    height: int = 1000,
    ignore: str = "(?!)",
    seven: bool = False,
) -> Iterator[Notebook]:
    """Open a notebook in a workspace of its own; without ``kernel`` none is started, as for a reader.

    ``seven`` shows it in Notebook 7, which the same server serves.  What goes wrong on the page fails the test, but
    for messages that match ``ignore``.
    """
    with watched_page(browser, width=width, height=height, ignore=ignore) as (page, errors):
        notebook = Notebook(page, errors)
        if seven:
            page.goto(f"{server.url}notebooks/{name}")
            notebook.wait_until_open()
            yield notebook
            return
        page.goto(f"{server.url}lab/workspaces/{uuid.uuid4().hex}" + (f"/tree/{name}" if kernel else ""))
        if not kernel:
            page.wait_for_function("() => window.jupyterapp?.shell.currentWidget", timeout=START_TIMEOUT_S * 1e3)
            preference = {"shouldStart": False, "autoStartDefault": False}
            page.evaluate(
                "(args) => window.jupyterapp.commands.execute('docmanager:open', args)", {"path": name, "kernelPreference": preference}
            )
        notebook.wait_until_open(kernel=kernel)
        yield notebook


def plain(output: dict) -> str:
    if output["output_type"] == "stream":
        return output["text"]
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}"
    return output["data"].get("text/plain", "")
