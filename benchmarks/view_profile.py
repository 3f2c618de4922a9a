"""Which panel of the view takes how long: a sampled profile of the readable bundle, its samples told apart by source file."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import ROOT

VIEW = ROOT / "extensions" / "view"
_MODULE = re.compile(r"^// (src/\S+|node_modules/\S+)$")
_PANEL = re.compile(r"src/panels/(\w+)\.ts")
_REST = {"(garbage collector)": "garbage collection", "(program)": "style, layout, paint"}


def readable_bundle(folder: Path) -> Path:
    """The view's script, not minified: esbuild names each source file in a comment before its code."""
    made = folder / "view.js"
    command = [VIEW / "node_modules" / ".bin" / "esbuild", "src/index.ts", "--bundle", "--format=esm", "--target=es2022", "--charset=utf8"]
    subprocess.run([*map(str, command), "--log-level=warning", f"--outfile={made}"], cwd=VIEW, check=True)
    return made


class Sources:
    """From a line of the bundle to the source file that it came from."""

    def __init__(self, bundle: Path) -> None:
        self._files: list[str] = []
        name = ""
        for line in bundle.read_text(encoding="utf-8").splitlines():
            found = _MODULE.match(line)
            name = found[1] if found else name
            self._files.append(name)

    def file(self, call: dict[str, Any]) -> str:
        """The file of a profile's call frame; empty for what is not of the bundle."""
        line = call["lineNumber"]
        return self._files[line] if call["url"].endswith("/view.js") and 0 <= line < len(self._files) else ""


def by_panel(profile: dict[str, Any], sources: Sources) -> Counter[str]:
    """Milliseconds by panel, whatever it calls included; what belongs to none by what it is.  Idle time is left out."""
    nodes = {node["id"]: node for node in profile["nodes"]}
    parents = {child: node["id"] for node in profile["nodes"] for child in node.get("children", ())}
    owners: dict[int, str] = {}
    for number in _from_the_root(nodes):
        owners[number] = _owner(nodes[number]["callFrame"], owners.get(parents.get(number, -1), ""), sources)
    spent: Counter[str] = Counter()
    for number, delta in zip(profile["samples"], profile["timeDeltas"], strict=True):
        spent[owners[number]] += delta / 1e3
    del spent["(idle)"]
    return spent


def _from_the_root(nodes: dict[int, Any]) -> list[int]:
    children = {child for node in nodes.values() for child in node.get("children", ())}
    order = [number for number in nodes if number not in children]
    for number in order:
        order += nodes[number].get("children", ())
    return order


def _owner(call: dict[str, Any], above: str, sources: Sources) -> str:
    if call["functionName"] in (*_REST, "(idle)"):
        return _REST.get(call["functionName"], "(idle)")
    if above.startswith("panel "):
        return above
    file = sources.file(call)
    panel = _PANEL.search(file)
    if panel:
        return f"panel {panel[1]}"
    if file.startswith("node_modules"):
        return "uPlot, beyond a panel's draw()"
    return "screen, tape and model" if file else above or "page"
