"""Control flow whose way is known when a model is imported."""

from __future__ import annotations

import sympy

from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.rules.table import Result, Table, since
from graphopt.passes.lowering.builder import Unsupported


def _if(c: Call) -> list[Result]:
    """The branch that is taken."""
    condition = c.tensor()
    branches = c.required("then_branch"), c.required("else_branch")
    if condition.elements is None or condition.elements.size != 1:
        raise Unsupported("a condition that data decide")
    truth = condition.elements.reshape(()).item()
    if isinstance(truth, sympy.Basic):
        raise Unsupported(f"the condition {truth} on sizes")
    taken = c.branch(branches[0] if truth else branches[1])
    if len(taken) != c.results:
        raise Malformed(f"{len(taken)} results of a branch for {c.results} outputs")
    return list(taken)


RULES: Table = since(1, If=_if)
