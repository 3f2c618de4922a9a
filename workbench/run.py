"""``Run``: a handle on prompts that an engine works through, and their result.

Steps happen on the run's own daemon thread; the handle can be asked, waited for, paused, taken back, forked and stopped from
anywhere.  When the run is over the same object is its result: outputs, trace, metrics, and why each decision was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import EngineClosedError, RequestError, TraceError
from workbench.events import Decision, StepRecord
from workbench.intake import Prompt
from workbench.metrics import RunMetrics, measure
from workbench.outputs import Completion, completions
from workbench.rebuild import check_whole
from workbench.request import Request
from workbench.result import Result, run_trace
from workbench.run_life import RunLife
from workbench.scheduler import Scheduler
from workbench.steppable import Steppable
from workbench.trace import Trace

if TYPE_CHECKING:
    from workbench.counterfactual import Counterfactual
    from workbench.definitions import Definitions, Slo
    from workbench.explain import Explanation, StepExplanation
    from workbench.lives import Life
    from workbench.moment import Moment
    from workbench.plots import Plots
    from workbench.prefix_story import PrefixStory
    from workbench.table import StepTable
    from workbench.view import View
    from workbench.whatif import WhatIf


class Run(RunLife):
    """Prompts on their way through an engine, and what came of them.

    ``status``: ``paused`` (before the first step, after :meth:`pause`, :meth:`rewind` or :meth:`fork`), ``running``, then ``finished``,
    ``stopped`` (by :meth:`stop` or an interrupt) or ``failed``.  ``first_step`` is the number of its first step; a fork shares the steps
    before it parted.
    """

    def __init__(
        self,
        engine: Steppable,
        requests: Sequence[Request],
        on_step: Callable[[StepRecord], None] | None = None,
        *,
        first_step: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(engine, requests, name, on_step)
        self.with_player = True  # whether its static result can be scrubbed
        self.shown_in: object = None  # the execution of a cell that shows it live already
        self.first_step = engine.trace.next_step if first_step is None else first_step
        self._result: Result | None = None

    @classmethod
    def of_trace(cls, engine: Steppable) -> Run:
        """The run of every request in ``engine``'s trace: over if they are, else paused."""
        run = cls(engine, list(engine.trace.requests.values()), first_step=engine.trace.first_step)
        if not run._unfinished:
            run._finish("finished")
        return run

    def add(self, prompt: Prompt | Mapping[str, Any], **params: Any) -> Request:
        """Add a prompt to a run that is not over, between two steps; it is part of the run from then on, and returned.

        Arguments and errors as in :meth:`Engine.add_request <workbench.engine.Engine.add_request>`.
        """

        def join() -> Request:
            if self._done.is_set():
                raise RequestError(f"{self.name} is over ({self._status}): rewind it, or fork it with add=[…]")
            request = self.engine.add_request(prompt, **params)
            self.requests = (*self.requests, request)
            return request

        return self.engine.between_steps(join)

    # -- back, and elsewhere ---------------------------------------------------------------------------------------

    def at(self, step: int) -> Moment:
        """The state at ``step``: queues, block tables, every block, texts so far.  Raises :class:`TraceError` with the steps there are."""
        from workbench.moment import moment

        return moment(self.trace, step)

    def rewind(self, step: int) -> Run:
        """Go back to before ``step``, KV tensors included; the run is paused there, and so is one that was over.

        Later steps are gone, the engine's too.  ``engine.last_restored`` says how it was done.  Returns the run itself.
        Raises :class:`TraceError` for a step that this run does not have.
        """
        self._check_step(step)
        self.pause()
        self.engine.rewind(step)
        self._result = None
        self._reopen()
        return self

    def fork(
        self,
        step: int | None = None,
        *,
        add: Prompt | Sequence[Prompt | Mapping[str, Any]] = (),
        edit: Mapping[str, Mapping[str, Any]] | None = None,
        abort: Sequence[str] = (),
        **knobs: Any,
    ) -> Run:
        """A second run on an engine of its own, from the state before ``step`` (by default the next one): paused, and changed as asked.

        ``knobs`` are settings (``num_blocks=80``), ``edit`` maps a request's id to fields to change (``{"r2": {"temperature": 0.8}}``; a
        new ``prompt`` lets it start afresh), ``abort`` are ids to end, ``add`` are prompts to add.  Only the weights are shared.
        Raises :class:`TraceError`, :class:`ConfigError` or :class:`RequestError` with what is allowed.

        >>> from workbench import Engine
        >>> from workbench.runners.scripted import ScriptedRunner
        >>> run = Engine(ScriptedRunner(), num_blocks=4, block_size=4).run([[1] * 9, [2] * 9], max_tokens=3)
        >>> branch = run.fork(0, num_blocks=8).resume()
        >>> len(run.trace), len(branch.trace)
        (6, 3)
        """
        if step is not None:
            self._check_step(step)
        before = {request.id for request in self.requests}
        engine = self.engine.fork(step, add=add, edit=edit, abort=abort, **knobs)
        added = [request for name, request in engine.trace.requests.items() if add and name not in before and name in engine.unfinished]
        own = [engine.current(request.id) for request in (*self.requests, *added)]
        return Run(engine, own, first_step=self.first_step, name=f"{self.name}, forked at step {engine.scheduler.step}")

    def _check_step(self, step: int) -> None:
        check_whole(step)
        first, trace = self.first_step, self.trace
        end = first + len(trace)
        if not first <= step <= end:
            raise TraceError(f"there is no step {step} in {self.name}: it has steps {first} to {end - 1}, and {end} would be the next")
        whole = self.engine.trace
        if step > first and not (step <= whole.next_step and whole.at(step - 1) is trace.at(step - 1)):
            raise TraceError(f"the engine of {self.name} was taken back since, and went another way: its step {step} is only in the trace")

    def why(self, request: str | Request | None = None, step: int | None = None) -> Explanation | StepExplanation | Life:
        """Why a request did or did not run in a step; why a whole step is what it is; or a request's life.

        ``why("r2", step=7)`` is a sentence with the numbers, what it waited for, and which single change would have let it run;
        ``why(step=7)`` explains every request of the step; ``why("r2")`` tells its segments from arrival to end.
        Raises :class:`RequestError` for an unknown request and :class:`IndexError` for a step that is not there.
        """
        from workbench.asking import why

        name = request.id if isinstance(request, Request) else request
        return why(self.trace, name, step, scheduler_at=self.way_back(step) if step is not None else None)

    def prefix_story(self, request: str | Request, step: int | None = None) -> PrefixStory:
        """Why a request's beginning was, or was not, found in the prefix cache when it was admitted (first, or in ``step``)."""
        from workbench.prefix_story import prefix_story

        return prefix_story(self.trace, request.id if isinstance(request, Request) else request, step)

    def definitions(self, slo: Slo | None = None) -> Definitions:
        """Every metric in its competing definitions, named; with ``slo``, goodput under it."""
        from workbench.definitions import definitions

        return definitions(self.trace, slo)

    def way_back(self, step: int) -> Callable[[int], Scheduler] | None:
        """How the scheduler before ``step`` is had from the engine; ``None`` when the engine was closed or went another way since."""
        try:
            self._check_step(step)
            self.engine.check_open()
        except (TraceError, EngineClosedError):
            return None
        return self.engine.scheduler_before

    def what_if(self, change: Decision | Counterfactual | Explanation, step: int | None = None) -> WhatIf:
        """Fork at the step of a decision with the change that would have let its request run, run the fork to its end, and compare.

        ``change``: a :class:`Counterfactual` of ``why(…).counterfactuals``, an explanation, or a decision of a record (its least
        intrusive counterfactual is taken, in the first step in which it was so decided, or in ``step``).
        Raises :class:`RequestError` when no single change would have let it run.
        """
        from workbench.comparison import compare
        from workbench.whatif import WhatIf, choose

        chosen = choose(self.trace, change, step, self.way_back)
        branch = self.fork(chosen.step, **chosen.changes).resume()
        return WhatIf(chosen, branch, compare(self, branch))

    # -- result ----------------------------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace:
        """The records of this run and the requests they speak of (a snapshot until it is over)."""
        return self._result.trace if self._result is not None else self._snapshot()

    def _snapshot(self) -> Trace:
        return run_trace(self.engine.trace, self.first_step, self.requests)

    def _keep_result(self) -> None:
        self._result = Result(self.requests, self._snapshot(), self.engine.tokenizer)

    @property
    def outputs(self) -> list[Completion]:
        """One :class:`Completion` per request, in the order in which they were given."""
        return list(self._result.outputs) if self._result is not None else completions(self.requests, self.trace, self.metrics)

    @property
    def metrics(self) -> RunMetrics:
        """Latencies, throughput, cache and speculation figures of the run."""
        return self._result.metrics if self._result is not None else measure(self.trace)

    @property
    def steps(self) -> StepTable:
        """The steps as a table: prints aligned; ``to_pandas()`` and ``to_arrow()`` convert it."""
        return self.trace.steps

    def summary(self) -> str:
        """The run in a few lines of text."""
        from workbench.render.text import render_text

        return render_text(self)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the trace to one file that :func:`workbench.load_trace` reads."""
        return self.trace.save(path)

    def to_perfetto(self, path: str | PathLike[str]) -> Path:
        """Write a Chrome trace-event file for Perfetto."""
        return self.trace.to_perfetto(path)

    # -- faces -----------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """The live view: timeline, block map, reasons, texts, latencies; and, while its engine lives, buttons that steer it.

        Raises :class:`ViewError` where there is no notebook to show it in.
        """
        from workbench.view import View

        return View(self)

    @property
    def plot(self) -> Plots:
        """Plotly figures of the run: ``run.plot.timeline()``, ``.batch()``, ``.kv_cache()``, ``.acceptance()`` and others."""
        from workbench.plots import Plots

        return Plots(self.trace)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write the view as one page that opens from disk and scrubs without a kernel; returns its path.

        Raises :class:`ViewError` where the view was not built, and :class:`TraceError` when the place cannot be written.
        """
        from workbench.view.page import write_page

        return write_page(self, Path(path))

    def __repr__(self) -> str:
        where = f" before step {self.engine.scheduler.step}" if self._status == "paused" else ""
        return f"<Run {self.status}{where}: {len(self.requests)} requests, {len(self.trace)} steps on {self.engine.model.name}>"

    def _ipython_display_(self) -> None:
        from workbench.view.display import show_unfinished

        if not show_unfinished(self):
            raise NotImplementedError  # IPython goes on to the mimebundle

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from workbench.view.page import result_bundle

        return result_bundle(self)
