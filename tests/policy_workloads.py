"""Random workloads for the policies of other engines, and a step loop that checks every record."""

from __future__ import annotations

from hypothesis import strategies as st

from workbench import Engine
from workbench.plan import StepOutput
from workbench.request import Request, SamplingParams
from workbench.runners.scripted import ScriptedRunner
from workbench.scheduler import Scheduler

TRT = ("guaranteed_no_evict", "max_utilization", "static_batch")
EVERY = (*TRT, "lpm")


@st.composite
def policy_workloads(draw, policies=EVERY):
    """Knobs that the policies accept, and requests with common beginnings, as ``test_scheduler.workloads`` makes them."""
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    num_blocks = draw(st.integers(6, 24))
    policy = draw(st.sampled_from(policies))
    max_num_seqs = draw(st.integers(1, 6))
    chunked = draw(st.booleans()) or draw(st.booleans())
    least = max(block_size, max_num_seqs if policy == "lpm" else 1)
    knobs = {
        "block_size": block_size,
        "num_blocks": num_blocks,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": draw(st.integers(least, 40)),
        "enable_chunked_prefill": chunked,
        "long_prefill_token_threshold": draw(st.sampled_from([0, block_size, 9])) if policy in TRT and chunked else 0,
        "enable_prefix_caching": draw(st.booleans()) or draw(st.booleans()),
        "policy": policy,
        "num_speculative_tokens": 0,
    }
    capacity = block_size * num_blocks if chunked else min(block_size * num_blocks, knobs["max_num_batched_tokens"])
    shared = draw(st.lists(st.integers(0, 3), min_size=1, max_size=max(capacity, 40)))
    requests = []
    for index in range(draw(st.integers(1, 10))):
        keep = draw(st.integers(0, len(shared)))
        prompt = (shared[:keep] + draw(st.lists(st.integers(0, 3), max_size=8)))[: capacity - 1] or [index]
        if len(prompt) >= capacity:
            continue
        requests.append(
            {
                "prompt_token_ids": prompt,
                "max_tokens": draw(st.integers(1, 12)),
                "arrival_step": draw(st.integers(0, 20)),
                "priority": draw(st.integers(0, 3)),
                "abort_at": draw(st.one_of(st.none(), st.none(), st.integers(0, 30))),
            }
        )
    return knobs, requests


def token_of(name, position):
    """What the scripted model says: a token that depends on request and place only."""
    return (position + len(name)) % 4


def run_checked(knobs, requests):
    """Step a workload to its end; every record is held against the invariants of ``test_scheduler.run_checked``.

    vLLM's own rule that nobody is admitted in a step that preempts does not bind MAX_UTILIZATION.
    """
    engine = Engine(ScriptedRunner(token_of), debug=True, **knobs)
    aborts = {}
    for request in requests:
        own = dict(request)
        abort_at = own.pop("abort_at", None)
        added = engine.add_request(own)
        if abort_at is not None:
            aborts.setdefault(abort_at, []).append(added.id)
    records = []
    while engine.has_unfinished:
        for name in aborts.pop(engine.scheduler.step, ()):
            engine.abort(name)
        unfinished = set(engine.scheduler.queues.states)
        record = engine.step()
        assert {decision.request_id for decision in record.decisions} == unfinished
        assert len(record.decisions) == len(unfinished)
        assert sum(row.num_tokens for row in record.scheduled) == record.tokens.used <= record.tokens.limit
        assert len(record.running) <= knobs["max_num_seqs"]
        assert not (record.preempted and record.admitted) or knobs["policy"] == "max_utilization"
        assert not set(record.preempted) & set(record.admitted)
        assert record.kv.total == record.kv_after.total == knobs["num_blocks"]
        by_id = {row.request_id: row.num_tokens for row in record.scheduled}
        assert {d.request_id: d.num_tokens for d in record.decisions if d.num_tokens} == by_id
        records.append(record)
        assert len(records) < 3000, "the workload does not end"
    return engine, records


def produced_by(records):
    """Output tokens by request."""
    outputs = {}
    for record in records:
        for sampled in record.sampled:
            outputs.setdefault(sampled.request_id, []).extend(sampled.token_ids)
    return outputs


def scheduler_with(prompts, *, num_blocks, max_tokens, priorities=None, **knobs):
    """A scheduler with requests ``r0``, ``r1``, … of these prompts (token lists, or lengths of prompts without common tokens)."""
    from workbench.config import EngineConfig

    config = EngineConfig(**{"block_size": 10, "max_num_seqs": 2, "max_num_batched_tokens": 1000, "debug": True, **knobs})
    scheduler = Scheduler(config, num_blocks=num_blocks, max_model_len=num_blocks * config.block_size)
    for index, prompt in enumerate(prompts):
        tokens = tuple(range(1000 * index, 1000 * index + prompt)) if isinstance(prompt, int) else tuple(prompt)
        priority = priorities[index] if priorities else 0
        scheduler.add(Request(id=f"r{index}", prompt_token_ids=tokens, sampling=SamplingParams(max_tokens=max_tokens), priority=priority))
    return scheduler


def step(scheduler, token=7):
    """One step; everybody whose prompt is complete gains ``token``."""
    plan = scheduler.plan()
    record = scheduler.commit(plan, StepOutput([[token] if row.samples else [] for row in plan.rows]))
    scheduler.check_integrity()
    return record
