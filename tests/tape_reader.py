"""A plain reader of tapes: what a screen makes of the parts, without its speed."""

from __future__ import annotations

import json
import struct
from itertools import islice

from workbench.tape.columns import NONE, ROWS

CODES = {"f8": "d", "f4": "f", "u4": "I", "i4": "i", "u2": "H", "i2": "h", "u1": "B"}
STATES = ("prefill", "decode", "verify", "waiting", "idle", "held", "preempted")
STATUS = ("free", "cached", "in use", "unknown", "gone")


class Tape:
    """Holds what the parts said; ``steps`` is a list of steps, each with its own row and those of every table."""

    def __init__(self, first_step=0):
        self.first_step = first_step
        self.steps = []
        self.strings, self.owner_sets, self.requests, self.vocab = [], [], [], {}
        self.events = []
        self._walked = -1, {}  # the position asked for last, and its blocks

    def read(self, part):
        header = json.loads(json.dumps(part.header))  # as it travels
        assert header["at"] <= len(self.steps), "a part is missing"
        self._walked = -1, {}
        if header["at"] < len(self.steps):
            self.events = [event for event in self.events if event["step"] < self.first_step + header["at"]]
            del self.steps[header["at"] :]
        for held, base, new in zip((self.strings, self.owner_sets, self.requests), header["base"], self._new(header), strict=True):
            assert base <= len(held), "names are missing"
            held[base:] = new
        self.vocab.update(zip(*header["vocab"], strict=True))
        self.events += header["events"]
        self._steps(header, part.buffer)

    def _new(self, header):
        return header["strings"], header["owner_sets"], header["requests"]

    def _steps(self, header, buffer):
        columns = {}
        for name, dtype, offset, length in header["columns"]:
            assert offset % 8 == 0
            code = CODES[dtype]
            columns[name] = struct.unpack_from(f"<{length}{code}", buffer, offset)
        rows = {table: iter(self._rows(columns, table)) for table in ROWS}
        for row in self._rows(columns, "steps"):
            self.steps.append({**row, **{table: list(islice(rows[table], row[table])) for table in ROWS}})
        assert not [left for each in rows.values() for left in each], "rows that belong to no step"
        assert header["count"] == len(columns.get("steps.start_s", ()))  # columns without rows are left out

    def _rows(self, columns, table):
        own = {name.split(".")[1]: values for name, values in columns.items() if name.startswith(table + ".")}
        return [dict(zip(own, values, strict=True)) for values in zip(*own.values(), strict=True)]

    def name(self, request):
        return self.requests[request]["id"]

    def blocks(self, position):
        """Blocks by id as they stand in a position."""
        before, found = self._walked
        if before > position:
            before, found = -1, {}
        for step in self.steps[before + 1 : position + 1]:
            found.update({cell["block"]: cell for cell in step["cells"]})
        self._walked = position, found
        return {block_id: cell for block_id, cell in found.items() if STATUS[cell["status"]] != "gone"}

    def owners(self, cell):
        if cell["owners"] < 0:
            return ()
        return tuple("?" if owner < 0 else self.name(owner) for owner in self.owner_sets[cell["owners"]])

    def hash(self, cell):
        return self.strings[cell["hash"]] if cell["hash"] >= 0 else ""

    def queue(self, position):
        """Free blocks in the order in which they will be reused."""
        free = [cell for cell in self.blocks(position).values() if cell["order"] != NONE]
        return tuple(cell["block"] for cell in sorted(free, key=lambda cell: cell["order"]))


def read_all(*parts):
    tape = Tape()
    for part in parts:
        tape.read(part)
    return tape
