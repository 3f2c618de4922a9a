"""A trace as Chrome trace events, the JSON that Perfetto and chrome://tracing open.

Tracks: one of steps, one of their phases, one for each request; counters for the KV cache, the tokens and the queues.
Times are whole microseconds on the engine's clock.  No two slices of a track overlap: each begins where
the one before it ended, or later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from workbench._tracefile import Content, replace_file
from workbench.errors import TraceError
from workbench.events import StepRecord

Event = dict[str, Any]

_PID = 1
_STEPS_TID, _PHASES_TID, _FIRST_REQUEST_TID = 1, 2, 10
_PHASES = ("plan", "prepare", "forward", "sample", "draft", "commit")


def write_perfetto(trace: Content, path: Path) -> Path:
    """Write the events of ``trace`` to ``path``; raises :class:`TraceError` when that is impossible."""
    try:
        data = msgspec.json.encode({"traceEvents": list(trace_events(trace)), "displayTimeUnit": "ms"})
    except UnicodeEncodeError as error:
        raise TraceError(f"cannot export the trace: {error}") from error
    replace_file(path, data)
    return path


def trace_events(trace: Content) -> Iterator[Event]:
    """Yield every event: names of tracks first, then the steps in order."""
    tids = {request_id: _FIRST_REQUEST_TID + number for number, request_id in enumerate(_request_ids(trace))}
    yield from _names(trace, tids)
    end = 0
    for record in trace.records:
        start = max(_us(record.start_s), end)
        end = max(_us(record.end_s), start + 1)
        yield from _step(record, start, end)
        yield from _requests(record, start, end, tids)
        yield from _counters(record, start)


def _request_ids(trace: Content) -> dict[str, None]:
    found = dict.fromkeys(request.id for request in trace.requests)
    for record in trace.records:
        for rows in (record.scheduled, record.arrived, record.finished):
            found.update(dict.fromkeys(row.request_id for row in rows))
        found.update(dict.fromkeys(record.preempted))
    return found


def _names(trace: Content, tids: dict[str, int]) -> Iterator[Event]:
    yield {"ph": "M", "pid": _PID, "name": "process_name", "args": {"name": f"engine {trace.model.name}"}}
    for order, (name, tid) in enumerate([("steps", _STEPS_TID), ("phases", _PHASES_TID), *tids.items()]):
        yield {"ph": "M", "pid": _PID, "tid": tid, "name": "thread_name", "args": {"name": name}}
        yield {"ph": "M", "pid": _PID, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": order}}


def _step(record: StepRecord, start: int, end: int) -> Iterator[Event]:
    numbers = {
        "tokens": record.tokens.used,
        "token_limit": record.tokens.limit,
        "running": len(record.running),
        "waiting": len(record.waiting),
    }
    yield _slice(_STEPS_TID, f"step {record.step}", start, end, numbers)
    at, done_ms = start, 0.0
    for phase in _PHASES:
        done_ms += getattr(record.timing, f"{phase}_ms")
        until = min(max(start + round(done_ms * 1e3), at), end)
        if until > at:
            yield _slice(_PHASES_TID, phase, at, until, {"step": record.step})
        at = until


def _requests(record: StepRecord, start: int, end: int, tids: dict[str, int]) -> Iterator[Event]:
    emitted = {sampled.request_id: len(sampled.token_ids) for sampled in record.sampled}
    for arrival in record.arrived:
        yield _instant(tids[arrival.request_id], "arrived", min(_us(arrival.arrival_s), start), {})
    for request_id in record.preempted:
        yield _instant(tids[request_id], "preempted", start, {"step": record.step})
    for row in record.scheduled:
        numbers = {"step": record.step, "start": row.start, "end": row.end, "cached_tokens": row.num_cached, "drafts": row.num_drafts}
        yield _slice(tids[row.request_id], row.kind, start, end, {**numbers, "emitted": emitted.get(row.request_id, 0)})
    for done in record.finished:
        yield _instant(tids[done.request_id], "finished", end, {"reason": done.reason})


def _counters(record: StepRecord, at: int) -> Iterator[Event]:
    kinds = {"prefill": 0, "decode": 0, "verify": 0}
    for row in record.scheduled:
        kinds[row.kind] += row.num_tokens
    kv = {"in_use": record.kv.in_use, "cached": record.kv.cached, "free": record.kv.free}
    queues = {"running": len(record.running), "waiting": len(record.waiting)}
    for name, series in (("KV blocks", kv), ("tokens", kinds), ("requests", queues)):
        yield {"ph": "C", "pid": _PID, "name": name, "ts": at, "args": series}


def _slice(tid: int, name: str, start: int, end: int, numbers: Event) -> Event:
    return {"ph": "X", "pid": _PID, "tid": tid, "name": name, "ts": start, "dur": end - start, "args": numbers}


def _instant(tid: int, name: str, at: int, numbers: Event) -> Event:
    return {"ph": "i", "s": "t", "pid": _PID, "tid": tid, "name": name, "ts": at, "args": numbers}


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
