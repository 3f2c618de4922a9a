"""Requests told by their prompts: two runs of one engine count on, so equal requests have other ids."""

from __future__ import annotations

import msgspec

from workbench.events import StepRecord
from workbench.rebuild import originals
from workbench.trace import Trace


def same_prompts(a: Trace, b: Trace) -> dict[str, str]:
    """Ids in ``b`` to ids in ``a``, by position; empty unless both were given the same prompts in the same order."""
    in_a, in_b = originals(a), originals(b)
    if [one.prompt_token_ids for one in in_a.values()] != [one.prompt_token_ids for one in in_b.values()]:
        return {}
    return dict(zip(in_b, in_a, strict=True))


def renamed(trace: Trace, ids: dict[str, str]) -> Trace:
    """A copy of a trace whose requests go by other ids."""
    requests = [msgspec.structs.replace(one, id=ids.get(one.id, one.id)) for one in trace.requests.values()]
    records = [_record(record, ids) for record in trace.records]
    return Trace(trace.config, trace.model, requests, records, trace.fidelity, trace.token_texts)


def _record(record: StepRecord, ids: dict[str, str]) -> StepRecord:
    lists = {name: value for name in record.__struct_fields__ if isinstance(value := getattr(record, name), tuple)}
    return msgspec.structs.replace(record, **{name: tuple([_entry(one, ids) for one in entries]) for name, entries in lists.items()})


def _entry(entry: str | msgspec.Struct, ids: dict[str, str]) -> str | msgspec.Struct:
    if isinstance(entry, str):
        return ids.get(entry, entry)
    named = {name: value for name in ("request_id", "blocker") if (value := getattr(entry, name, None)) in ids}
    return msgspec.structs.replace(entry, **{name: ids[value] for name, value in named.items()}) if named else entry
