"""Lets kernels read and store bf16 where a model widens and rounds around them.

    %1 = go.pointwise(%x, expr=f32(x0))     # f32
    %2 = go.norm(%1)                        # f32     ->     %2 = go.norm(%x)   # bf16
    %3 = go.pointwise(%2, expr=bf16(x0))    # bf16

1. What a loop widens, or rounds and widens, is stored as bf16 if all its readers take bf16.
2. So is a result that every reader rounds to bf16 first, of a kernel that can.
3. A loop that then only copies goes.
No number changes: a kernel computes in f32 and rounds as the loop did. Attention is the exception,
which multiplies in bf16 what it reads as bf16: that is left alone unless the precision has bf16.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.ops import Attention, Pointwise
from graphopt.ir.scalar import Scalar
from graphopt.passes.base import Pass
from graphopt.passes.support.narrowing import Narrowing


class FuseCasts(Pass):
    """See the module.

    Args:
        attention: whether attention may read bf16.
    """

    def __init__(self, attention: bool) -> None:
        self._attention = attention

    def run(self, graph: Graph) -> bool:
        """First what is stored, then the loops that have become copies."""
        narrowing = Narrowing(graph)
        made = [n for n in graph.nodes if len(n.outputs) == 1 and _is_plain_f32(n.output)]
        refusals = {n: self._refusal(n, narrowing) for n in made}
        narrowing.refuse_mixed_attention(refusals)
        narrowed = [node for node, refusal in refusals.items() if refusal is None]
        for node in narrowed:
            if isinstance(node.op, Pointwise):
                node.op.expr = node.op.expr.args[0]
            narrowing.narrow(node.output)
            node.decide(self.name, "stored as bf16, as the model has it")
        if not narrowed:
            return False
        for node in graph.nodes:
            if isinstance(node.op, Pointwise):
                node.op.expr = _without_detours(node.op.expr)
        copies = {n.output: n.inputs[0] for n in graph.nodes if _is_copy(n)}
        graph.nodes = [n for n in graph.nodes if not n.outputs or n.outputs[0] not in copies]
        graph.replace(copies)
        return True

    def _refusal(self, node: Node, narrowing: Narrowing) -> str | None:
        """Why a value stays f32, or None."""
        value = node.output
        if isinstance(node.op, Pointwise):
            if not _is_widened(node.op.expr):
                return "no bf16"
            if not self._attention and _is_read_by_attention(value, narrowing):
                return "attention computes in f32"
            return narrowing.refusal(value)
        rounded = node.op.STORES_BF16 and _is_rounded(value, narrowing)
        return narrowing.refusal(value) if rounded else "not rounded to bf16"


def _is_plain_f32(value: Value) -> bool:
    return value.dtype is DType.F32 and not value.packed


def _is_widened(expr: Scalar) -> bool:
    """Whether an expression is a bf16 number as f32."""
    return expr.op == "cast" and expr.args[0].dtype is DType.BF16


def _is_read_by_attention(value: Value, narrowing: Narrowing) -> bool:
    return any(
        isinstance(user.op, Attention)
        or (user.op.is_view and _is_read_by_attention(user.output, narrowing))
        for user in narrowing.readers[value]
    )


def _is_rounded(value: Value, narrowing: Narrowing) -> bool:
    """Whether all readers, and there are some, round a value to bf16 before anything else."""
    return bool(narrowing.readers[value]) and all(
        _is_rounded(user.output, narrowing) if user.op.is_view else _rounds(user, value)
        for user in narrowing.readers[value]
    )


def _rounds(user: Node, value: Value) -> bool:
    if not isinstance(user.op, Pointwise):
        return False
    numbers = {number for number, v in enumerate(user.inputs) if v is value}

    def of(expr: Scalar) -> bool:
        if expr.op in ("operand", "load") and expr.value in numbers:
            return False
        rounds = expr.op == "cast" and expr.dtype is DType.BF16 and expr.args[0].op == "operand"
        return rounds or all(map(of, expr.args))

    return of(user.op.expr)


def _without_detours(expr: Scalar) -> Scalar:
    """The expression without bf16 numbers that become f32 and bf16 again."""
    args = tuple(map(_without_detours, expr.args))
    if expr.op == "cast" and expr.dtype is DType.BF16 and _is_widened(args[0]):
        return args[0].args[0]
    return Scalar(expr.op, expr.dtype, args, expr.value)


def _is_copy(node: Node) -> bool:
    """Whether a loop gives its only operand as it is."""
    if not isinstance(node.op, Pointwise) or len(node.operands) != 1 or node.output.packed:
        return False
    source, expr = node.inputs[0], node.op.expr
    return expr.op == "operand" and source.dtype is DType.BF16 and source.shape == node.output.shape
