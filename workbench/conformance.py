"""Replay of a recorded case: our scheduler, driven by the tokens that a recording holds.

A case is a scripted workload with, step by step, what vLLM's own scheduler decided (``tests/data/vllm-0.32.0``).
:func:`replay` yields what ours decides on the same workload, in the recording's words, so that the two can be compared
field by field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.config import EngineConfig
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.scheduler import Scheduler

EOS_TOKEN_ID = 999
"""The end-of-sequence id of every recorded case."""


def replay(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Drive our scheduler through ``case``; yields one dict a step with the recording's output fields."""
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
