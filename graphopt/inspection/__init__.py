"""What became of a model, and why: dumps, errors op by op, demands, packages.

Nothing that compiles or runs models imports this room. From Python:

    from graphopt.inspection import bisect, check, diff, inspect_package, planned
    (graph,) = planned(model, example_inputs=(x,), precision="int8")
    print(diff(graph))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphopt.inspection.accuracy import Difference, Error, diff
    from graphopt.inspection.bisection import Bisection, bisect, stage_errors
    from graphopt.inspection.models import Planned, planned
    from graphopt.inspection.package_info import PackageInfo, inspect_package
    from graphopt.inspection.requirements import Verdict, check

__all__ = [
    "Bisection",
    "Difference",
    "Error",
    "PackageInfo",
    "Planned",
    "Verdict",
    "bisect",
    "check",
    "diff",
    "inspect_package",
    "planned",
    "stage_errors",
]

_HOMES = {
    "accuracy": ("Difference", "Error", "diff"),
    "bisection": ("Bisection", "bisect", "stage_errors"),
    "models": ("Planned", "planned"),
    "package_info": ("PackageInfo", "inspect_package"),
    "requirements": ("Verdict", "check"),
}


def __getattr__(name: str) -> Any:
    """Imports what a name needs: what is in a package takes no compiler to tell."""
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"graphopt.inspection.{home}"), name)
    raise AttributeError(f"module 'graphopt.inspection' has no attribute {name!r}")
