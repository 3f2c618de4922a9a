"""Figures of a trace as plotly ``go.Figure``s, for people who want to restyle or export them.

Pure functions of a trace: an engine, a file or a scripted run look the same.  plotly is optional (``pip install "plotly>=6"``) and
loaded when the first figure is made.  Colours and words are those of :mod:`workbench.render`.
"""

from __future__ import annotations

from typing import Any, Literal

from workbench.definitions import trace_of
from workbench.plots._figure import Figure
from workbench.plots.acceptance import acceptance
from workbench.plots.batch import batch
from workbench.plots.kv_cache import kv_cache
from workbench.plots.latency import latency
from workbench.plots.queue import queue
from workbench.plots.timeline import timeline
from workbench.render._format import escape

__all__ = ["Plots", "acceptance", "batch", "kv_cache", "latency", "queue", "timeline"]

_FIGURES = (timeline, batch, kv_cache, acceptance, latency, queue)


class Plots:
    """The figures of one trace, as methods; each returns a new ``plotly.graph_objects.Figure``.

    ``figure.update_layout(template="plotly_white")`` exchanges the look, ``figure.write_html("x.html")`` exports.
    """

    def __init__(self, trace: Any) -> None:
        self.trace = trace_of(trace, "Plots")

    def timeline(self, by: Literal["step", "ms"] = "step") -> Figure:
        """What every request did in every step.  x: step, or milliseconds on the engine's clock; y: request."""
        return timeline(self.trace, by=by)

    def batch(self, times: bool = True) -> Figure:
        """Tokens per step by kind against the token budget, and milliseconds by phase.  x: step; y: tokens, ms."""
        return batch(self.trace, times=times)

    def kv_cache(self) -> Figure:
        """Blocks in use, cached and free, with evictions and preemptions.  x: step; y: KV blocks."""
        return kv_cache(self.trace)

    def acceptance(self) -> Figure:
        """Acceptance by draft position, over steps, by draft length; the speed-up.  x: position, step; y: share of rounds, tokens."""
        return acceptance(self.trace)

    def latency(self) -> Figure:
        """Time to first token and every gap between outputs, with p50 and p99.  x: step in which the tokens came out; y: ms."""
        return latency(self.trace)

    def queue(self) -> Figure:
        """Requests running, held, waiting and not arrived, and how long they have waited.  x: step; y: requests, ms."""
        return queue(self.trace)

    def __repr__(self) -> str:
        return "\n".join([f"figures of {self.trace!r}", *(f"  .{name}()".ljust(17) + text for name, text in _listed())])

    def _repr_html_(self) -> str:
        cell = "style='text-align:left'"
        rows = "".join(f"<tr><td {cell}><code>.{name}()</code></td><td {cell}>{escape(text)}</td></tr>" for name, text in _listed())
        return f"<div>figures of {escape(repr(self.trace))}</div><table>{rows}</table>"


def _listed() -> list[tuple[str, str]]:
    docs = [(figure.__name__, getattr(Plots, figure.__name__).__doc__ or "") for figure in _FIGURES]
    return [(name, doc.split("  ")[0]) for name, doc in docs]
