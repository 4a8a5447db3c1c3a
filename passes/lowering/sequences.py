"""Ops along the time of a sequence: continuous integrate-and-fire, the index of the largest."""

from __future__ import annotations

from graphopt.ir import DType, Node, Value, symbolic
from graphopt.ir.ops import Cif, Reduce
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.schema import Rule, rules


def _cif(b: Builder) -> list[Value]:
    hidden, alphas = b.tensor("hidden"), b.tensor("alphas")
    if hidden.dtype is not DType.F32 or alphas.dtype is not DType.F32:
        raise Unsupported(f"cif on {hidden.dtype.value} with {alphas.dtype.value} weights")
    op = Cif(b.arg("threshold"), b.arg("rule"), b.arg("count"), b.op.dim)
    b.nodes.append(Node.of(op, hidden, alphas, origin=b.node.origin))
    return b.nodes[-1].outputs


def _argmax(b: Builder) -> Value:
    x, axis = b.tensor(), b.arg("dim")
    if axis is None or x.rank == 0:
        x, axis = b.reshape(x, (symbolic.product(x.shape),)), 0
    axis = axis_of(x, axis)
    x = b.cast(x, DType.F32) if x.dtype.is_half else x
    y = b.emit(Reduce("argmax", (axis,)), x)
    return b.reshape(y, b.node.output.shape)


RULES: dict[str, Rule] = {
    **rules(
        _cif,
        "graphopt::cif(Tensor hidden, Tensor alphas, float threshold, str rule, str count) -> "
        "(Tensor, Tensor, Tensor)",
    ),
    **rules(
        _argmax,
        "aten::argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
        implied="keepdim",
    ),
}
