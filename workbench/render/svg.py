"""The pictures of a run: :func:`timeline_svg` and :func:`kv_svg`."""

from __future__ import annotations

import re
from typing import Any

from workbench.render import _svg
from workbench.render.occupancy import kv_svg
from workbench.render.timeline import timeline_svg

__all__ = ["kv_svg", "picture_svg", "timeline_svg"]

_HEIGHT = re.compile(r'viewBox="0 0 \S+ ([\d.]+)"')


def picture_svg(trace: Any) -> str:
    """Timeline and KV strip above one another in one ``<svg>``, for exporters and files."""
    parts, y = [], 0.0
    for one in (timeline_svg(trace), kv_svg(trace)):
        height = float(_HEIGHT.search(one).group(1))  # type: ignore[union-attr]  # our own document() wrote it
        placed = one.replace('width="100%"', f'width="{_svg.num(_svg.WIDTH)}" height="{_svg.num(height)}" y="{_svg.num(y)}"', 1)
        parts.append(placed)
        y += height + 10
    steps = len(trace.records)
    return _svg.document("".join(parts), y, f"Run of {trace.model.name}, {steps} steps", "Timeline above, KV cache below.")
