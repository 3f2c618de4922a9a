"""``History``: what an engine keeps so that it can go back to any of its steps.

Three things bring a state of the past back.  The *scheduler* is decided again from the trace, from the nearest **keyframe** (a copy of
it) on.  *Texts* are pushed again on the way.  *KV blocks* get back what later steps wrote over (:class:`~workbench.undo.UndoLog`); further
back than its memory reaches, all steps from the first are computed again by the model, on blocks of their own.

    keyframe            step wanted          now
    ●───────────────────────▶│                 │
        decided again         ◀────────────────
                               blocks put back
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import msgspec

from workbench.errors import ConfigError
from workbench.interrupts import Interrupts
from workbench.plan import StepPlan
from workbench.rebuild import check_step, rebuild
from workbench.runners.base import Forkable, HoldsBlocks, Runner
from workbench.scheduler import Scheduler
from workbench.texts import Texts
from workbench.trace import Trace
from workbench.undo import UndoLog, write_back

KEYFRAME_STEPS = 64  # deciding 64 steps of 16 requests again takes about 5 ms
MAX_KEYFRAMES = 64
SHARE_TO_COPY = 0.25  # a fork gets blocks that only its past can read, for going back there, while all take less of the undo memory
NOWHERE = sys.maxsize  # the reach of an undo log whose blocks are gone


class Restored(msgspec.Struct, frozen=True):
    """How a state of the past was brought back."""

    step: int
    blocks_restored: int = 0
    steps_recomputed: int = 0
    duration_ms: float = 0.0
    undo_reach: int | None = 0  # None: the KV cache had been given back
    undo_memory_bytes: int = 0

    def __str__(self) -> str:
        if self.steps_recomputed:
            again = f"so {self.steps_recomputed} steps were computed again in {self.duration_ms / 1e3:,.1f} s"
            if self.undo_reach is None:
                return f"back at step {self.step}; the KV cache had been given back, {again}"
            reach = f"the undo memory of {self.undo_memory_bytes / 2**20:,.0f} MiB reaches back to step {self.undo_reach}"
            return f"back at step {self.step}; {reach}, {again}: raise undo_memory_bytes to avoid that"
        return f"back at step {self.step} in {self.duration_ms:,.1f} ms; {self.blocks_restored} KV blocks were put back"


class Past(msgspec.Struct):
    """An engine's parts as they stood before a step; its own, shared with nobody.

    ``reach``: the earliest step that the runner can still be put back to.
    """

    scheduler: Scheduler
    texts: Texts | None
    runner: Runner
    restored: Restored
    reach: int = 0


class Present(NamedTuple):
    """An engine's parts as they stand now."""

    trace: Trace
    scheduler: Scheduler
    texts: Texts | None
    runner: Runner


class _Keyframe(msgspec.Struct):
    scheduler: Scheduler
    texts: Texts | None


