"""The graph of an import while it is made: what rules add to it, constants computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from graphopt.ir import Graph, Node, Origin, Shape, Value, symbolic
from graphopt.ir.interpret import run_node
from graphopt.ir.numbers import narrow, widen
from graphopt.ir.op import Op
from graphopt.ir.ops import Aten, Expand
from graphopt.onnx.known import Array, Tensor
from graphopt.passes.lowering.builder import Builder
from graphopt.passes.lowering.widening import Widening

_FREE = 1 << 16
"""Elements up to which a constant may be repeated when it is computed."""


class ArrayOf(Protocol):
    """Gives the elements of a tensor of the model."""

    def __call__(self, tensor: onnx.TensorProto) -> Array:
        """The elements, mapped where they lie in a file."""


class Branch(Protocol):
    """Imports the graph of a branch, which may read whatever is around it."""

    def __call__(self, graph: onnx.GraphProto, given: Sequence[Tensor] = ()) -> list[Tensor]:
        """The outputs of the branch.

        Args:
            graph: of the branch.
            given: its inputs.
        """


@dataclass
class Assembly:
    """What the rules of a model's nodes work on.

    Attributes:
        graph: what they add nodes to.
        exact: whether quantized products are computed as the model says; see `compiled_graph`.
        array: reads tensors that are attributes.
        branch: imports graphs that are attributes.
        widening: lowers nodes on floats of 16 bits.
    """

    graph: Graph
    exact: bool
    array: ArrayOf
    branch: Branch
    widening: Widening = field(default_factory=Widening)

    def add(self, nodes: Sequence[Node], results: Sequence[Value]) -> list[Value]:
        """Adds nodes to the graph; those of constants are computed, and their results constants.

        Args:
            nodes: in order.
            results: values that they make.

        Returns:
            The results, some of them constants now.
        """
        made: dict[Value, Value] = {}
        for node in nodes:
            node.replace_operands(made)
            if computed := _folded(node):
                made.update(zip(node.outputs, computed, strict=True))
            else:
                self.graph.nodes.append(node)
        return [made.get(v, v) for v in results]


class GraphBuilder(Builder):
    """Makes `go.*` nodes of an assembly."""

    def __init__(self, assembly: Assembly, origin: Origin) -> None:
        super().__init__(Node(Aten("onnx", {}), {}, [], origin))
        self._assembly = assembly

    def emit(
        self, op: Op, *operands: Value, shape: Shape | None = None, **named: Value | None
    ) -> Value:
        """Appends a node with one output and returns it, or the constant that it would make.

        Args:
            op: what it does.
            operands: the first ones of the op.
            shape: of the only output, where it is known in another form.
            named: further operands by role.
        """
        return self.emit_all(op, *operands, shape=shape, **named)[0]

    def emit_all(
        self, op: Op, *operands: Value, shape: Shape | None = None, **named: Value | None
    ) -> list[Value]:
        """Appends a node and returns its outputs.

        Args:
            op: what it does.
            operands: the first ones of the op.
            shape: of the only output, where it is known in another form.
            named: further operands by role.
        """
        node = Node.of(op, *operands, shape=shape, origin=self.node.origin, **named)
        return self._assembly.add([node], node.outputs)


def _folded(node: Node) -> list[Value] | None:
    """What a node of constants makes; None for others, and where that is much larger."""
    values = node.inputs
    if not all(v.is_constant for v in values) or not node.outputs:
        return None
    if not all(symbolic.is_static(v.shape) for v in node.outputs):
        return None
    largest = max((v.data.size for v in values if v.data is not None), default=0)
    grown = sum(_count(v.shape) for v in node.outputs)
    if (isinstance(node.op, Expand) or not values) and grown > max(largest, _FREE):
        return None
    try:
        arrays = run_node(node, [widen(_data(v), v.dtype) for v in values], {})
    except KeyError:  # sizes
        return None
    made = [np.array(narrow(a, v.dtype)) for a, v in zip(arrays, node.outputs, strict=True)]
    return [
        Value(v.dtype, tuple(a.shape), v.name, data=np.ascontiguousarray(a).reshape(a.shape))
        for a, v in zip(made, node.outputs, strict=True)
    ]


def _data(value: Value) -> Array:
    assert value.data is not None
    return value.data


def _count(shape: Shape) -> int:
    count = symbolic.product(shape)
    assert isinstance(count, int)
    return count
