"""What was done to an engine between two steps, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.events import Command, StepRecord
from workbench.explain.sentences import listed
from workbench.render._format import plural


def commands_in_words(record: StepRecord) -> Iterator[str]:
    """What was done to the engine before the step."""
    added = [command.request_id for command in record.commands if command.kind == "add"]
    if added:
        yield f"{listed(added, most=8)} {'was' if len(added) == 1 else 'were'} added before the step."
    for command in record.commands:
        if command.kind != "add":
            yield from command_in_words(command)


def command_in_words(command: Command) -> Iterator[str]:
    """One command; a sentence for each knob, where it changed several."""
    match command.kind:
        case "add":
            yield f"{command.request_id} was added before the step."
        case "knobs":
            yield from (f"{what} before the step." for what in knobs_in_words(command))
        case "abort":
            yield f"{command.request_id} was aborted before the step."
        case "reset":
            preempted = ", and everything that ran was preempted" if command.after.get("reset_running_requests") else ""
            yield f"The prefix cache was emptied before the step{preempted}."
        case "abandoned":
            yield f"An earlier attempt at the step, at {command.at_s:.3f} s, failed or was interrupted, and was taken back."
        case _:
            changes = [_change(name, command.before.get(name), value) for name, value in command.after.items()]
            yield f"{command.request_id} was edited before the step: {', '.join(changes)}."


def knobs_in_words(command: Command) -> Iterator[str]:
    """Changes of settings: ``max_num_seqs went from 2 to 4``."""
    for knob, value in command.after.items():
        yield f"{knob} went from {command.before[knob]} to {value}"


def _change(name: str, before: object, after: object) -> str:
    if name == "prompt_token_ids" and isinstance(before, list | tuple) and isinstance(after, list | tuple):
        return f"prompt of {plural(len(before), 'token')} to one of {len(after)}"
    return f"{name} {before!r} to {after!r}"
