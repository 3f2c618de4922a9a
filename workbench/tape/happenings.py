"""What happened in a step beside its rows: arrivals, ends, other prompts, preemptions, and what was done to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.events import Command, StepRecord
from workbench.explain.commands import command_in_words
from workbench.prefix_story.past import gives_another_prompt
from workbench.tape.rows import Numbers

Happening = dict[str, Any]


def happenings(record: StepRecord, numbers: Numbers) -> Iterator[Happening]:
    """The events of a step: commands before it first, then in the order in which the step took them."""
    for command in record.commands:
        yield from ({"step": record.step, **told} for told in _command(command, numbers))
    for arrival in record.arrived:
        yield {"step": record.step, "kind": "arrived", "request": numbers[arrival.request_id], "at_s": arrival.arrival_s}
    for name in record.preempted:
        yield {"step": record.step, "kind": "preempted", "request": numbers[name]}
    for end in record.finished:
        yield {"step": record.step, "kind": "finished", "request": numbers[end.request_id], "reason": end.reason}


def _command(command: Command, numbers: Numbers) -> Iterator[Happening]:
    if command.kind == "add":
        return
    for text in command_in_words(command):
        yield {"kind": "command", "text": text}
    if gives_another_prompt(command):
        yield {"kind": "restart", "request": numbers[command.request_id], "prompt": list(command.after["prompt_token_ids"])}


def new_prompts(record: StepRecord) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Requests that were given another prompt before the step, and their prompts."""
    for command in record.commands:
        if gives_another_prompt(command):
            yield command.request_id, tuple(command.after["prompt_token_ids"])
