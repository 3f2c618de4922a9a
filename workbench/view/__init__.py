"""The live view: a run as one screen that steps, goes back and forks; and as a page that does without a kernel.

A view is handed runs and traces, and imports neither engine nor run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.view.widget import View

__all__ = ["View"]


def __getattr__(name: str) -> Any:
    if name != "View":
        raise AttributeError(f"module 'workbench.view' has no attribute {name!r}")
    from workbench.view.widget import View  # anywidget is imported when the first view is made

    return View
