"""``ScriptedRunner``: tokens given by the test instead of computed by a model.

The same scheduler, the same block pool, the same records; only the forward pass is replaced.  Useful for tests that run in
microseconds, for teaching the scheduler alone, and for simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from workbench.events import ModelFacts
from workbench.plan import PlanRow, StepOutput, StepPlan
from workbench.speculative.acceptance import verify_greedy

Script = Mapping[str, Sequence[int]] | Callable[[str, int], int]


class ScriptedRunner:
    """Returns scripted tokens.

    ``outputs`` maps a request id to its output tokens in order, or is a function ``(request_id, position) -> token``.  A
    request without a script, or past its end, gets ``default_token``.  ``drafts`` (request id, tokens known so far) gives the
    drafts proposed after each step; a draft is accepted when it equals the scripted token.

    ``step_ms`` is the forward time that each step reports; it is not slept.

    >>> from workbench import Engine
    >>> engine = Engine(ScriptedRunner({"r0": [7, 8, 9]}), num_blocks=8)
    >>> engine.run([[1, 2, 3]], max_tokens=3).outputs[0].token_ids
    (7, 8, 9)
    """

    def __init__(
        self,
        outputs: Script | None = None,
        *,
        default_token: int = 0,
        drafts: Callable[[str, Sequence[int]], Sequence[int]] | None = None,
        step_ms: float = 0.0,
        max_model_len: int = 4096,
        kv_bytes_per_token: int = 1024,
    ) -> None:
        self.outputs = outputs if outputs is not None else {}
        self.default_token = default_token
        self.drafts = drafts
        self.step_ms = step_ms
        self.facts = ModelFacts(
            name="scripted",
            architecture="scripted tokens",
            max_model_len=max_model_len,
            kv_bytes_per_token=kv_bytes_per_token,
            dtype="none",
            device="none",
            path="no model runs",
        )

    @property
    def proposes_drafts(self) -> bool:
        """Whether ``drafts`` was given."""
        return self.drafts is not None

    def execute(self, plan: StepPlan) -> StepOutput:
        """Read the script for every row that samples."""
        tokens = [self._tokens(row) for row in plan.rows]
        proposed = None
        if self.drafts is not None:
            proposed = [
                list(self.drafts(row.request.id, [*row.token_ids, *new])) if new else []
                for row, new in zip(plan.rows, tokens, strict=True)
            ]
        return StepOutput(tokens, proposed, forward_ms=self.step_ms)

    def fork(self, num_blocks: int) -> ScriptedRunner:
        """Itself: it keeps nothing from step to step."""
        return self

    def close(self) -> None:
        """Nothing to give back."""

    def _tokens(self, row: PlanRow) -> list[int]:
        if not row.samples:
            return []
        position = len(row.token_ids) - row.request.num_prompt_tokens
        if not row.draft_token_ids:
            return [self._scripted(row.request.id, position)]
        return verify_greedy(row.draft_token_ids, (self._scripted(row.request.id, place) for place in count(position)))

    def _scripted(self, request_id: str, position: int) -> int:
        if callable(self.outputs):
            return self.outputs(request_id, position)
        script = self.outputs.get(request_id, ())
        return script[position] if position < len(script) else self.default_token
