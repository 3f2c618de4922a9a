"""Changes to a scheduler between two steps: its knobs, its requests, its prefix cache; and doing a recorded change again.

Each verb checks everything first, so a refused change leaves the scheduler as it was, and notes a
:class:`~workbench.events.Command`, so that a trace can be run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench._knobs import knobs, unknown_name
from workbench.batching import make_batcher
from workbench.config import EngineConfig
from workbench.errors import ConfigError, RequestError
from workbench.events import Command
from workbench.policies import keeps_its_cache, make_planner
from workbench.request import Request
from workbench.scheduler import Scheduler
from workbench.state import RequestState, Status


def change_knobs(scheduler: Scheduler, changes: Mapping[str, Any]) -> None:
    """Give ``scheduler`` other settings from the next step on.

    Raises :class:`ConfigError` for a knob that does not exist or cannot change in mid-run, for a value out of range, and for a
    pool smaller than what is in use.
    """
    check_changeable(changes)
    before = scheduler.config
    config = before.replace(**changes)
    if config.policy != before.policy and not keeps_its_cache(before.policy, config.policy):
        raise ConfigError(
            f"policy cannot change from {before.policy} to {config.policy} in mid-run, their prefix caches differ: start a new run"
        )
    size = scheduler.kv.pool.num_blocks
    if config.num_blocks is not None and config.num_blocks != size and "num_blocks" in changes:
        scheduler.kv.resize(config.num_blocks)
    if config.enable_prefix_caching != before.enable_prefix_caching:
        scheduler.kv.switch_prefix_caching(config.enable_prefix_caching, scheduler.queues.everyone())
    if config.policy != before.policy:
        scheduler.queues.waiting.follow(config.policy)
    scheduler.config = config
    scheduler.batcher = make_batcher(config)
    planner = make_planner(config, scheduler.queues, scheduler.kv, scheduler.batcher, scheduler.max_model_len)
    planner.carry(scheduler.planner)
    scheduler.planner = planner
    old = {name: size if name == "num_blocks" else getattr(before, name) for name in changes}
    scheduler.note(Command("knobs", before=old, after=dict(changes)))


def check_changeable(changes: Mapping[str, Any], *, live: bool = False) -> None:
    """Raise :class:`ConfigError` for a knob that a fork (or, with ``live``, a running engine) cannot change."""
    known = {knob.name: knob for knob in knobs(EngineConfig)}
    allowed = [knob.name for knob in known.values() if knob.live or (knob.fork and not live)]
    for name in changes:
        if name not in known:
            raise ConfigError(unknown_name("knob", name, known))
        if name not in allowed:
            how = "while an engine runs" if live else "in mid-run"
            remedy = "fork the run to change it" if known[name].fork else "start a new run with it"
            raise ConfigError(f"{name} cannot change {how}: {remedy}. These can: {', '.join(allowed)}")


def edit_request(scheduler: Scheduler, request_id: str, changes: Mapping[str, Any]) -> Request:
    """Change fields of an unfinished request; returns the request as it is now.

    Other sampling or another priority take effect from its next token on.  Another prompt makes it start afresh: its blocks are
    freed and its output is dropped; one that runs goes to the end of the queue.
    Raises :class:`RequestError` for an unknown request or field, or a value that it cannot have any more.
    """
    state = scheduler.queues.states.get(request_id)
    if state is None:
        raise unknown_request(scheduler, request_id, scheduler.step)
    old = state.request
    new = old.edited(**changes)
    restarts = new.prompt_token_ids != old.prompt_token_ids
    if restarts:
        scheduler.check_length(new)
    elif new.sampling.max_tokens <= state.num_output_tokens:
        output = state.num_output_tokens
        raise RequestError(f"request {request_id!r} has {output} output tokens already: max_tokens must be at least {output + 1}")
    state.request = new
    state.key = (new.priority, state.key[1])
    if restarts:
        _start_afresh(scheduler, state)
    state.limit = min(scheduler.max_model_len, state.num_prompt_tokens + new.sampling.max_tokens)
    if scheduler.queues.waiting.policy == "priority":
        scheduler.queues.waiting.follow("priority")
    changed = [name for name in changes if old.fields([name]) != new.fields([name])]
    if changed:
        scheduler.note(Command("edit", request_id, before=old.fields(changed), after=new.fields(changed)))
    return new


def unknown_request(scheduler: Scheduler, request_id: str, step: int) -> RequestError:
    """The error for a request that is not, or no longer, in the engine."""
    names = ", ".join(scheduler.queues.states) or "none"
    return RequestError(f"no unfinished request has the id {request_id!r} before step {step}; unfinished: {names}")


def _start_afresh(scheduler: Scheduler, state: RequestState) -> None:
    if state.status is Status.RUNNING:
        scheduler.planner.put_back(state)
        scheduler.queues.waiting.remove(state)
        scheduler.queues.waiting.arrive(state)
    if state.status is not Status.PENDING:
        state.status = Status.WAITING
    state.token_ids = list(state.request.prompt_token_ids)
    state.num_prompt_tokens = len(state.token_ids)
    state.block_hashes = []


def reset_prefix_cache(scheduler: Scheduler, *, reset_running_requests: bool = False) -> bool:
    """Forget everything that could be hit; ``False``, and nothing changed, while any request holds blocks.

    With ``reset_running_requests`` those that run are preempted first, and wait in the order in which they ran (vLLM 0.32.0
    ``Scheduler.reset_prefix_cache``).
    """
    if reset_running_requests:
        for state in reversed(scheduler.queues.running.copy()):
            scheduler.planner.put_back(state)
            state.num_preemptions += 1
    done = scheduler.kv.forget()
    if done or reset_running_requests:
        scheduler.note(Command("reset", after={"reset_running_requests": reset_running_requests}))
    return done


def apply(scheduler: Scheduler, command: Command, requests: Mapping[str, Request]) -> None:
    """Do a recorded command again; ``requests`` are those to add, by id, as they were then."""
    match command.kind:
        case "add":
            scheduler.add(requests[command.request_id], now_s=command.at_s)
        case "abort":
            scheduler.abort(command.request_id)
        case "edit":
            edit_request(scheduler, command.request_id, command.after)
        case "knobs":
            change_knobs(scheduler, command.after)
        case "reset":
            reset_prefix_cache(scheduler, **command.after)
        case "abandoned":
            scheduler.abandon(scheduler.plan(command.at_s))
