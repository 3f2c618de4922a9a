"""A saved screen as bytes: the view's code, one frame with its columns, and the sentences, compressed as one.

    bytes 0–7    length of the JSON, little endian
    8–           JSON: script, style, uplot (texts), saved (frame, sentences by run), buffers ([start, end] of each)
    …            the buffers, each on a multiple of 8 bytes

zlib's format, which browsers call "deflate", around all of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from workbench.events import Verdict
from workbench.tape.why import why_payload, whys
from workbench.trace import Trace
from workbench.view.files import script, style, uplot
from workbench.view.sources import Source

_LEVEL = 6  # 9 saves one part in a hundred and takes three times as long
_SPAN = [2**40, 2**40]  # as long as any: the JSON must say where the buffers lie, and they lie after it


class Budget(NamedTuple):
    """Seconds for telling why: in ``sentences`` for every step, and by the ``changes`` that would have let a request run."""

    sentences: float
    changes: float


def saved_screen(sources: Sequence[Source], budget: Budget, look: str = "") -> bytes:
    """The screen of ``sources`` as they are now, packed; ``budget`` is for each of them, ``look`` is style of its own.

    Raises :class:`ViewError` when the view's files were not built.
    """
    page = {"script": script(), "style": style() + look, "uplot": uplot()}
    frame, buffers = _frame(sources)
    told = [_whys(source, budget) for source in sources]
    return zlib.compress(_joined({**page, "saved": {"frame": frame, "whys": told}}, buffers), _LEVEL)


def _frame(sources: Sequence[Source]) -> tuple[dict[str, Any], list[bytes]]:
    """The first frame that a screen would be sent, of runs that nobody can steer."""
    parts, buffers = list[dict[str, Any]](), list[bytes]()
    for source in sources:
        status = source.status(whole=True)
        parts.append({"run": source.number, "status": status})
        for part in source.parts():
            parts.append({"run": source.number, "status": {**status}, "tape": {**part.header, "buffer": len(buffers)}})
            buffers.append(part.buffer)
    runs = [{**source.info(), "live": False} for source in sources]
    return {"kind": "frame", "seq": 0, "runs": runs, "parts": parts}, buffers


def _whys(source: Source, budget: Budget) -> list[dict[str, Any]]:
    """Sentences for the steps from the first on, as far as the budget reaches; changes where somebody begins to wait."""
    trace, first = source.trace, source.first_step
    told = whys(trace, first, first + len(trace), budget.sentences)
    ends, longest = perf_counter() + budget.changes, 0.0
    for step in _turns(trace):
        began = perf_counter()
        if step - first >= len(told) or began + longest > ends:  # the later the step, the longer the way to its scheduler
            break
        told[step - first] = why_payload(trace, step)  # from the trace alone: the engine may be at work, or gone
        longest = max(longest, perf_counter() - began)
    return told


def _turns(trace: Trace) -> Iterator[int]:
    """The steps in which a request is cut for another reason than in the step before."""
    before = dict[str, tuple[Any, ...]]()
    for record in trace:
        cut = {
            one.request_id: (one.verdict, one.reason) for one in record.decisions if one.verdict in (Verdict.DEFERRED, Verdict.PREEMPTED)
        }
        if any(before.get(name) != why for name, why in cut.items()):
            yield record.step
        before = cut


def _joined(page: dict[str, Any], buffers: Sequence[bytes]) -> bytes:
    begin = _aligned(8 + len(_json({**page, "buffers": [_SPAN] * len(buffers)})))
    spans, end = list[list[int]](), begin
    for buffer in buffers:
        spans.append([end, end + len(buffer)])
        end = _aligned(end + len(buffer))
    text = _json({**page, "buffers": spans})
    whole = bytearray(end)
    whole[:8] = len(text).to_bytes(8, "little")
    whole[8 : 8 + len(text)] = text
    for (start, stop), buffer in zip(spans, buffers, strict=True):
        whole[start:stop] = buffer
    return bytes(whole)


def _json(page: dict[str, Any]) -> bytes:
    # Escapes beyond ASCII: a prompt may hold half of a surrogate pair, which has no UTF-8.
    return json.dumps(page, separators=(",", ":")).encode("ascii")


def _aligned(offset: int) -> int:
    return -(-offset // 8) * 8
