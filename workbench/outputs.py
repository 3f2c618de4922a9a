"""Outputs: the text and tokens of each request, read from a trace."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from workbench.events import Finished, Sampled, TokenLogprobs
from workbench.metrics import RequestMetrics, RunMetrics
from workbench.request import Request
from workbench.trace import Trace


class Completion(msgspec.Struct, frozen=True):
    """One output: ``index`` counts the completions of one prompt when ``n > 1``.

    ``finish_reason`` is ``stop``, ``length``, ``abort``, or ``None`` while it is still growing.
    """

    request_id: str
    index: int
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()
    metrics: RequestMetrics | None = None


def completions(requests: Sequence[Request], trace: Trace, metrics: RunMetrics) -> list[Completion]:
    """What ``trace`` holds of each request's output, in one pass over its records."""
    drafts = {request.id: _Growing() for request in requests}
    for record in trace.records:
        for command in record.commands:
            if command.restarts and command.request_id in drafts:
                drafts[command.request_id] = _Growing()
        for sampled in record.sampled:
            if sampled.request_id in drafts:
                drafts[sampled.request_id].add(sampled)
        for scored in record.prompt_scores:
            if scored.request_id in drafts:
                drafts[scored.request_id].prompt_scores.update(enumerate(scored.logprobs, start=scored.start))
        for end in record.finished:
            if end.request_id in drafts:
                drafts[end.request_id].end = end
    figures = {entry.request_id: entry for entry in metrics.requests}
    return [drafts[request.id].completion(request, figures.get(request.id)) for request in requests]


class _Growing:
    """One output while its records are read."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.prompt_scores: dict[int, TokenLogprobs] = {}
        self.end: Finished | None = None

    def add(self, sampled: Sampled) -> None:
        self.text.append(sampled.text)
        self.token_ids += sampled.token_ids
        self.logprobs += sampled.logprobs

    def completion(self, request: Request, metrics: RequestMetrics | None) -> Completion:
        scores = self.prompt_scores
        return Completion(
            request_id=request.id,
            index=request.index,
            prompt=request.prompt,
            prompt_token_ids=request.prompt_token_ids,
            text="".join(self.text),
            token_ids=tuple(self.token_ids),
            finish_reason=self.end.reason if self.end else None,
            stop_reason=self.end.stop_reason if self.end else None,
            logprobs=tuple(self.logprobs),
            prompt_logprobs=tuple(scores.get(position) for position in range(request.num_prompt_tokens)) if scores else (),
            metrics=metrics,
        )
