"""Where a view stands in a notebook: in the cell that runs, live while the run goes on and replaced by its result afterwards."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.view.control import kernel_here
from workbench.view.files import is_built

if TYPE_CHECKING:
    from workbench.view.sources import Watched
    from workbench.view.widget import View

VIEWS_LEFT_OPEN = 4  # of runs that are over, for pages that are reloaded


def can_show() -> bool:
    """Whether a live view can be shown here: in a Jupyter kernel, with ipykernel's comms that work from threads, and built files."""
    if kernel_here() is None or not is_built() or _is_deaf():
        return False
    import workbench.view.widget  # noqa: F401  # now, and not while the first request waits: that would count as its queue time

    return True


def in_colab() -> bool:
    """Whether this is Google Colab, where what a thread sends after its cell ended is not shown."""
    return "google.colab" in sys.modules


def _is_deaf() -> bool:
    """ipykernel 7.0 loses what threads send (ipykernel#1450)."""
    from ipykernel._version import version_info

    return tuple(version_info[:2]) == (7, 0)


class LiveCell:
    """The view of a run in the cell that is being executed.

    ``keep`` leaves it in place for good; else it makes room when the run and its branches are over, for nothing if the cell waits and
    shows the result itself, or for the result.

    A page that is loaded from a file does not know the display any more: JupyterLab and Notebook 7 forget the ids of outputs that they
    read, and hear no more of a cell that they did not start.  Such a page, loaded while the run went on or once it was over, is handed
    the result, which its script puts in the place of the view (``extensions/view/src/stored.ts``); so the view stays open for a while.

    What no kernel can mend is a notebook that was saved while the run went on, and is opened only when its kernel is gone.  Where it is
    trusted JupyterLab 4.6 shows "Loading widget..." for ever, and it and Notebook 7.6 with a new kernel "Error displaying widget: model
    not found": the widget's MIME type has rank -10 there, before HTML and text, whether there is a model or not.  Where it is not
    trusted, as on another machine, they show the line of HTML that a view carries.
    """

    def __init__(self, run: Watched, *, keep: bool = False, result_comes: bool = False) -> None:
        from IPython.display import DisplayHandle

        from workbench.view.widget import View

        self._run, self._keep, self._result_comes = run, keep, result_comes
        self.view: View | None = View(run)
        self._handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._handle.display(self.view)  # type: ignore[no-untyped-call]
        if keep or not result_comes:
            _mark_shown(run)
        if not keep and not result_comes:
            run.when_done(self.close)

    def pump(self) -> None:
        """Nothing: the view draws itself."""

    def close(self) -> None:
        """Put the result, or nothing, in the place of the view, unless it was to be kept."""
        if self._keep or self.view is None:
            return
        going = next((source.run for source in self.view.sources if source.state in ("running", "paused")), None)
        if going is not None:  # a branch that somebody looks at
            going.when_done(self.close)
            return
        from workbench.view.page import branches_bundle, result_bundle

        view, self.view = self.view, None
        if self._result_comes and len(view.sources) == 1:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
            _hand_over(view, lambda: result_bundle(self._run))  # made when a page asks: this one gets it from the cell
            return
        result = branches_bundle(view.sources) if self._result_comes else result_bundle(self._run, view.sources)
        self._handle.update(result, raw=True)
        _hand_over(view, lambda: result)
        view.tell_result()


_left_open: deque[View] = deque()


def _hand_over(view: View, result: Callable[[], dict[str, str]]) -> None:
    """Keep a view that somebody saw, with its result, for pages that could not replace it; the oldest of too many is closed."""
    if not view.screens:
        view.close()
        return
    view.result = result
    _left_open.append(view)
    while len(_left_open) > VIEWS_LEFT_OPEN:
        _left_open.popleft().close()


def show_unfinished(run: Any) -> bool:
    """Show the live view of a run that is not over, unless this cell shows it already; false if its static result is to be shown."""
    if run.shown_in == _cell():
        return True
    if run.status not in ("running", "paused") or not can_show():
        return False
    LiveCell(run)
    return True


def _mark_shown(run: Any) -> None:
    run.shown_in = _cell()


def _cell() -> object:
    """What tells executions of cells apart; never equal to ``None``."""
    from IPython import get_ipython

    shell = get_ipython()
    return getattr(shell, "execution_count", object())
