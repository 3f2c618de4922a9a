"""A saved screen as bytes: the view's code, one frame with its columns, and the sentences, compressed as one.

    bytes 0–7    length of the JSON, little endian
    8–           JSON: script, style, uplot (texts), saved (frame, sentences by run), buffers ([start, end] of each)
    …            the buffers, each on a multiple of 8 bytes

zlib's format, which browsers call "deflate", around all of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from workbench.tape.why import whys
from workbench.view.files import script, style, uplot
from workbench.view.sources import Source

_LEVEL = 6  # 9 saves one part in a hundred and takes three times as long
_SPAN = [2**40, 2**40]  # as long as any: the JSON must say where the buffers lie, and they lie after it


def saved_screen(sources: Sequence[Source], budget_s: float, look: str = "") -> bytes:
    """The screen of ``sources`` as they are now, packed; ``budget_s`` seconds may be spent on sentences, ``look`` is style of its own.

    Raises :class:`ViewError` when the view's files were not built.
    """
    page = {"script": script(), "style": style() + look, "uplot": uplot()}
    frame, buffers = _frame(sources)
    told = [_sentences(source, budget_s / len(sources)) for source in sources]
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


def _sentences(source: Source, budget_s: float) -> list[dict[str, Any]]:
    first = source.first_step
    return whys(source.trace, first, first + len(source.trace), budget_s)


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
