"""graphopt: an operator-graph optimizer for PyTorch models on Arm Neoverse servers.

`optimize` needs torch; `load` needs numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphopt._version import VERSION as __version__

if TYPE_CHECKING:
    from graphopt.compiler.precision_plan import PrecisionPlan
    from graphopt.compiler.stages import keep_stages
    from graphopt.config import Config
    from graphopt.driver import optimize
    from graphopt.frontend.capture import capture
    from graphopt.hosts.onnxruntime import ort_library, ort_session_options
    from graphopt.inspection.tuning import tune
    from graphopt.runtime.library import limit_threads
    from graphopt.runtime.loaded import load
    from graphopt.target import Target

__all__ = [
    "Config",
    "PrecisionPlan",
    "Target",
    "__version__",
    "capture",
    "keep_stages",
    "limit_threads",
    "load",
    "optimize",
    "ort_library",
    "ort_session_options",
    "tune",
]

_HOMES = {
    "capture": "graphopt.frontend.capture",
    "Config": "graphopt.config",
    "keep_stages": "graphopt.compiler.stages",
    "limit_threads": "graphopt.runtime.library",
    "load": "graphopt.runtime.loaded",
    "optimize": "graphopt.driver",
    "ort_library": "graphopt.hosts.onnxruntime",
    "ort_session_options": "graphopt.hosts.onnxruntime",
    "PrecisionPlan": "graphopt.compiler.precision_plan",
    "Target": "graphopt.target",
    "tune": "graphopt.inspection.tuning",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Imports what a name needs with its first use: of all this, numpy and torch take longest."""
    import importlib

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graphopt' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        from graphopt.errors import MissingDependencyError
        from graphopt.extras import command_of, is_known

        missing = (error.name or "").partition(".")[0]
        if not is_known(missing):
            raise
        raise MissingDependencyError(missing, f"graphopt.{name}", command_of("torch")) from error
