"""``Packer``: follows one growing trace and packs it, part by part, for screens that may join at any time."""

from __future__ import annotations

from typing import Any, NamedTuple

from workbench.events import StepRecord
from workbench.tape.cast import Cast
from workbench.tape.columns import Columns
from workbench.tape.follower import Follower, StepRows
from workbench.tape.happenings import Happening
from workbench.tape.names import Mark, Names, TextOf
from workbench.trace import Trace


class Part(NamedTuple):
    """A stretch of steps: its description, which is JSON, and the buffer that holds its columns."""

    header: dict[str, Any]
    buffer: bytes


class Packer:
    """Packs the steps of ``source`` from ``first_step`` on; blocks are followed from the trace's own beginning.

    ``text_of`` gives the text of a token id that the trace's ``token_texts`` lack.  One thread may pack while another appends to the trace,
    or takes steps back: whatever was packed is compared with the trace by identity, so a new course of events is noticed.

    What was packed is kept, about 1 kB a step, so that a receiver who joins later gets the same numbers for the same things.
    """

    def __init__(self, source: Trace, first_step: int | None = None, *, text_of: TextOf | None = None) -> None:
        self._trace = source
        self._first_step = first_step
        self._names = Names(self._text)
        self._text_of = text_of
        self._cast = Cast(source, self._names)
        self._columns = Columns()
        self._happenings: list[Happening] = []
        self._told = [0]  # how many of them there are before each step that is shown, and after the last
        self._followed: list[StepRecord] = []  # shown or not
        self._follower: Follower | None = None
        self._hidden = 0  # records before the first that is shown
        self._sent = Mark()

    def __len__(self) -> int:
        """Steps packed so far."""
        return len(self._columns)

    def pack(self, limit: int = 2000, end_step: int | None = None) -> Part | None:
        """The next part, of at most ``limit`` steps, none from ``end_step`` on; ``None`` when nothing is new.

        When steps were taken back since, the part begins where the new course of events does.
        """
        held = len(self)
        records = self._trace.records  # a cut makes a new list: this one only grows
        self._go_back(records)
        at = len(self)
        self._go_on(records, limit, end_step)
        if len(self) == at == held:
            return None
        sent, self._sent = self._sent, self._names.mark
        return self._part(at, len(self), sent)

    def parts_from_start(self, limit: int = 2000) -> list[Part]:
        """Everything packed so far, for a receiver who holds nothing; the parts that :meth:`pack` returns next follow on it."""
        ends = [*range(limit, len(self), limit), len(self)]
        return [self._part(first, end, Mark() if not first else self._sent) for first, end in zip([0, *ends], ends, strict=False)]

    def _part(self, first: int, end: int, sent: Mark) -> Part:
        header, buffer = self._columns.stretch(first, end)
        told = self._happenings[self._told[first] : self._told[end]]
        named = self._names.between(sent, self._sent)
        return Part({"at": first, "count": end - first, "buffer": 0, "columns": header, **named, "events": told}, buffer)

    # -- following the trace ---------------------------------------------------------------------------------------

    def _go_back(self, records: list[StepRecord]) -> None:
        """Forget what the trace no longer holds."""
        kept = min(len(self._followed), len(records))
        while kept and self._followed[kept - 1] is not records[kept - 1]:
            kept -= 1
        if kept == len(self._followed):
            return
        shown = max(0, kept - self._hidden)
        self._columns.cut(shown)
        del self._told[shown + 1 :]
        del self._happenings[self._told[-1] :]
        del self._followed[kept:]
        self._cast.cut(kept)
        self._follower = None
        if kept:
            self._follower = Follower(self._trace, records[0], self._names, self._cast)
            for record in records[:kept]:
                self._follower.skip(record, shown=record is records[kept - 1] and shown > 0)

    def _go_on(self, records: list[StepRecord], limit: int, end_step: int | None) -> None:
        """Follow up to ``limit`` records that are new."""
        steps: list[StepRows] = []
        end = len(records)
        self._cast.notice(records[self._cast.num_noticed : end])
        for record in records[len(self._followed) : end]:
            if len(steps) == limit or (end_step is not None and record.step >= end_step):
                break
            if self._follower is None:
                self._follower = Follower(self._trace, record, self._names, self._cast)
                self._hidden = max(0, (self._first_step or 0) - record.step)
            if len(self._followed) < self._hidden:
                self._follower.skip(record)
            else:
                steps.append(self._follower.take(record))
            self._followed.append(record)
        self._keep(steps)

    def _keep(self, steps: list[StepRows]) -> None:
        self._columns.add_steps([(step.step, step.rows) for step in steps])
        for step in steps:
            self._happenings += step.happenings
            self._told.append(len(self._happenings))

    def _text(self, token: int) -> str:
        known = self._trace.token_texts.get(token)
        if known is not None:
            return known
        return self._text_of(token) if self._text_of is not None else f"⟨{token}⟩"
