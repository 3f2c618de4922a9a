"""``StepDraft``: one step in the making.

It lives for one step, carries the token budget, and notes every request that was given tokens or refused them, so that
no branch of the scheduler stays silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from workbench.config import EngineConfig
from workbench.draft_choice import DraftChoice
from workbench.events import Decision, Finished, KvUsage, PromptScores, Proposed, Reason, Sampled, Scheduled, SpecRound, Verdict
from workbench.plan import PlanRow
from workbench.queues import Queues, WaitingQueue
from workbench.state import RequestState


class StepDraft:
    """Everything about the step that is being planned, until it becomes a record."""

    def __init__(self, step: int, now_s: float, began: float, config: EngineConfig) -> None:
        self.step = step
        self.now_s = now_s
        self.token_limit = self.tokens_left = config.max_num_batched_tokens
        self.rows: list[PlanRow] = []
        self.scheduled: list[Scheduled] = []
        self.decisions: dict[str, Decision] = {}
        self.admitted: list[str] = []
        self.preempted: list[str] = []
        self.rejected: list[tuple[RequestState, str]] = []  # they can never run, and why; the scheduler ends them
        self.resumed: list[str] = []
        self.finished: list[Finished] = []
        self.sampled: list[Sampled] = []
        self.spec: list[SpecRound] = []
        self.prompt_scores: list[PromptScores] = []
        self.proposed: list[Proposed] = []
        self.choice: DraftChoice | None = None
        self.shifted = False  # whether a preemption moved positions in the running list
        self.prefilling = False  # whether anybody scheduled so far entered the step inside its prompt
        self.running: tuple[str, ...] = ()
        self.waiting: tuple[str, ...] = ()
        self.held: tuple[str, ...] = ()
        self.usage = KvUsage(0, 0, 0)
        self.plan_ms = 0.0
        self._began = began

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return self.token_limit - self.tokens_left

    def take(self, state: RequestState, row: PlanRow, cut: Reason, wanted: int, cached: int) -> None:
        """A request runs, in full (``cut`` is ``FULL``) or cut short."""
        tokens = row.end - row.start
        if cut is Reason.FULL or tokens == wanted:
            decision = Decision(state.id, Verdict.SCHEDULED, Reason.FULL, tokens)
        else:
            limit = self.token_limit if cut is Reason.TOKEN_BUDGET else tokens
            decision = Decision(state.id, Verdict.PARTIAL, cut, tokens, wanted, tokens, limit)
        self.tokens_left -= tokens
        self.prefilling = self.prefilling or row.start < state.num_prompt_tokens
        self.rows.append(row)
        self.scheduled.append(Scheduled(state.id, row.kind, row.start, row.end, cached, len(row.draft_token_ids)))
        self.decisions[state.id] = decision

    def defer(
        self,
        state: RequestState,
        reason: Reason,
        needed: int | None,
        available: int | None,
        limit: int | None,
        *,
        blocker: str | None = None,
    ) -> None:
        """A request does not run in this step."""
        if state.id not in self.decisions:  # one that was preempted has its decision already
            self.decisions[state.id] = Decision(state.id, Verdict.DEFERRED, reason, 0, needed, available, limit, blocker)

    def defer_all(self, states: Iterable[RequestState], reason: Reason, available: int, limit: int, *, blocker: str | None = None) -> None:
        """Nobody in the queue is admitted, for a reason they share; ``needed`` is the place in the queue."""
        if isinstance(states, WaitingQueue):
            return self._refuse(states.refused(reason, available, limit, blocker, places=True))
        for place, state in enumerate(states, start=1):
            self.defer(state, reason, place, available, limit, blocker=blocker)
        return None

    def defer_behind(self, head: RequestState, waiting: WaitingQueue) -> None:
        """Nobody behind ``head``, which has its decision, is asked."""
        self._refuse(waiting.refused(Reason.HEAD_OF_LINE, 0, 0, head.id, places=False))

    def _refuse(self, told: dict[str, Decision]) -> None:
        own = {name: self.decisions[name] for name in self.decisions.keys() & told.keys()}
        self.decisions.update(told)
        self.decisions.update(own)  # those who have their decision keep it

    def preempt(
        self, victim: RequestState, beneficiary: RequestState | None, needed: int, free: int, reason: Reason = Reason.PREEMPTED_FOR
    ) -> None:
        """A running request lost its blocks; what it was given in this step returns to the budget."""
        self.preempted.append(victim.id)
        for position, row in enumerate(self.rows):
            if row.request.id == victim.id:
                self.tokens_left += row.end - row.start
                del self.rows[position], self.scheduled[position]
                break
        blocker = beneficiary.id if beneficiary is not None else None
        self.decisions[victim.id] = Decision(victim.id, Verdict.PREEMPTED, reason, 0, needed, free, None, blocker)

    def reject(self, state: RequestState, needed: int, total: int, unit: str = "blocks") -> None:
        """A request needs more blocks than the pool has, whoever else runs."""
        self.rejected.append((state, f"needs {needed} {unit}, there are {total}"))
        self.decisions[state.id] = Decision(state.id, Verdict.REJECTED, Reason.NEVER_FITS, 0, needed, total, total)

    def close(self, queues: Queues, usage: KvUsage) -> None:
        """Planning is over: note queues and pool as they stand."""
        self.running = tuple([state.id for state in queues.running])
        self.waiting = queues.waiting.ids
        self.held = tuple([state.id for state in queues.held])
        self.usage = usage
        self.plan_ms = (perf_counter() - self._began) * 1e3
