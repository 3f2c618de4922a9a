"""``Timeline``: one future of an engine, and the ways back into its past.

It owns what changes from step to step: scheduler, KV blocks (the runner's), texts, clock, and the trace of what happened.  Going back
replaces them by what they were; a fork is a second timeline.  Who may step it, and when, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.clock import Clock
from workbench.events import Command, StepRecord
from workbench.history import History, Present, Restored
from workbench.interrupts import Interrupts
from workbench.memory import recall, remember
from workbench.plan import StepOutput
from workbench.rebuild import config_before, requests_before
from workbench.runners.base import HoldsBlocks, Runner
from workbench.scheduler import Scheduler
from workbench.texts import Texts
from workbench.trace import Trace


class Timeline:
    """The moving parts of one engine; ``texts`` is ``None`` without a tokenizer."""

    def __init__(self, scheduler: Scheduler, runner: Runner, texts: Texts | None, trace: Trace, history: History) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.texts = texts
        self.trace = trace
        self.clock = Clock()
        self.last_restored: Restored | None = None
        self._history = history
        self.is_parked = False  # whether the KV cache was given back, to be computed again when it is needed

    def step(self, interrupts: Interrupts) -> StepRecord:
        """Plan, execute and commit; an execution that fails or is interrupted takes the plan back, and nothing is lost."""
        if self.is_parked:
            self.rewind(self.scheduler.step, interrupts)
        plan = self.scheduler.plan(self.clock.go())
        try:
            self._history.before_execution(plan, self.scheduler, self.runner)
            with interrupts.allowed():
                output = self.runner.execute(plan) if plan.rows else StepOutput([])
        except BaseException:
            self.scheduler.abandon(plan)
            raise
        record = self.scheduler.commit(plan, output, self.texts)
        self._keep(record)
        return record

    def _keep(self, record: StepRecord) -> None:
        self.trace.append(record)
        for command in record.commands:
            self._note(command)
        if self.texts is not None:
            for finished in record.finished:
                self.texts.close(finished.request_id)
        remember(self.runner, self.trace, record)
        self._history.after_step(self.scheduler, self.texts)
        if self.scheduler.config.debug:
            self.scheduler.check_integrity()

    def _note(self, command: Command) -> None:
        """A trace shows settings and requests as its records leave them."""
        if command.kind == "knobs":
            self.trace.config = self.trace.config.replace(**command.after)
        elif command.kind == "edit":
            request = self.trace.requests[command.request_id]
            self.trace.requests[request.id] = request.edited(**command.after)

    # -- back, and elsewhere ---------------------------------------------------------------------------------------

    def scheduler_before(self, step: int) -> Scheduler:
        """The scheduler as it stood before ``step``: a copy."""
        return self._history.scheduler_before(self._present, step)

    def rewind(self, step: int, interrupts: Interrupts) -> Restored:
        """Become what it was before ``step``; an interrupt while steps are computed again leaves everything as it is."""
        if step == self.scheduler.step and not self.is_parked:
            return Restored(step)
        past = self._history.rewound(self._present, step, interrupts)
        self._history.cut(step)
        if past.runner is not self.runner:
            self.runner.close()
        self.is_parked = False
        self._go_on_from(step, self.trace)
        self.scheduler, self.runner, self.texts, self.last_restored = past.scheduler, past.runner, past.texts, past.restored
        recall(self.runner, self.trace, step)
        return past.restored

    def park(self) -> None:
        """Give back the memory of the KV cache; whatever needs its contents computes them again."""
        if isinstance(self.runner, HoldsBlocks) and not self.is_parked:
            self.is_parked = True
            self._history.forget_blocks()
            self.runner.close()

    def fork(self, step: int, prepare: Callable[[Scheduler], None]) -> Timeline:
        """A second timeline from before ``step``; ``prepare`` changes its scheduler, or raises to refuse."""
        past = self._history.forked(self._present, step, prepare)
        trace = Trace(self.trace.config, self.trace.model, self.trace.requests.values(), self.trace.records, self.trace.fidelity)
        twin = Timeline(past.scheduler, past.runner, past.texts, trace, self._history.before(step, past))
        twin.last_restored = past.restored
        twin.clock.hold(self.clock.now_s)
        twin._go_on_from(step, trace)
        recall(twin.runner, trace, step)
        return twin

    @property
    def _present(self) -> Present:
        return Present(self.trace, self.scheduler, self.texts, self.runner)

    def _go_on_from(self, step: int, trace: Trace) -> None:
        """Drop from ``trace`` what does not belong to the past, and hold the clock where ``step`` began."""
        requests, config = requests_before(trace, step), config_before(trace, step)
        later = trace.cut(step)
        trace.requests, trace.config = requests, config
        if later:
            self.clock.hold(later[0].start_s)

