"""``Trace``: a whole run as values, and the one thing that every view, plot and export reads.

A trace knows nothing about engines, tensors or torch.  The engine appends to it while a run is under way;
everything else only reads it.  Files are written and read by ``_tracefile``, Perfetto timelines by ``_perfetto``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import overload

from workbench._perfetto import write_perfetto
from workbench._tracefile import Content, read_trace, write_trace
from workbench.config import EngineConfig
from workbench.events import Fidelity, ModelFacts, StepRecord
from workbench.request import Request
from workbench.table import StepTable


class Trace:
    """Config, model, requests and one :class:`~workbench.events.StepRecord` per step.

    ``fidelity`` says where the records come from: ``exact`` ones were written by the scheduler that took the decisions,
    ``reconstructed`` ones were worked out from a log, ``sampled`` ones from counters; only exact ones may be drawn as steps.
    ``token_texts`` holds the text of token ids that a reader may want to show.  Positions count from 0 (``trace[0]`` is the
    first record kept here), step numbers are the engine's own (:meth:`at`).  One thread may append while others read.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: ModelFacts,
        requests: Iterable[Request] = (),
        records: Iterable[StepRecord] = (),
        fidelity: Fidelity = "exact",
        token_texts: dict[int, str] | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.requests: dict[str, Request] = {request.id: request for request in requests}
        self.records: list[StepRecord] = list(records)
        self.fidelity: Fidelity = fidelity
        self.token_texts: dict[int, str] = {} if token_texts is None else token_texts

    def append(self, record: StepRecord) -> None:
        """Add the newest step."""
        self.records.append(record)

    def add_request(self, request: Request) -> None:
        """Make a request known, so that its prompt and parameters travel with the trace."""
        self.requests[request.id] = request

    def cut(self, step: int) -> list[StepRecord]:
        """Take ``step`` and all later records away; returns them."""
        position = max(0, step - self.first_step)
        later = self.records[position:]
        self.records = self.records[:position]  # a new list: whoever reads the old one is not disturbed
        return later

    @property
    def first_step(self) -> int:
        """Step number of the first record; 0 for an empty trace."""
        return self.records[0].step if self.records else 0

    @property
    def next_step(self) -> int:
        """Step number that the next record will have."""
        return self.first_step + len(self.records)

    def at(self, step: int) -> StepRecord:
        """Return the record of a step by its number; raises :class:`IndexError` with the range that is there."""
        position = step - self.first_step
        if not 0 <= position < len(self.records):
            held = f"{self.first_step} to {self.records[-1].step}" if self.records else "none"
            raise IndexError(f"step {step} is not in this trace; it has steps {held}")
        return self.records[position]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[StepRecord]:
        return iter(self.records)

    @overload
    def __getitem__(self, position: int) -> StepRecord: ...
    @overload
    def __getitem__(self, position: slice) -> Trace: ...
    def __getitem__(self, position: int | slice) -> StepRecord | Trace:
        if not isinstance(position, slice):
            return self.records[position]
        if position.step not in (None, 1):
            raise ValueError("a slice of a trace holds consecutive steps: leave the stride out")
        return Trace(self.config, self.model, list(self.requests.values()), self.records[position], self.fidelity, dict(self.token_texts))

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Trace) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        span = f"steps {self.first_step} to {self.records[-1].step}" if self.records else "no steps"
        return f"Trace({self.model.name}, {len(self.requests)} requests, {span}, {self.fidelity})"

    @property
    def steps(self) -> StepTable:
        """The steps as a table: prints aligned, and ``to_pandas()`` / ``to_arrow()`` convert it."""
        return StepTable(self.records)

    def texts(self) -> dict[str, str]:
        """Output text of every known request, by id."""
        parts: dict[str, list[str]] = {request_id: [] for request_id in list(self.requests)}
        for record in self.records:
            for command in record.commands:
                if command.restarts:
                    parts[command.request_id] = []
            for sampled in record.sampled:
                parts.setdefault(sampled.request_id, []).append(sampled.text)
        return {request_id: "".join(pieces) for request_id, pieces in parts.items()}

    @property
    def _content(self) -> Content:
        return Content(self.config, self.model, list(self.requests.values()), self.records, self.fidelity, self.token_texts)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the trace to one file (``.wbt`` by convention), replacing an older one only when complete."""
        return write_trace(self._content, Path(path))

    def to_perfetto(self, path: str | PathLike[str]) -> Path:
        """Write a Chrome trace-event JSON file, which https://ui.perfetto.dev and chrome://tracing open."""
        return write_perfetto(self._content, Path(path))


def load_trace(path: str | PathLike[str]) -> Trace:
    """Read a trace that :meth:`Trace.save` wrote; needs no torch.

    Raises :class:`~workbench.errors.TraceError` when the file is missing, foreign, cut, corrupt or newer than this version.
    """
    return Trace(*read_trace(Path(path)))
