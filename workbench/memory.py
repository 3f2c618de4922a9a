"""What a proposer of drafts remembers of finished answers, kept in step with the trace: told what ends, taken back by a rewind."""

from __future__ import annotations

from workbench.events import StepRecord
from workbench.runners.base import Runner
from workbench.speculative.proposer import Remembers
from workbench.trace import Trace


def remember(runner: Runner, trace: Trace, record: StepRecord) -> None:
    """Tell the runner's proposer of the answers that ended in ``record``, which is in ``trace`` already."""
    proposer = _who_remembers(runner)
    if proposer is not None:
        for end in record.finished:
            proposer.finished(record.step, end.request_id, _output(trace, end.request_id))


def recall(runner: Runner, trace: Trace, step: int) -> None:
    """Make the runner's proposer remember what it did before ``step``, from what ``trace`` holds."""
    proposer = _who_remembers(runner)
    if proposer is None:
        return
    proposer.rewind(0)
    for record in trace.records:
        if record.step < step:
            remember(runner, trace, record)


def _who_remembers(runner: Runner) -> Remembers | None:
    proposer = getattr(getattr(runner, "drafter", None), "proposer", None)
    return proposer if isinstance(proposer, Remembers) else None


def _output(trace: Trace, request_id: str) -> list[int]:
    """The tokens that a request had when it ended."""
    tokens: list[int] = []
    for record in trace.records:
        if any(command.restarts and command.request_id == request_id for command in record.commands):
            tokens.clear()
        tokens += [token for sampled in record.sampled if sampled.request_id == request_id for token in sampled.token_ids]
    return tokens
