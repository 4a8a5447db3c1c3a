"""Continuous integrate-and-fire, and sizes that are read from tensors."""

from __future__ import annotations

from graphopt.ir import DType, Node, Value
from graphopt.ir.ops import Check, Cif, ReadSize
from graphopt.passes.lowering.builder import Builder, Unsupported
from graphopt.passes.lowering.schema import Rule, rules


def _cif(b: Builder) -> list[Value]:
    hidden, alphas = b.tensor("hidden"), b.tensor("alphas")
    if hidden.dtype is not DType.F32 or alphas.dtype is not DType.F32:
        raise Unsupported(f"cif on {hidden.dtype.value} with {alphas.dtype.value} weights")
    op = Cif(b.arg("threshold"), b.arg("rule"), b.arg("count"), b.op.dim)
    b.bounds[b.op.dim] = hidden.shape[1]
    b.nodes.append(Node.of(op, hidden, alphas, origin=b.node.origin))
    return b.nodes[-1].outputs


def _item(b: Builder) -> list[Value]:
    """A size read from a tensor: one that an input has, or one that has a bound."""
    if b.op.dim:
        if b.op.bound is None or b.tensor().dtype.is_float:
            raise Unsupported("a number that the model takes for a size, and that has no bound")
        b.bounds[b.op.dim] = b.op.bound
        return [b.emit(ReadSize(b.op.dim, b.op.bound, b.op.is_cut), b.tensor())]
    b.nodes.append(Node.of(Check(b.op.size), b.tensor(), origin=b.node.origin))
    return []


RULES: dict[str, Rule] = {
    **rules(
        _cif,
        "graphopt::cif(Tensor hidden, Tensor alphas, float threshold, str rule, str count) -> "
        "(Tensor, Tensor, Tensor)",
    ),
    **rules(_item, "aten::item(Tensor self) -> Scalar"),
}
