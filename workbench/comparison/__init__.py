"""Two runs side by side: where they part, what was changed, and what it did to the metrics.

Steps are compared by what was decided, done and sampled; clocks, durations and the numbers behind a reason may differ.  Everything is
read from traces, so runs of any two engines can be compared, also when they were loaded from files.
"""

from __future__ import annotations

from typing import Any

import msgspec

from workbench.comparison.changes import Changes
from workbench.comparison.divergence import Divergence, first_divergence
from workbench.comparison.figures import Figure, figures
from workbench.comparison.pairing import Pairing, pair
from workbench.definitions import trace_of
from workbench.metrics import RunMetrics, measure
from workbench.render._format import plural
from workbench.trace import Trace

__all__ = ["Comparison", "Divergence", "Figure", "compare"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`compare` found.

    ``sentence``: where the two part, or that they never do.  ``divergence``: the same as values; ``None`` if they never part.
    ``notes``: what was changed between them.  ``same_arrivals``: whether both were given the same prompts at the same times.
    ``num_compared``: steps that both have, the first of which is ``first_steps`` in each.  ``figures``: the metrics of both.
    """

    a: Trace
    b: Trace
    names: tuple[str, str]
    sentence: str
    divergence: Divergence | None
    notes: tuple[str, ...]
    same_arrivals: bool
    num_compared: int
    first_steps: tuple[int, int]
    metrics: tuple[RunMetrics, RunMetrics]
    figures: tuple[Figure, ...]

    def __repr__(self) -> str:
        from workbench.render.comparison import comparison_text

        return comparison_text(self)

    def _repr_html_(self) -> str:
        from workbench.render.comparison import comparison_html

        return comparison_html(self)


def compare(run_a: Any, run_b: Any) -> Comparison:
    """Find the first step, and in it the first decision, in which two runs differ; tabulate the metrics of both.

    Each is a run (anything with a ``trace``) or a :class:`~workbench.trace.Trace`.  Requests are told by their ids; where the two were not
    given the same, those that both have are compared, and the comparison says so.
    Raises :class:`TypeError` for anything else, and :class:`TraceError` for a trace without steps.
    """
    a, b = trace_of(run_a, "compare")[:], trace_of(run_b, "compare")[:]  # as of now: a run may be adding to them
    pairing = pair(a, b)
    changes = Changes(pairing)
    divergence = first_divergence(pairing)
    metrics = measure(a), measure(b)
    return Comparison(
        a=a,
        b=b,
        names=(_name(run_a), _name(run_b)),
        sentence=_sentence(pairing, divergence),
        divergence=divergence,
        notes=changes.notes,
        same_arrivals=changes.same_arrivals,
        num_compared=len(pairing),
        first_steps=(pairing.a[0].step, pairing.b[0].step) if len(pairing) else (a.first_step, b.first_step),
        metrics=metrics,
        figures=figures(*metrics),
    )


def _name(run: Any) -> str:
    name = getattr(run, "name", None)
    return name if isinstance(name, str) else f"a trace of {trace_of(run, 'compare').model.name}"


def _sentence(pairing: Pairing, divergence: Divergence | None) -> str:
    if not pairing.common:
        return "They have no request in common, so there is nothing to compare step by step."
    if divergence is not None:
        return divergence.sentence
    if not len(pairing):
        return "They have no step in common, so there is nothing to compare step by step."
    longer, name = (pairing.a, "a") if len(pairing.a) > len(pairing.b) else (pairing.b, "b")
    if len(pairing.a) == len(pairing.b):
        return f"They never part: the same decisions, blocks and tokens in all {plural(len(pairing), 'step')}."
    return f"They never part in the {plural(len(pairing), 'step')} that both have; {name} goes on to step {longer[-1].step}."