class History:
    """Keyframes and undo log of one engine; see the module's text."""

    def __init__(self, undo_memory_bytes: int) -> None:
        self.undo = UndoLog(undo_memory_bytes)
        self._keyframes: list[_Keyframe] = []
        self._spacing = KEYFRAME_STEPS

    # -- while the engine runs -------------------------------------------------------------------------------------

    def before_execution(self, plan: StepPlan, scheduler: Scheduler, runner: Runner) -> None:
        """Save what the blocks that ``plan`` allocated hold, before they are written."""
        if isinstance(runner, HoldsBlocks):
            fresh = [event.block_id for event in scheduler.kv.pool.events if event.kind == "allocated"]
            if fresh:
                self.undo.save(plan.step, fresh, runner)

    def after_step(self, scheduler: Scheduler, texts: Texts | None) -> None:
        """Take a keyframe now and then; when there are many, every second one goes."""
        if scheduler.step % self._spacing:
            return
        self._keyframes.append(_Keyframe(scheduler.copy(), texts.copy() if texts is not None else None))
        if len(self._keyframes) > MAX_KEYFRAMES:
            self._spacing *= 2
            self._keyframes = [frame for frame in self._keyframes if frame.scheduler.step % self._spacing == 0]

    # -- going back ------------------------------------------------------------------------------------------------

    def scheduler_before(self, now: Present, step: int) -> Scheduler:
        """The scheduler as it stood before ``step``, its commands done: a copy that the caller may do anything with."""
        return self._decided_again(now._replace(texts=None), step)[0]

    def rewound(self, now: Present, step: int, interrupts: Interrupts) -> Past:
        """The engine's own parts before ``step``; the runner's blocks are put back, or replaced where they must be computed again.

        Only computing again, which happens on other blocks, may be interrupted.
        """
        began, runner = perf_counter(), now.runner
        scheduler, texts = self._decided_again(now, step)
        if not isinstance(runner, HoldsBlocks):
            return Past(scheduler, texts, runner, self._report(step, began))
        if step < self.undo.reach:
            with interrupts.allowed():
                fresh, steps = self._recomputed(now.trace, step, runner, scheduler.kv.pool.highest_id)
            return Past(scheduler, texts, fresh, self._report(step, began, steps=steps))
        blocks = write_back(runner, self.undo.since(step))
        return Past(scheduler, texts, runner, self._report(step, began, blocks=blocks))

    def forked(self, now: Present, step: int, prepare: Callable[[Scheduler], None]) -> Past:
        """Parts of a second engine before ``step``; ``prepare`` may change its scheduler (and refuse) before any block is copied."""
        began, runner = perf_counter(), now.runner
        scheduler, texts = self._decided_again(now, step)
        readable = _readable(scheduler)
        prepare(scheduler)
        if not isinstance(runner, HoldsBlocks):
            return Past(scheduler, texts, _twin(runner, scheduler.kv.pool.highest_id), self._report(step, began))
        if step < self.undo.reach:
            fresh, steps = self._recomputed(now.trace, step, runner, scheduler.kv.pool.highest_id)
            return Past(scheduler, texts, fresh, self._report(step, began, steps=steps))
        twin = _twin(runner, scheduler.kv.pool.highest_id)
        assert isinstance(twin, HoldsBlocks)
        later, written = self.undo.since(step), self.undo.written
        whole = len(written) * runner.block_bytes <= self.undo.budget_bytes * SHARE_TO_COPY
        both_have = min(scheduler.kv.pool.highest_id, now.scheduler.kv.pool.highest_id)
        wanted = {block_id for block_id in (readable | written if whole else readable) if block_id <= both_have}
        unchanged = sorted(wanted.difference(block_id for entry in later for block_id in entry.block_ids))
        if unchanged:
            twin.write_blocks(unchanged, runner.read_blocks(unchanged))
        blocks = len(unchanged) + write_back(twin, later, only=wanted)
        return Past(scheduler, texts, twin, self._report(step, began, blocks=blocks), reach=0 if whole else step)

    def forget_blocks(self) -> None:
        """The runner's blocks are gone: every state has to be computed again."""
        self.undo = UndoLog(self.undo.budget_bytes)
        self.undo.reach = NOWHERE

    def cut(self, step: int) -> None:
        """Forget what lies at or after ``step``."""
        self.undo = self.undo.before(step)
        self._keyframes = [frame for frame in self._keyframes if frame.scheduler.step <= step]

    def before(self, step: int, past: Past) -> History:
        """An independent history of what happened before ``step``, for the fork that goes on with ``past``."""
        twin = History(past.scheduler.config.undo_memory_bytes)
        twin._spacing = self._spacing
        twin._keyframes = [frame for frame in self._keyframes if frame.scheduler.step <= step]
        twin.undo = self.undo.before(step, past.reach, past.scheduler.kv.pool.highest_id)
        twin.undo.budget_bytes = past.scheduler.config.undo_memory_bytes
        return twin

    def _decided_again(self, now: Present, step: int) -> tuple[Scheduler, Texts | None]:
        if step == now.scheduler.step:
            return now.scheduler.copy(), now.texts.copy() if now.texts is not None else None
        check_step(now.trace, step)
        frame = max((frame for frame in self._keyframes if frame.scheduler.step <= step), key=lambda f: f.scheduler.step, default=None)
        start = frame.scheduler.copy() if frame is not None else None
        texts = None
        if now.texts is not None:
            texts = frame.texts.copy() if frame is not None and frame.texts is not None else Texts(now.texts.tokenizer)
        scheduler = rebuild(now.trace, step, start=start, texts=texts)
        if texts is not None:
            texts.keep_only(scheduler.queues.states)
        return scheduler, texts

    def _recomputed(self, trace: Trace, step: int, runner: Runner, num_blocks: int) -> tuple[Runner, int]:
        """A runner whose blocks hold what they held before ``step``, because every step since the first ran on it again.

        The same batches in the same order: the contents are the same to the last bit.
        """
        twin = _twin(runner, num_blocks)
        self.undo.assume_written(range(1, num_blocks + 1))
        rebuild(trace, step, execute=twin.execute)
        return twin, step - trace.first_step

    def _report(self, step: int, began: float, *, blocks: int = 0, steps: int = 0) -> Restored:
        duration_ms = (perf_counter() - began) * 1e3
        reach = self.undo.reach if self.undo.reach != NOWHERE else None
        return Restored(step, blocks, steps, duration_ms, reach, self.undo.budget_bytes)


def _readable(scheduler: Scheduler) -> set[int]:
    """Blocks whose content may be read by a later step: those of tables, and those that can be found by prefix."""
    tables = {block_id for state in scheduler.queues.everyone() for block_id in state.block_ids}
    return tables.union(scheduler.kv.pool.index.blocks())


def _twin(runner: Runner, num_blocks: int) -> Runner:
    if not isinstance(runner, Forkable):
        raise ConfigError(f"{type(runner).__name__} cannot be forked: give it a method fork(num_blocks)")
    return runner.fork(num_blocks)
