"""``ReplayRunner``: a recorded trace in place of the model.

It returns the tokens that the trace holds, so the scheduler can be run again, step by step, without torch or weights: with
the same config it takes the same decisions; with another it shows what they would have been for the same tokens.
"""

from __future__ import annotations

from workbench.errors import TraceError
from workbench.events import StepTiming, TokenLogprobs
from workbench.plan import StepOutput, StepPlan
from workbench.trace import Trace


class ReplayRunner:
    """Replays the output tokens of ``trace``; step times are the recorded ones while the steps are the same.

    A request that runs past its recorded output gets its last recorded token again: the trace does not know more.
    Raises :class:`~workbench.errors.TraceError` for a request that the trace does not have.
    """

    def __init__(self, trace: Trace) -> None:
        self.facts = trace.model
        self._outputs: dict[str, list[int]] = {}
        self._logprobs: dict[str, list[TokenLogprobs]] = {}
        self._timings: dict[int, StepTiming] = {}
        for record in trace.records:
            self._timings[record.step] = record.timing
            for sampled in record.sampled:
                self._outputs.setdefault(sampled.request_id, []).extend(sampled.token_ids)
                self._logprobs.setdefault(sampled.request_id, []).extend(sampled.logprobs)

    def execute(self, plan: StepPlan) -> StepOutput:
        """Look up the next token of every row that samples."""
        timing = self._timings.get(plan.step, StepTiming())
        output = StepOutput([], None, [], None, timing.prepare_ms, timing.forward_ms, timing.sample_ms)
        for row in plan.rows:
            position = len(row.token_ids) - row.request.num_prompt_tokens
            output.token_ids.append([self._token(row.request.id, position)] if row.samples else [])
            known = self._logprobs.get(row.request.id, [])
            assert output.logprobs is not None
            output.logprobs.append(tuple(known[position : position + 1]) if row.samples else ())
        return output

    def fork(self, num_blocks: int) -> ReplayRunner:
        """Itself: it keeps nothing from step to step."""
        return self

    def close(self) -> None:
        """Nothing to give back."""

    def _token(self, request_id: str, position: int) -> int:
        known = self._outputs.get(request_id)
        if not known:
            raise TraceError(f"the trace has no output of request {request_id!r}: replay it with the requests it was recorded with")
        return known[min(position, len(known) - 1)]
