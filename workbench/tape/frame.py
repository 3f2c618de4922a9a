"""A whole trace in one frame, for a page that no kernel stands behind."""

from __future__ import annotations

from typing import Any

import msgspec

from workbench.tape.meta import meta
from workbench.tape.names import TextOf
from workbench.tape.packer import Packer
from workbench.trace import Trace


def snapshot(
    trace: Trace,
    *,
    name: str = "run",
    state: str = "finished",
    first_step: int | None = None,
    text_of: TextOf | None = None,
    limit: int = 2000,
) -> tuple[dict[str, Any], list[bytes]]:
    """The frame that holds all steps of ``trace`` from ``first_step`` on, and its buffers, one for each part of at most ``limit`` steps."""
    first = trace.first_step if first_step is None else max(first_step, trace.first_step)
    packer = Packer(trace, first, text_of=text_of)
    status = {"state": state, "config": msgspec.to_builtins(trace.config)}
    found = []
    while (part := packer.pack(limit)) is not None:
        found.append(part)
    runs = [{"run": 0, "name": name, "live": False, "meta": meta(trace, first)}]
    parts = [{"run": 0, "status": status, "tape": {**part.header, "buffer": index}} for index, part in enumerate(found)]
    frame = {"kind": "frame", "seq": 0, "runs": runs, "parts": parts or [{"run": 0, "status": status}]}
    return frame, [part.buffer for part in found]
