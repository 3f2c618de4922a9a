"""Competing definitions of the metrics: a table of values, and the limits that goodput is measured against."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from workbench.errors import ConfigError
from workbench.metrics import RequestMetrics


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in milliseconds that a request must keep, all that are given; a request exactly at a limit keeps it.

    ``itl_ms`` bounds its longest gap.  A request of one token has no ITL or TPOT and keeps any limit on them.
    Raises :class:`ConfigError` for a limit that is not a positive number, and when none is given.
    """

    ttft_ms: float | None = None
    e2e_ms: float | None = None
    itl_ms: float | None = None
    tpot_ms: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        for name, limit in given.items():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"{name} of an SLO must be a positive number of milliseconds, not {limit!r}")
        if not given:
            raise ConfigError(f"an SLO needs a limit: give at least one of {', '.join(self.__struct_fields__)}")

    def met_by(self, request: RequestMetrics) -> bool | None:
        """Whether a request completed within every limit; ``None`` where its times are not known."""
        if request.finish_reason not in ("stop", "length"):
            return False
        if (self.ttft_ms is not None and request.ttft_ms is None) or (self.e2e_ms is not None and request.e2e_ms is None):
            return None
        times = (request.ttft_ms, request.e2e_ms, max(request.itl_ms, default=None), request.tpot_ms)
        limits = (self.ttft_ms, self.e2e_ms, self.itl_ms, self.tpot_ms)
        return all(limit is None or time is None or time <= limit for time, limit in zip(times, limits, strict=True))

    def __str__(self) -> str:
        limits = {"TTFT": self.ttft_ms, "E2E": self.e2e_ms, "ITL": self.itl_ms, "TPOT": self.tpot_ms}
        return ", ".join(f"{name} ≤ {limit:g} ms" for name, limit in limits.items() if limit is not None)


class Definition(msgspec.Struct, frozen=True):
    """One definition of a metric and what it comes to; ``value`` is ``None`` without an observation."""

    name: str
    value: float | None
    unit: str
    formula: str
    source: str


class DefinitionsData(msgspec.Struct, frozen=True):
    """A table of definitions; ``table["TTFT from arrival, mean"]`` is one of them."""

    rows: tuple[Definition, ...]
    slo: Slo | None
    num_requests: int

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Definition]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Definition:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no definition {name!r}; there are: {', '.join(row.name for row in self.rows)}")
