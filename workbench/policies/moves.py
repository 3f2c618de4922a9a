"""What several policies do alike: let a request in, put its tokens into the step, take its blocks away."""

from __future__ import annotations

from workbench.draft import StepDraft
from workbench.events import Reason
from workbench.kv import KvCache
from workbench.plan import Kind, PlanRow
from workbench.queues import Queues
from workbench.state import RequestState, Status


def admit(draft: StepDraft, queues: Queues, state: RequestState, cached: int) -> None:
    """A waiting request joins the batch; ``cached`` of its tokens were found."""
    queues.waiting.remove(state)
    queues.running.append(state)
    draft.admitted.append(state.id)
    if state.status is Status.PREEMPTED:
        draft.resumed.append(state.id)
    state.status = Status.RUNNING
    state.num_computed_tokens = cached


def run(draft: StepDraft, state: RequestState, tokens: int, cut: Reason, wanted: int, cached: int = 0) -> None:
    """Put ``tokens`` of a running request into the step; its computed count moves on before the step runs."""
    start, known = state.num_computed_tokens, len(state.token_ids)
    end = start + tokens
    kind: Kind = "decode" if start >= state.num_prompt_tokens and known - start == 1 else "prefill"
    state.num_computed_tokens = end
    draft.take(state, PlanRow(state.request, kind, start, end, state.token_ids, state.block_ids, end >= known), cut, wanted, cached)


def put_back(queues: Queues, kv: KvCache, state: RequestState) -> None:
    """Take a running request's blocks; it waits again and will be recomputed (what stays findable is hit again)."""
    queues.running.remove(state)
    kv.free(state)
    state.status = Status.PREEMPTED
    state.num_computed_tokens = 0
    queues.waiting.put_back(state)


def explain_pending(draft: StepDraft, queues: Queues) -> None:
    """Requests whose arrival lies ahead wait for it."""
    for state in queues.pending:
        draft.defer(state, Reason.NOT_ARRIVED, state.request.arrival_step, draft.step, None)


def who_holds_most(queues: Queues) -> str | None:
    """The running request with the longest block table."""
    holder = max(queues.running, key=lambda state: len(state.block_ids), default=None)
    return holder.id if holder is not None else None
