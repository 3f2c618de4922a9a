"""Two runs side by side: where they part, what was changed, and what it did to the metrics.

Steps are compared by what was decided, done and sampled; clocks, durations and the numbers behind a reason may differ.  Everything is
read from traces, so runs of any two engines can be compared, also when they were loaded from files.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.comparison.changes import Changes
from workbench.comparison.divergence import first_divergence
from workbench.comparison.figures import figures
from workbench.comparison.pairing import Pairing, pair
from workbench.comparison.speed_up import decoding, gain
from workbench.definitions import trace_of
from workbench.findings.comparison import ComparisonData, Divergence, Figure
from workbench.metrics import measure
from workbench.render._format import plural
from workbench.render.comparison import comparison_text

if TYPE_CHECKING:
    from workbench.view import View

__all__ = ["Comparison", "Divergence", "Figure", "compare"]


class Comparison(ComparisonData, frozen=True, kw_only=True):
    """What :func:`compare` found, with both timelines; fields as in :class:`~workbench.findings.comparison.ComparisonData`.

    Where just one of two runs of the same prompts speculated, the last of ``notes`` tells what that gained: the time per output token in
    the steps that computed no prompt, drafting included, of one against the other.
    """

    def __repr__(self) -> str:
        return comparison_text(self)

    def view(self) -> View:
        """Two timelines with one cursor, and a mark at the first step that differs.  It looks at traces: fork a run to steer a branch.

        Raises :class:`ViewError` where the view was not built.
        """
        from workbench.view import View

        parted = None if self.divergence is None else (self.divergence.position, self.divergence.sentence)
        return View(*self.side_by_side, names=self.names, parted=parted)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write that view, and the figures, as one page that opens from disk.

        Raises :class:`ViewError` where the view was not built, and :class:`TraceError` when the place cannot be written.
        """
        from workbench.view.page import write_comparison

        return write_comparison(self, Path(path))

    def _repr_html_(self) -> str:
        from workbench.view.page import comparison_with_player

        return comparison_with_player(self)


def compare(run_a: Any, run_b: Any) -> Comparison:
    """Find the first step, and in it the first decision, in which two runs differ; tabulate the metrics of both.

    Each is a run (anything with a ``trace``) or a :class:`~workbench.trace.Trace`.  Requests are told by their ids, or, where no id is in
    both, by their prompts if these are the same in the same order; ``b``'s then go by the ids in ``a`` in everything said.  Where the two
    were not given the same requests, those that both have are compared.  The comparison says which.
    Raises :class:`TypeError` for anything else, and :class:`TraceError` for a trace without steps.
    """
    a, b = trace_of(run_a, "compare")[:], trace_of(run_b, "compare")[:]  # as of now: a run may be adding to them
    pairing = pair(a, b)
    changes = Changes(pairing)
    divergence = first_divergence(pairing)
    metrics, gained = (measure(a), measure(b)), gain(pairing)
    return Comparison(
        a=a,
        b=b,
        names=(_name(run_a), _name(run_b)),
        sentence=_sentence(pairing, divergence),
        divergence=divergence,
        notes=changes.notes if gained is None else (*changes.notes, gained.sentence()),
        same_arrivals=changes.same_arrivals,
        num_compared=len(pairing),
        first_steps=(pairing.a[0].step, pairing.b[0].step) if len(pairing) else (a.first_step, b.first_step),
        metrics=metrics,
        figures=figures(*metrics, (decoding(a), decoding(b)), gained),
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
