"""``Result``: what a run leaves when it is over, safe from whatever the engine does next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from workbench.metrics import RunMetrics, measure
from workbench.outputs import Completion, completions
from workbench.request import Request
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.tokenizer import Tokenizer


def run_trace(whole: Trace, first_step: int, requests: Sequence[Request]) -> Trace:
    """The part of an engine's trace from ``first_step`` on, with the requests that it speaks of."""
    records = whole.records[max(0, first_step - whole.first_step) :]
    seen = {decision.request_id for record in records for decision in record.decisions}
    wanted = seen.union(request.id for request in requests)
    return Trace(whole.config, whole.model, [r for r in list(whole.requests.values()) if r.id in wanted], records, whole.fidelity)


class Result:
    """Trace, metrics and outputs of a finished run; worked out when they are first asked for."""

    def __init__(self, requests: Sequence[Request], trace: Trace, tokenizer: Tokenizer | None) -> None:
        self._requests = requests
        self._trace = trace
        self._tokenizer = tokenizer

    @cached_property
    def trace(self) -> Trace:
        """The run's records, with the text of every token that occurs."""
        if self._tokenizer is not None:
            used = {token for record in self._trace.records for sampled in record.sampled for token in sampled.token_ids}
            used.update(token for request in self._trace.requests.values() for token in request.prompt_token_ids)
            self._trace.token_texts = {token: self._tokenizer.token_text(token) for token in sorted(used)}
        return self._trace

    @cached_property
    def metrics(self) -> RunMetrics:
        """Figures of the run."""
        return measure(self._trace)

    @cached_property
    def outputs(self) -> list[Completion]:
        """One completion per request."""
        return completions(self._requests, self._trace, self.metrics)
