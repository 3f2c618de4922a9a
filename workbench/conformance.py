"""Replay of a recorded case: our scheduler, driven by the tokens that a recording holds.

A case is a scripted workload with, step by step, what vLLM's own scheduler decided (``tests/data/vllm-0.32.0``).
:func:`replay` yields what ours decides on the same workload, in the recording's words, so that the two can be compared
field by field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from workbench.config import EngineConfig
from workbench.errors import TraceError
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.scheduler import Scheduler

EOS_TOKEN_ID = 999
"""The end-of-sequence id of every recorded case."""


class _CaseConfig(msgspec.Struct):
    num_blocks: int
    max_model_len: int


class _CaseRequest(msgspec.Struct):
    id: str
    prompt: list[int]
    max_tokens: int
    priority: int


class _CaseStep(msgspec.Struct):
    arrived: list[str]
    aborted: list[str]
    sampled: dict[str, list[int]]
    proposed: dict[str, list[int]] = {}


class _Case(msgspec.Struct):
    """What a case must have to be replayed; the decisions in it are only compared."""

    config: _CaseConfig
    requests: list[_CaseRequest]
    steps: list[_CaseStep]


def replay(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Drive our scheduler through ``case``; yields one dict a step with the recording's output fields.

    Raises :class:`TraceError` for what is not such a case, and for one whose tokens do not fit its requests (edited, or recorded by
    other rules); :class:`ConfigError` and :class:`RequestError` for settings and requests that no engine can have.
    """
    _check(case)
    return _replay(case)


def _check(case: dict[str, Any]) -> None:
    try:
        known = {request.id for request in msgspec.convert(case, _Case).requests}
    except msgspec.ValidationError as error:
        raise TraceError(f"this is not a recorded case: {error}") from error
    for place, step in enumerate(case["steps"]):
        for name in (*step["arrived"], *step["aborted"], *step["sampled"], *step.get("proposed", ())):
            if name not in known:
                raise TraceError(f"step {place} of the case names {name!r}, which is none of its requests: {', '.join(sorted(known))}")


def _replay(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    scheduler = _scheduler_of(case["config"])
    tables: dict[str, list[int]] = {}
    for recorded in case["steps"]:
        yield _one_step(scheduler, case, recorded, tables)


def _scheduler_of(config: dict[str, Any]) -> Scheduler:
    num_blocks = config["num_blocks"] - 1  # vLLM counts its null block
    knobs = set(EngineConfig.__struct_fields__) - {"num_blocks", "max_model_len"}
    shared = {name: value for name, value in config.items() if name in knobs}
    return Scheduler(EngineConfig(**shared), num_blocks=num_blocks, max_model_len=config["max_model_len"])


def _one_step(scheduler: Scheduler, case: dict[str, Any], recorded: dict[str, Any], tables: dict[str, list[int]]) -> dict[str, Any]:
    for request in case["requests"]:
        if request["id"] in recorded["arrived"]:
            scheduler.add(_request(request))
    for request_id in recorded["aborted"]:
        scheduler.abort(request_id)
    plan = scheduler.plan()
    running = {state.id: list(state.block_ids) for state in scheduler.queues.running}
    changed = {name: table for name, table in running.items() if tables.get(name) != table}
    tables.clear()
    tables.update(running)
    ids = [row.request.id for row in plan.rows]
    for row in plan.rows:
        tokens, drafts = recorded["sampled"].get(row.request.id, ()), len(row.draft_token_ids)
        if row.samples and not 1 <= len(tokens) <= 1 + drafts:
            needs = f"step {plan.step}: {row.request.id} verifies {drafts} drafts and needs 1 to {1 + drafts} tokens"
            raise TraceError(f"{needs}, the case holds {len(tokens)}: it was edited, or recorded by other rules")
    output = StepOutput(
        token_ids=[list(recorded["sampled"].get(name, ())) for name in ids],
        proposed=[list(recorded.get("proposed", {}).get(name, ())) for name in ids],
    )
    record = scheduler.commit(plan, output)
    scheduler.check_integrity()
    admitted = {row.request_id: row.num_cached for row in record.scheduled if row.request_id in record.admitted}
    return {
        "scheduled": {row.request_id: row.num_tokens for row in record.scheduled},
        "admitted": admitted,
        "resumed": sorted(record.resumed),  # the recording lists them by name
        "preempted": sorted(record.preempted),
        "drafts": {row.request.id: list(row.draft_token_ids) for row in plan.rows if row.draft_token_ids},
        "running": list(record.running),
        "waiting": list(record.waiting),
        "block_tables": changed,
        "free_blocks": record.kv.cached + record.kv.free,
        "finished": {end.request_id: end.reason for end in record.finished if end.reason != "abort"},
        "free_blocks_after": record.kv_after.cached + record.kv_after.free,
    }


def _request(case: dict[str, Any]) -> Request:
    return Request(
        id=case["id"],
        prompt_token_ids=tuple(case["prompt"]),
        sampling=SamplingParams(max_tokens=case["max_tokens"]),
        priority=case["priority"],
        eos_token_ids=(EOS_TOKEN_ID,),
    )
