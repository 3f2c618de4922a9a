"""inference-workbench: watch an LLM inference engine think, step by step.

In a notebook: ``%load_ext workbench``, then ``%%infer`` over a few prompts.  In Python:

    >>> from workbench import EngineConfig, SamplingParams
    >>> EngineConfig(num_blocks=48).num_blocks, SamplingParams(max_tokens=8).max_tokens
    (48, 8)

Every public name is loaded when it is first used, so importing the package costs milliseconds and
imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.asking import why
    from workbench.comparison import compare
    from workbench.config import EngineConfig
    from workbench.definitions import Slo
    from workbench.engine import Engine
    from workbench.errors import (
        ConfigError,
        EngineBusyError,
        EngineClosedError,
        IntegrityError,
        MissingPackageError,
        ModelError,
        ModelIntegrityError,
        RequestError,
        TraceError,
        UnknownModelError,
        UnsupportedModelError,
        ViewError,
        WorkbenchError,
    )
    from workbench.magics import load_ipython_extension, unload_ipython_extension
    from workbench.plots import Plots
    from workbench.request import SamplingParams
    from workbench.run import Run
    from workbench.trace import Trace, load_trace
    from workbench.view import View

__version__ = "0.1.0"

_HOME = {
    "ConfigError": "workbench.errors",
    "Engine": "workbench.engine",
    "EngineBusyError": "workbench.errors",
    "EngineClosedError": "workbench.errors",
    "EngineConfig": "workbench.config",
    "IntegrityError": "workbench.errors",
    "MissingPackageError": "workbench.errors",
    "ModelError": "workbench.errors",
    "ModelIntegrityError": "workbench.errors",
    "Plots": "workbench.plots",
    "RequestError": "workbench.errors",
    "Run": "workbench.run",
    "SamplingParams": "workbench.request",
    "Slo": "workbench.definitions",
    "Trace": "workbench.trace",
    "TraceError": "workbench.errors",
    "UnknownModelError": "workbench.errors",
    "UnsupportedModelError": "workbench.errors",
    "View": "workbench.view",
    "ViewError": "workbench.errors",
    "WorkbenchError": "workbench.errors",
    "compare": "workbench.comparison",
    "load_ipython_extension": "workbench.magics",
    "load_trace": "workbench.trace",
    "unload_ipython_extension": "workbench.magics",
    "why": "workbench.asking",
}

__all__ = [
    "ConfigError",
    "Engine",
    "EngineBusyError",
    "EngineClosedError",
    "EngineConfig",
    "IntegrityError",
    "MissingPackageError",
    "ModelError",
    "ModelIntegrityError",
    "Plots",
    "RequestError",
    "Run",
    "SamplingParams",
    "Slo",
    "Trace",
    "TraceError",
    "UnknownModelError",
    "UnsupportedModelError",
    "View",
    "ViewError",
    "WorkbenchError",
    "__version__",
    "compare",
    "load_ipython_extension",
    "load_trace",
    "unload_ipython_extension",
    "why",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
