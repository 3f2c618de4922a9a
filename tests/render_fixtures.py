"""A small imitation of an engine that writes plausible step records, for tests of what is drawn.

It schedules first come first served with chunked prefill, preempts the newest request when the pool is full, and
takes its times from arithmetic, so the same call always gives the same records.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from workbench import Engine
from workbench.config import EngineConfig
from workbench.draft_choice import DraftChoice
from workbench.events import (
    Arrival,
    BlockEvent,
    Budget,
    Decision,
    Finished,
    KvUsage,
    ModelFacts,
    Proposed,
    Reason,
    Sampled,
    Scheduled,
    SpecRound,
    StepRecord,
    StepTiming,
    Verdict,
)
from workbench.metrics import measure
from workbench.request import Request
from workbench.runners.scripted import ScriptedRunner
from workbench.trace import Trace

SCRIPT = "<script>alert(1)</script>"
ONERROR = '"><img src=x onerror=alert(2)>'


class Job:
    """One request on its way through the imitation."""

    def __init__(self, request_id: str, prompt: int, output: int, arrival: int, cached: int = 0) -> None:
        self.id, self.prompt, self.output, self.arrival, self.hit = request_id, prompt, output, arrival, cached
        self.known, self.done, self.computed = prompt, 0, 0

    def blocks(self, tokens: int) -> int:
        return -(-tokens // 16)


def workload(count: int, output: int = 24) -> list[Job]:
    """``count`` requests of different lengths that arrive over time; every third shares a prefix."""
    return [Job(f"r{i}", 20 + 37 * i % 90, output + 7 * i % 19, 3 * i, 16 if i % 3 == 2 else 0) for i in range(count)]


def simulate(
    jobs: Sequence[Job], *, budget: int = 64, max_seqs: int = 4, blocks: int = 40, drafts_from: int | None = None
) -> list[StepRecord]:
    """Run ``jobs`` to their end; verifications of three drafts take over from step ``drafts_from``."""
    waiting: list[Job] = []
    running: list[Job] = []
    records: list[StepRecord] = []
    clock, step = 0.0, 0
    while any(job.done < job.output for job in jobs) and step < 20_000:
        record, clock = _step(step, clock, jobs, waiting, running, budget, max_seqs, blocks, drafts_from)
        records.append(record)
        step += 1
    return records


def _step(step, clock, jobs, waiting, running, budget, max_seqs, blocks, drafts_from):  # type: ignore[no-untyped-def]
    arrived = [job for job in jobs if job.arrival == step]
    waiting.extend(arrived)
    rows, decisions, preempted, events, left = [], [], [], [], budget
    held = sum(job.blocks(job.computed) for job in running)
    for job in list(running):
        if job not in running:
            continue
        spec = drafts_from is not None and step >= drafts_from and job.computed >= job.prompt
        tokens = min(4 if spec else max(job.known - job.computed, 1), left)
        extra = job.blocks(job.computed + tokens) - job.blocks(job.computed)
        while held + extra > blocks and running[-1] is not job:
            victim = running.pop()
            held -= victim.blocks(victim.computed)
            rows = [row for row in rows if row.request_id != victim.id]
            victim.computed, victim.known = 0, victim.prompt + victim.done
            waiting.insert(0, victim)
            preempted.append(victim.id)
            decisions = [d for d in decisions if d.request_id != victim.id]
            decisions.append(Decision(victim.id, Verdict.PREEMPTED, Reason.PREEMPTED_FOR, 0, extra, blocks - held, None, job.id))
            events.append(BlockEvent("evicted", 1, victim.id, "ab"))
        if not tokens:
            decisions.append(Decision(job.id, Verdict.DEFERRED, Reason.TOKEN_BUDGET, 0, 1, 0, budget))
            continue
        kind = "verify" if spec else "prefill" if tokens > 1 or job.computed < job.known - 1 else "decode"
        rows.append(Scheduled(job.id, kind, job.computed, job.computed + tokens, 0, 3 if spec else 0))
        decisions.append(Decision(job.id, Verdict.SCHEDULED, Reason.FULL, tokens))
        left -= tokens
        held += extra
    reason = None
    for job in list(waiting):
        need = job.blocks(job.known)
        reason = reason or (
            Reason.PREEMPTION_IN_STEP
            if preempted
            else Reason.MAX_NUM_SEQS
            if len(running) >= max_seqs
            else Reason.TOKEN_BUDGET
            if not left
            else None
        )
        if reason is None and held + need > blocks:
            reason = Reason.NO_FREE_BLOCKS
        if reason:
            if job.id not in preempted:
                decisions.append(
                    Decision(job.id, Verdict.DEFERRED, reason, 0, need, blocks - held, max_seqs, running[0].id if running else None)
                )
            reason = Reason.HEAD_OF_LINE if reason is Reason.NO_FREE_BLOCKS else reason
            continue
        waiting.remove(job)
        running.append(job)
        job.computed = job.hit
        tokens = min(job.known - job.hit, left)
        rows.append(Scheduled(job.id, "prefill", job.hit, job.hit + tokens, job.hit))
        decisions.append(Decision(job.id, Verdict.SCHEDULED, Reason.FULL, tokens))
        left -= tokens
        held += need
    used = sum(row.num_tokens for row in rows)
    sampled, finished, spec_rounds = [], [], []
    for row in rows:
        job = next(one for one in running if one.id == row.request_id)
        accepted = (step + len(job.id)) % 4 if row.kind == "verify" else 0
        job.computed = row.start + (1 + accepted if row.kind == "verify" else row.num_tokens)
        if job.computed >= job.known or row.kind == "verify":
            got = min(1 + accepted, job.output - job.done)
            job.done += got
            job.known = job.prompt + job.done
            job.computed = job.known - 1
            sampled.append(Sampled(job.id, tuple(range(got)), " word" * got))
            if row.kind == "verify":
                spec_rounds.append(SpecRound(job.id, 3, got - 1, got, got - 1 if got < 4 else None))
        if job.done >= job.output:
            finished.append(Finished(job.id, "stop" if len(finished) % 2 else "length"))
    in_use = min(sum(job.blocks(job.computed) for job in running), blocks)
    cached = min(step // 4, blocks - in_use)
    order = tuple(job.id for job in running)
    for end in finished:
        running.remove(next(job for job in running if job.id == end.request_id))
    timing = StepTiming(0.3, 0.2, 14.0 + used * 0.6 + (step * 7) % 5, 0.9, 0.15)
    usage = KvUsage(in_use, cached, blocks - in_use - cached)
    record = StepRecord(
        step,
        clock,
        timing,
        Budget(budget, used),
        Budget(max_seqs, len(order)),
        usage,
        usage,
        scheduled=tuple(rows),
        decisions=tuple(decisions),
        block_events=tuple(events),
        sampled=tuple(sampled),
        spec=tuple(spec_rounds),
        arrived=tuple(Arrival(job.id, clock) for job in arrived),
        preempted=tuple(preempted),
        finished=tuple(finished),
        running=order,
        waiting=tuple(job.id for job in waiting),
    )
    return record, record.end_s


def make_trace(count: int = 5, output: int = 24, *, name: str = "smollm2", **knobs: int | None) -> Trace:
    """A trace of ``count`` imitated requests."""
    jobs = workload(count, output)
    records = simulate(jobs, **knobs)  # type: ignore[arg-type]
    requests = [Request(id=job.id, prompt_token_ids=tuple(range(job.prompt)), prompt=f"Question {job.id}?") for job in jobs]
    return Trace(EngineConfig(), ModelFacts(name=name, dtype="bfloat16", device="cpu"), requests, records)


def make_run(
    trace: Trace, *, status: str = "finished", texts: dict[str, str] | None = None, prompts: dict[str, object] | None = None
) -> SimpleNamespace:
    """A stand-in for a run: the attributes that rendering reads."""
    metrics = measure(trace)
    by_id = {one.request_id: one for one in metrics.requests}
    spoken = trace.texts() | (texts or {})
    outputs = []
    for request in trace.requests.values():
        one = by_id.get(request.id)
        completion = SimpleNamespace(request_id=request.id, index=request.index, text=spoken[request.id], token_ids=(), stop_reason=None)
        completion.prompt = (prompts or {}).get(request.id, request.prompt)
        completion.prompt_token_ids, completion.metrics = request.prompt_token_ids, one
        completion.finish_reason = one.finish_reason if one else None
        outputs.append(completion)
    return SimpleNamespace(trace=trace, metrics=metrics, outputs=outputs, status=status, error=None)


def scripted_run(prompts, **knobs):
    """A real engine's run on scripted tokens, invariants checked after every step."""
    knobs = {"num_blocks": 64, "debug": True, **knobs}
    params = {key: knobs.pop(key) for key in ("max_tokens", "n") if key in knobs}
    with Engine(ScriptedRunner(lambda name, position: position % 50, step_ms=5.0), **knobs) as engine:
        return engine.run(prompts, **params)


