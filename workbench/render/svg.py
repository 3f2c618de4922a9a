"""The pictures of a run: :func:`timeline_svg` and :func:`kv_svg`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from workbench.render import _svg
from workbench.render.occupancy import kv_svg
from workbench.render.timeline import timeline_svg

__all__ = ["kv_svg", "picture_svg", "stacked", "timeline_svg"]

_HEIGHT = re.compile(r'viewBox="0 0 \S+ ([\d.]+)"')


def picture_svg(trace: Any) -> str:
    """Timeline and KV strip above one another in one ``<svg>``, for exporters and files."""
    return stacked([timeline_svg(trace), kv_svg(trace)], f"Run of {trace.model.name}", "Timeline above, KV cache below.")


def stacked(pictures: Sequence[str], title: str, description: str) -> str:
    """Pictures of ours above one another in one ``<svg>``."""
    parts, y = [], 0.0
    for picture in pictures:
        height = float(_HEIGHT.search(picture).group(1))  # type: ignore[union-attr]  # our own document() wrote it
        size = f'width="{_svg.num(_svg.WIDTH)}" height="{_svg.num(height)}" y="{_svg.num(y)}"'
        parts.append(picture.replace('width="100%"', size, 1))
        y += height + 10
    return _svg.document("".join(parts), y, title, description)
