"""Two runs side by side: values."""

from __future__ import annotations

from typing import Literal

import msgspec

from workbench.events import Decision
from workbench.metrics import RunMetrics
from workbench.trace import Trace

Kind = Literal["decision", "row", "order", "blocks", "tokens", "drafts", "end"]


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Where two runs part.

    ``steps``: the step's number in each; ``position`` counts the steps that were compared, from 0.  ``kind``: what differs first: a
    ``decision`` (verdict, reason or tokens), the ``row`` that came of it, the ``order`` of a queue, ``blocks`` or sampled ``tokens`` though
    all was decided alike, how a request came to its ``end``, or the ``drafts`` for the next step.  ``a`` and ``b`` are the request's
    decisions; ``None`` where it was not there, or where the difference is no single request's.
    """

    position: int
    steps: tuple[int, int]
    kind: Kind
    request_id: str | None
    a: Decision | None
    b: Decision | None
    sentence: str

    @property
    def step(self) -> int:
        """The step's number in the first run."""
        return self.steps[0]


class Figure(msgspec.Struct, frozen=True):
    """One metric of both runs; ``None`` where a run has no observation.  ``unit`` is ``ms``, ``1/s``, ``share`` or a noun."""

    name: str
    unit: str
    a: float | None
    b: float | None

    @property
    def difference(self) -> float | None:
        """``b - a``."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def ratio(self) -> float | None:
        """``b / a``; ``None`` where ``a`` is 0."""
        return None if not self.a or self.b is None else self.b / self.a


class ComparisonData(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs side by side.

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

    @property
    def side_by_side(self) -> tuple[Trace, Trace]:
        """Both from the first steps that were compared on: a position in one is the same position in the other."""
        (first_a, first_b), a, b = self.first_steps, self.a, self.b
        return a[first_a - a.first_step :], b[first_b - b.first_step :]
