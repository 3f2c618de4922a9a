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

NONE = -(2**31)
"""Stands in an ``i4`` column where there is no number."""
NO_CODE = 255
"""Stands in a ``u1`` column of codes where there is none."""
NO_TOKEN = 2**32 - 1
"""Stands in a ``u4`` column of token ids where the id is not known, or where a draft was a placeholder."""

_CODES = {"f8": "d", "f4": "f", "u4": "I", "i4": "i", "u2": "H", "i2": "h", "u1": "B"}
_RANGES = {"u4": (0, 2**32 - 1), "i4": (-(2**31) + 1, 2**31 - 1), "u2": (0, 2**16 - 1), "i2": (-(2**15), 2**15 - 1), "u1": (0, 255)}

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
        "start_s:f8 plan_ms prepare_ms forward_ms sample_ms commit_ms:f4 token_limit token_used seq_limit seq_used "
        f"kv_in_use kv_cached kv_free running waiting:u4 wasted:i4 {' '.join(ROWS)}:u4"
    ),
    "lanes": _fields(
        "request:u4 state verdict reason:u1 start end cached:u4 drafts sampled:u2 accepted:i2 finish:u1 needed available limit blocker:i4"
    ),
    "cells": _fields("block:u4 status:u1 owners content index hash order:i4"),
    "touches": _fields("block:u4 kind:u1 request:i4"),
    "tokens": _fields("request id:u4 origin:u1 logprob:f4 rank:u4 tops:u1"),
    "rounds": _fields("request:u4 proposed accepted emitted:u2"),
    "tops": _fields("id:u4 logprob:f4"),
    "drafts": _fields("id:u4"),
}
"""Every table with its columns and their types, in the order of the rows that are put in."""


class Table:
    """One table: rows come in as tuples, and stand in columns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.types = TABLES[name]
        self.columns: dict[str, array[Any]] = {field: array(_CODES[dtype]) for field, dtype in self.types.items()}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, rows: Sequence[Row]) -> None:
        """Put rows in, each with a value for every column."""
        for (field, dtype), values in zip(self.types.items(), zip(*rows, strict=True), strict=False):
            self.columns[field].extend(_array(dtype, values))
        self._length += len(rows)

    def cut(self, length: int) -> None:
        """Forget all rows from ``length`` on."""
        for column in self.columns.values():
            del column[length:]
        self._length = length


class Columns:
    """All tables of one tape.  ``steps`` rows come without their counts, which are filled in here."""

    def __init__(self) -> None:
        self.tables = {name: Table(name) for name in TABLES}
        self._starts = {name: array("Q", [0]) for name in ROWS}  # first row of each step, one more than steps

    def __len__(self) -> int:
        return len(self.tables["steps"])

    def add_steps(self, steps: Sequence[Row], rows: dict[str, list[Row]], counts: Sequence[Row]) -> None:
        """Put steps in: ``rows`` of all of them by table, and how many belong to each step, in the order of :data:`ROWS`."""
        for name, found in rows.items():
            self.tables[name].extend(found)
        for name, own in zip(ROWS, zip(*counts, strict=True), strict=False):
            starts = self._starts[name]
            last = starts[-1]
            for count in own:
                last += int(count)
                starts.append(last)
        self.tables["steps"].extend([(*step, *count) for step, count in zip(steps, counts, strict=True)])

    def cut(self, length: int) -> None:
        """Forget all steps from ``length`` on."""
        for name, starts in self._starts.items():
            self.tables[name].cut(starts[length])
            del starts[length + 1 :]
        self.tables["steps"].cut(length)

    def stretch(self, first: int, end: int) -> tuple[Header, bytes]:
        """Steps ``[first, end)`` as ``[name, type, offset in bytes, length]`` of every column, and the buffer that holds them."""
        header: Header = []
        pieces: list[bytes] = []
        offset = 0
        for table in self.tables.values():
            starts = self._starts.get(table.name)
            low, high = (starts[first], starts[end]) if starts is not None else (first, end)
            for field, column in table.columns.items():
                piece = _little(column[low:high])
                header.append((f"{table.name}.{field}", table.types[field], offset, high - low))
                pieces += [piece, bytes(-len(piece) % 8)]
                offset += len(piece) + len(pieces[-1])
        return header, b"".join(pieces)


def _array(dtype: str, values: Sequence[float]) -> array[Any]:
    """The values as an array; what a column cannot hold becomes the nearest that it can."""
    try:
        return array(_CODES[dtype], values)
    except OverflowError:
        low, high = _RANGES[dtype]
        return array(_CODES[dtype], [value if value == NONE else min(max(value, low), high) for value in values])


def _little(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
