"""Rules for f32 on floats of 16 bits: operands are widened, and results rounded, as torch does."""

from __future__ import annotations

from collections.abc import Callable

from graphopt.ir import DType, Node, Value
from graphopt.ir.numbers import widen
from graphopt.passes.lowering.builder import Builder

#: Gives what replaces the outputs of a builder's node.
Lower = Callable[[Builder], list[Value]]


class Widening:
    """Lowers nodes on bf16 and f16 by the rules for f32; constants are widened once."""

    def __init__(self) -> None:
        self._constants: dict[Value, Value] = {}

    @staticmethod
    def concerns(node: Node) -> bool:
        """Whether the node reads or makes floats of 16 bits."""
        return any(v.dtype.is_half for v in (*node.inputs, *node.outputs))

    def lower(self, node: Node, lower: Lower) -> tuple[list[Node], list[Value]]:
        """The nodes that replace one, and what replaces its outputs.

        Args:
            node: as torch has it.
            lower: applies the rule to a node on f32 alone.

        Raises:
            Unsupported: as the rule does.
        """
        before, after = Builder(node), Builder(node)
        operands = {role: self._wide(value, before) for role, value in node.operands.items()}
        outputs = [Value(_wide(v.dtype), v.shape, v.name) for v in node.outputs]
        inner = Builder(Node(node.op, operands, outputs, node.origin))
        made = zip(lower(inner), node.outputs, strict=True)
        results = [after.cast(value, old.dtype) for value, old in made]
        return [*before.nodes, *inner.nodes, *after.nodes], results

    def _wide(self, value: Value, builder: Builder) -> Value:
        if not value.dtype.is_half:
            return value
        if value.data is None:
            return builder.cast(value, DType.F32)
        if value not in self._constants:
            data = widen(value.data, value.dtype)
            self._constants[value] = Value(DType.F32, value.shape, value.name, data=data)
        return self._constants[value]


def _wide(dtype: DType) -> DType:
    return DType.F32 if dtype.is_half else dtype
