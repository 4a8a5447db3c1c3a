"""Branches: the one that is taken, where that is known, or both and a choice between results."""

from __future__ import annotations

import sympy

from graphopt.ir import Node, Shape
from graphopt.ir.ops import Attention, Conv, Depthwise, Gather, Linear, Matmul, Pointwise, Recurrent
from graphopt.ir.symbolic import simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Tensor
from graphopt.onnx.rules.table import Result, Table, since
from graphopt.passes.lowering.builder import Unsupported

_COSTLY = (Attention, Conv, Depthwise, Linear, Matmul, Recurrent)


def _if(c: Call) -> list[Result]:
    condition = c.tensor()
    branches = c.required("then_branch"), c.required("else_branch")
    known = condition.elements
    if known is not None and known.size != 1:
        raise Malformed(f"a condition of {known.size} elements")
    truth = None if known is None else known.reshape(()).item()
    if truth is None or isinstance(truth, sympy.Basic):
        why = "data decide" if truth is None else f"sizes decide ({truth})"
        return list(_both(c, condition, why))
    taken = c.branch(branches[0] if truth else branches[1])
    if len(taken) != c.results:
        raise Malformed(f"{len(taken)} results of a branch for {c.results} outputs")
    return list(taken)


def _both(c: Call, condition: Tensor, why: str) -> list[Tensor]:
    """Results of both branches, of which the condition chooses."""
    if condition.shape not in ((), (1,)):
        raise Unsupported(f"a condition of the shape {condition.shape}")
    nodes, conditions = c.made()
    first, second = (c.branch(c.required(name)) for name in ("then_branch", "else_branch"))
    if not len(first) == len(second) == c.results:
        raise Malformed(f"{len(first)} and {len(second)} results for {c.results} outputs")
    now, later = c.made()
    if len(later) > len(conditions) or any(map(_may_fail, now[len(nodes) :])):
        raise Unsupported(f"a condition that {why}, before branches that may fail")
    if any(isinstance(node.op, _COSTLY) for node in now[len(nodes) :]):
        raise Unsupported(f"a condition that {why}, before branches with products")
    return [_chosen(c, condition, a, b, why) for a, b in zip(first, second, strict=True)]


def _chosen(c: Call, condition: Tensor, a: Tensor, b: Tensor, why: str) -> Tensor:
    if a is b:
        return a
    if a.dtype is not b.dtype or not _same(a.shape, b.shape):
        raise Unsupported(f"a condition that {why}, of results of different shapes")
    test = c.b.reshape(condition.value(c.b), ())
    values = {"self": a.value(c.b), "other": b.value(c.b)}
    (y,) = c.aten("where.self", (a.dtype, a.shape), condition=test, **values)
    return Tensor.of(y)


def _same(a: Shape, b: Shape) -> bool:
    return len(a) == len(b) and all(simplify(m - n) == 0 for m, n in zip(a, b, strict=True))


def _may_fail(node: Node) -> bool:
    """Whether a node checks data, or finds a size in them."""
    if isinstance(node.op, Pointwise):
        return any(s.op == "check" for s in node.op.expr.walk())
    return isinstance(node.op, Gather) or bool(node.op.computes)


RULES: Table = since(1, If=_if)
