"""``StepTable``: one line per step, for people (text, HTML) and for pandas or Arrow.

It reads records and knows nothing of where they come from.  Values are worked out when they are asked for, so making
a table of a long trace costs nothing.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from html import escape
from types import ModuleType
from typing import Any, overload

from workbench.events import StepRecord

Value = int | float | str

_HEAD_ROWS = _TAIL_ROWS = 8


def _tokens_of(kind: str) -> Callable[[StepRecord], Value]:
    return lambda record: sum(row.num_tokens for row in record.scheduled if row.kind == kind)


# Name -> value.  The order is that of the printed table, which drops columns from the right where the screen is narrow.
_COLUMNS: dict[str, Callable[[StepRecord], Value]] = {
    "step": lambda record: record.step,
    "start_ms": lambda record: record.start_s * 1e3,
    "duration_ms": lambda record: record.duration_ms,
    "tokens": lambda record: record.tokens.used,
    "token_limit": lambda record: record.tokens.limit,
    "running": lambda record: len(record.running),
    "waiting": lambda record: len(record.waiting),
    "prefill_tokens": _tokens_of("prefill"),
    "decode_tokens": _tokens_of("decode"),
    "verify_tokens": _tokens_of("verify"),
    "cached_tokens": lambda record: sum(row.num_cached for row in record.scheduled),
    "kv_in_use": lambda record: record.kv.in_use,
    "kv_cached": lambda record: record.kv.cached,
    "kv_free": lambda record: record.kv.free,
    "sampled_tokens": lambda record: sum(len(sampled.token_ids) for sampled in record.sampled),
    "preempted": lambda record: len(record.preempted),
    "finished": lambda record: len(record.finished),
    "held": lambda record: len(record.held),
    "plan_ms": lambda record: record.timing.plan_ms,
    "prepare_ms": lambda record: record.timing.prepare_ms,
    "forward_ms": lambda record: record.timing.forward_ms,
    "sample_ms": lambda record: record.timing.sample_ms,
    "draft_ms": lambda record: record.timing.draft_ms,
    "commit_ms": lambda record: record.timing.commit_ms,
    "proposed_drafts": lambda record: sum(len(proposed.token_ids) for proposed in record.proposed),
    "accepted_drafts": lambda record: sum(one.accepted for one in record.spec),
    "draft_problem": lambda record: record.draft_problem,
    "draft_choice": lambda record: record.draft_choice.sentence() if record.draft_choice is not None else "",
}


class StepTable:
    """The steps of a trace as a table with fixed columns.

    ``kv_*`` count blocks after planning; ``cached_tokens`` are those that the prefix cache spared the requests admitted in the
    step.  ``proposed_drafts`` are for the next step, ``draft_choice`` says why so many and ``draft_problem`` why none, when proposing
    failed; ``accepted_drafts`` are of those verified in the step.  ``table[3]`` is a row as a dict, ``table[2:5]`` a shorter table,
    ``table["tokens"]`` a column as a list.
    """

    columns: tuple[str, ...] = tuple(_COLUMNS)

    def __init__(self, records: Sequence[StepRecord]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return map(_row, self._records)

    @overload
    def __getitem__(self, key: int) -> dict[str, Value]: ...
    @overload
    def __getitem__(self, key: slice) -> StepTable: ...
    @overload
    def __getitem__(self, key: str) -> list[Value]: ...
    def __getitem__(self, key: int | slice | str) -> dict[str, Value] | StepTable | list[Value]:
        if isinstance(key, slice):
            return StepTable(self._records[key])
        if isinstance(key, int):
            return _row(self._records[key])
        if key not in _COLUMNS:
            raise KeyError(f"no column {key!r}; there are {', '.join(self.columns)}")
        return [_COLUMNS[key](record) for record in self._records]

    def to_dict(self) -> dict[str, list[Value]]:
        """Return every column as a list, by name."""
        return {name: self[name] for name in self.columns}

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``; raises :class:`ModuleNotFoundError` with what to install when pandas is missing."""
        return _package("pandas", "to_pandas").DataFrame(self.to_dict())

    def to_arrow(self) -> Any:
        """Return a ``pyarrow.Table``; raises :class:`ModuleNotFoundError` with what to install when pyarrow is missing."""
        return _package("pyarrow", "to_arrow").table(self.to_dict())

    def to_text(self, width: int | None = None) -> str:
        """Return the table as aligned text of at most ``width`` characters a line (the terminal's when not given).

        Long tables show their first and last steps; columns that do not fit are named below.
        """
        if not self._records:
            return "(no steps)"
        width = width or shutil.get_terminal_size().columns
        lines = [*_headings(), *self._cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = _fitting(widths, width)
        text = ["  ".join(cell.rjust(size) for cell, size in zip(line[:shown], widths, strict=False)).rstrip() for line in lines]
        more = f", {len(self.columns) - shown} more columns: {', '.join(self.columns[shown:])}" if shown < len(self.columns) else ""
        return "\n".join([*text, *textwrap.wrap(_counted(self) + more, max(width, 20))])

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        if not self._records:
            return "<em>no steps</em>"
        cell = 'style="text-align:right;padding:2px 8px"'
        names = "".join(f"<th {cell}>{escape(name)}</th>" for name in self.columns)
        rows = "".join("<tr>" + "".join(f"<td {cell}>{escape(text)}</td>" for text in line) + "</tr>" for line in self._cells())
        table = f'<table style="font-variant-numeric:tabular-nums"><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>'
        return f'<div style="overflow-x:auto">{table}</div><small>{_counted(self)}</small>'

    def _cells(self) -> list[list[str]]:
        if len(self) <= _HEAD_ROWS + _TAIL_ROWS + 1:
            rows = [_texts(record) for record in self._records]
        else:
            head, tail = self._records[:_HEAD_ROWS], self._records[-_TAIL_ROWS:]
            rows = [*map(_texts, head), ["…"] * len(self.columns), *map(_texts, tail)]
        return rows


def _row(record: StepRecord) -> dict[str, Value]:
    return {name: value(record) for name, value in _COLUMNS.items()}


def _texts(record: StepRecord) -> list[str]:
    return [f"{value:.2f}" if isinstance(value, float) else str(value) for value in _row(record).values()]


def _fitting(widths: list[int], limit: int) -> int:
    used, shown = 0, 0
    for size in widths:
        used += size + (2 if shown else 0)
        if used > limit:
            break
        shown += 1
    return max(shown, 1)


def _headings() -> list[list[str]]:
    # The unit or noun goes under the rest of the name: narrower columns, so more of them fit.
    parts = [tuple(name.split("_", 1)) if "_" in name else ("", name) for name in _COLUMNS]
    return [[first for first, _ in parts], [last for _, last in parts]]


def _counted(table: StepTable) -> str:
    return f"{len(table)} step{'s' * (len(table) != 1)}"


def _package(name: str, method: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{method}() needs the package {name}: pip install {name}", name=name) from error
