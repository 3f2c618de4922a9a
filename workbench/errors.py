"""Every error the workbench raises on purpose.

    WorkbenchError
    ├── ConfigError            a knob has an impossible value
    ├── RequestError           a prompt or its sampling parameters cannot be served
    ├── ModelError             a model cannot be found, verified, read or run
    │   ├── UnknownModelError
    │   ├── UnsupportedModelError
    │   └── ModelIntegrityError    wrong checksum, truncated or foreign file
    ├── EngineClosedError      the engine was closed
    ├── EngineBusyError        another run owns the engine now
    ├── TraceError             a trace file is corrupt, or newer than this version reads
    ├── MissingPackageError    an optional package is not installed
    ├── ViewError              there is no place where the live view could be shown
    └── IntegrityError         one of our own invariants broke: a bug, please report it

A message says what is wrong, gives the numbers, and ends with what to change.  The faces
(``%%infer``, the command line) print every one of these but the last as a single line.
"""

from __future__ import annotations

import traceback


class WorkbenchError(Exception):
    """Base of all errors that the workbench raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: in a cell, a mistake is one line, and `%debug` still knows where it was made.
        return [f"{type(self).__name__}: {self}"]


class ConfigError(WorkbenchError, ValueError):
    """A knob has an impossible value, or two knobs contradict each other."""


class RequestError(WorkbenchError, ValueError):
    """A prompt or its sampling parameters cannot be served by this engine."""


class ModelError(WorkbenchError):
    """A model cannot be found, verified, read or run."""


class UnknownModelError(ModelError, LookupError):
    """No model of that name, path or hub id can be reached."""


class UnsupportedModelError(ModelError):
    """The model was found, but its architecture is not one that we run."""


class ModelIntegrityError(ModelError):
    """A model file does not have the bytes it should have."""


class EngineClosedError(WorkbenchError, RuntimeError):
    """The engine was closed; make a new one."""


class EngineBusyError(WorkbenchError, RuntimeError):
    """Another run owns the engine at the moment."""


class TraceError(WorkbenchError, ValueError):
    """A trace file is corrupt, or was written by a newer version."""


class MissingPackageError(WorkbenchError, ModuleNotFoundError):
    """An optional package is not installed; the message says how to get it."""


class ViewError(WorkbenchError, RuntimeError):
    """There is no place where the live view could be shown, or its files were not built."""


class IntegrityError(WorkbenchError, AssertionError):
    """An invariant of the engine does not hold: a bug of ours, never a user's mistake."""

    def _render_traceback_(self) -> list[str]:
        return traceback.format_exception(self)  # where it broke is what a report needs
