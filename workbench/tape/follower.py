"""``Follower``: goes through a trace's records in order and turns each into rows."""

from __future__ import annotations

from typing import NamedTuple

from workbench.events import StepRecord
from workbench.moment.fold import Fold
from workbench.moment.reuse import has_order
from workbench.tape.blocks import Cells, WatchedPool
from workbench.tape.cast import Cast
from workbench.tape.columns import NO_TOKEN, Row, Rows
from workbench.tape.happenings import Happening, happenings, new_prompts
from workbench.tape.names import Names
from workbench.tape.rows import Drafts, lane_rows, step_row, token_ids, token_rows, touch_rows
from workbench.trace import Trace


class StepRows(NamedTuple):
    """One step: its row of ``steps``, its rows of the other tables, and what happened."""

    step: Row
    rows: dict[str, Rows]
    happenings: list[Happening]


class Follower:
    """The state of queues, blocks and drafts behind the records followed so far."""

    def __init__(self, trace: Trace, first: StepRecord, names: Names, cast: Cast) -> None:
        self._names = names
        self._cast = cast
        self._fold = Fold(trace, first, WatchedPool)
        assert isinstance(self._fold.pool, WatchedPool)
        self._pool = self._fold.pool
        if not has_order(trace):
            self._pool.forget_order()
        self._cells = Cells(self._pool, names, cast)
        self._drafts = Drafts()
        self._cast.position = 0

    def skip(self, record: StepRecord, *, shown: bool = False) -> None:
        """Follow a record of which no rows are wanted; ``shown`` says that its blocks are what the next rows differ from."""
        self._plan(record)
        if shown:
            self._cells.rows(record)
        self._end(record)

    def take(self, record: StepRecord) -> StepRows:
        """Follow a record and return its rows."""
        numbers = self._cast
        numbers.meet([command.request_id for command in record.commands if command.kind == "add"])
        self._plan(record)
        cells = self._cells.rows(record)
        wasted = None if self._cells.veiled else self._fold.wasted_slots(record)
        tokens, tops = token_rows(record, numbers)
        rounds, drafts = self._drafts.rows(record, numbers)
        rows = {
            "lanes": lane_rows(record, numbers),
            "cells": cells,
            "touches": touch_rows(record, numbers),
            "tokens": tokens,
            "rounds": rounds,
            "tops": tops,
            "drafts": drafts,
        }
        told = list(happenings(record, numbers))
        self._names.tokens(token_ids(record.sampled))
        self._names.tokens([int(token) for token in drafts if token != NO_TOKEN])
        self._end(record)
        return StepRows(step_row(record, wasted), rows, told)

    def _plan(self, record: StepRecord) -> None:
        for name, prompt in new_prompts(record) if record.commands else ():
            self._pool.restarted(name)
            self._names.tokens(prompt)
        self._fold.plan(record)

    def _end(self, record: StepRecord) -> None:
        self._fold.commit(record)
        self._drafts.follow(record)
        self._cast.position += 1