def speculative_run(*, problem: str = "", plain: bool = True) -> SimpleNamespace:
    """A prompt, three plain steps of 20 ms (unless without), then two verifications of four drafts: 8 tokens in 2 × (30 + 10) ms."""
    usage = KvUsage(2, 0, 8)
    records: list[StepRecord] = []

    def step(kind: str, ms: float, tokens: int, *, drafts: int = 0, **fields: Any) -> None:
        number = len(records)
        row = Scheduled("r0", kind, number, number + 1 + drafts, 0, drafts)  # type: ignore[arg-type]
        draft_ms = 10.0 if fields.get("proposed") else 0.0
        timing, out = StepTiming(forward_ms=ms, draft_ms=draft_ms), Sampled("r0", tuple(range(tokens)), "word" * tokens)
        used, places = Budget(64, 1 + drafts), Budget(4, 1)
        made = StepRecord(number, number / 10, timing, used, places, usage, usage, (row,), sampled=(out,), running=("r0",), **fields)
        records.append(made)

    four = (Proposed("r0", (1, 2, 3, 4)),)
    step(
        "prefill",
        50,
        1,
        arrived=(Arrival("r0", 0.0),),
        admitted=("r0",),
        draft_choice=DraftChoice(0, "measuring", 1),
        draft_problem=problem,
    )
    for _ in range(3 * plain):
        step("decode", 20, 1, draft_choice=DraftChoice(0, "off", 1, 1.0, 20.0, 20.0, 4, 1.4, 40.0))
    records[-1] = msgspec.structs.replace(
        records[-1], proposed=four, timing=StepTiming(forward_ms=records[-1].timing.forward_ms, draft_ms=10)
    )
    best = DraftChoice(4, "best", 1, 4.0, 40.0, 20.0)
    step("verify", 30, 5, drafts=4, spec=(SpecRound("r0", 4, 4, 5, None, 10, 30),), proposed=four, draft_choice=best)
    step("verify", 30, 3, drafts=4, spec=(SpecRound("r0", 4, 2, 3, 2, 10, 30),), finished=(Finished("r0", "length"),))
    config = EngineConfig(speculative="eagle", num_speculative_tokens="auto")
    request = Request(id="r0", prompt_token_ids=(1,), prompt="Say it")
    return make_run(Trace(config, ModelFacts(name="smollm2"), [request], records))
