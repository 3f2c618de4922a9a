"""``Columns``: the tables of a tape as growable columns, cut into buffers that a browser maps without copying.

A table has a fixed set of columns; every step says how many rows of each table are its own, so any stretch of steps can be cut out.
Numbers are little endian, and each column of a buffer begins at a multiple of 8 bytes.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

Header = list[tuple[str, str, int, int]]
Row = Sequence[float]
Rows = list[float]  # rows one after the other: a tuple for each would be work for the garbage collector

NONE = -(2**31)
"""Stands in an ``i4`` column where there is no number."""
NO_CODE = 255
"""Stands in a ``u1`` column of codes, or of numbers of drafts, where there is none."""
NO_TOKEN = 2**32 - 1
"""Stands in a ``u4`` column of token ids where the id is not known, or where a draft was a placeholder."""

_CODES = {"f8": "d", "f4": "f", "u4": "I", "i4": "i", "u2": "H", "i2": "h", "u1": "B"}
_RANGES = {"u4": (0, 2**32 - 1), "i4": (-(2**31) + 1, 2**31 - 1), "u2": (0, 2**16 - 1), "i2": (-(2**15), 2**15 - 1), "u1": (0, 255)}

_PADDING = [bytes(-size % 8) for size in range(8)]

ROWS = ("lanes", "cells", "touches", "tokens", "rounds", "tops", "drafts")
"""The tables of which a step may have several rows."""


def _fields(text: str) -> dict[str, str]:
    """``"a b:u4 c:f4"``: names, each group followed by its type."""
    found: dict[str, str] = {}
    names: list[str] = []
    for word in text.split():
        name, _, dtype = word.partition(":")
        names.append(name)
        if dtype:
            found.update(dict.fromkeys(names, dtype))
            names = []
    return found


TABLES = {
    "steps": _fields(
        "start_s:f8 plan_ms prepare_ms forward_ms sample_ms commit_ms draft_ms:f4 token_limit token_used seq_limit seq_used "
        f"kv_in_use kv_cached kv_free running waiting:u4 num_drafts:u1 wasted:i4 {' '.join(ROWS)}:u4"
    ),
    "lanes": _fields(
        "request:u4 state verdict reason:u1 start end cached:u4 drafts sampled:u2 accepted:i2 finish:u1 needed available limit blocker:i4"
    ),
    "cells": _fields("block:u4 status:u1 owners content index hash order:i4"),
    "touches": _fields("block:u4 kind:u1 request:i4"),
    "tokens": _fields("request id:u4 origin:u1 logprob:f4 rank:u4 tops:u1"),
    "rounds": _fields("request:u4 proposed accepted emitted:u2 draft_ms verify_ms:f4"),
    "tops": _fields("id:u4 logprob:f4"),
    "drafts": _fields("id:u4"),
}
"""Every table with its columns and their types, in the order of the rows that are put in."""


class Table:
    """One table: rows come in one after the other, and stand in columns."""

    def __init__(self, name: str) -> None:
        self.columns: list[tuple[str, str, array[Any]]] = [
            (f"{name}.{field}", dtype, array(_CODES[dtype])) for field, dtype in TABLES[name].items()
        ]
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, rows: Rows) -> None:
        """Put rows in, each with a value for every column; what a column cannot hold becomes the nearest that it can."""
        width = len(self.columns)
        for place, (_, dtype, column) in enumerate(self.columns if rows else ()):
            values = rows[place::width]
            try:
                column.extend(values)
            except OverflowError:
                del column[self._length :]
                low, high = _RANGES[dtype]
                column.extend([value if value == NONE else min(max(value, low), high) for value in values])
        self._length += len(rows) // width

    def cut(self, length: int) -> None:
        """Forget all rows from ``length`` on."""
        for _, _, column in self.columns:
            del column[length:]
        self._length = length


class Columns:
    """All tables of one tape."""

    def __init__(self) -> None:
        self.tables = {name: Table(name) for name in TABLES}
        self._widths = [(name, len(TABLES[name])) for name in ROWS]
        self._starts = {name: array("Q", [0]) for name in ROWS}  # first row of each step, one more than steps

    def __len__(self) -> int:
        return len(self.tables["steps"])

    def add_steps(self, steps: Sequence[tuple[Row, dict[str, Rows]]]) -> None:
        """Put steps in: of each its row of ``steps``, without the counts, which are filled in here, and its rows of the other tables."""
        together: dict[str, Rows] = {name: [] for name in TABLES}
        for step, rows in steps:
            together["steps"] += step
            for name, width in self._widths:
                together[name] += rows[name]
                count = len(rows[name]) // width
                together["steps"].append(count)
                self._starts[name].append(self._starts[name][-1] + count)
        for name, found in together.items():
            self.tables[name].extend(found)

    def cut(self, length: int) -> None:
        """Forget all steps from ``length`` on."""
        for name, starts in self._starts.items():
            self.tables[name].cut(starts[length])
            del starts[length + 1 :]
        self.tables["steps"].cut(length)

    def stretch(self, first: int, end: int) -> tuple[Header, bytes]:
        """Steps ``[first, end)``: ``[name, type, offset in bytes, length]`` of every column that has any, and the buffer of all."""
        header: Header = []
        buffer = bytearray()
        for table, columns in self.tables.items():
            low, high = (self._starts[table][first], self._starts[table][end]) if table in self._starts else (first, end)
            for name, dtype, column in columns.columns if high > low else ():
                header.append((name, dtype, len(buffer), high - low))
                buffer += _little(column[low:high])
                buffer += _PADDING[len(buffer) % 8]
        return header, bytes(buffer)


def _little(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
