"""Multiplies by int4 weights and int8 activations.

                                              %1 = go.quantize_rows(%x)            # qa8r
    %1 = go.linear(%x, weight=%w)      ->     %2 = go.linear(%1, weight=%q, scale=%s, format=int4,
                                                             group=32)

Weights: symmetric int4, a bf16 scale per block of `group` values along the depth, or one f32 scale
per output channel (`group=0`); passes/support/rounding.py says how they are chosen, and attribute
`loss` what that lost. Activations: int8 per row at run time. kernels/reference.py defines all of
it. One quantized tensor serves all linears that read the same input. A linear with an operand
`scale` in bf16 has its weights in blocks: i8 [n, k] and bf16 [n, k / group] are taken as they are.
With calibration the graph runs in numpy, and each linear is rounded when its input is there: the
inputs are those that the rounded weights before it give. A table that `go.gather` shares with a
linear is looked up in the rounded weights.
Left alone: a depth or width below 16, and, unless `Rounding.returned`, linears whose result the
graph returns, if no one asked for just these.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from graphopt.errors import GroupSizeError
from graphopt.ir import DType, Graph, Node, Value, constant
from graphopt.ir.interpret import execute
from graphopt.ir.ops import Gather, Linear, QuantizeRows
from graphopt.kernels.formats import int4
from graphopt.passes.base import Choice, Pass, every_node
from graphopt.passes.support.gemm import (
    SMALLEST,
    PackedRows,
    block_length,
    came_in_blocks,
    require_finite,
)
from graphopt.passes.support.rounding import NEAREST, Rounding, loss_of, round_weights

Array = np.ndarray[Any, Any]

_LONGEST = 1024


class QuantizeWeightsInt4(Pass):
    """See the module.

    Args:
        group: values that share a scale, a multiple of 32 up to 1024; 0 for whole channels.
        rounding: how weights are chosen.
        chosen: which layers are for it.
        named: which of them were asked for by name.
    """

    def __init__(
        self,
        group: int,
        rounding: Rounding = NEAREST,
        chosen: Choice = every_node,
        named: Choice = lambda node: False,
    ) -> None:
        self._group, self._rounding = group, rounding
        self._chosen, self._named = chosen, named

    def run(self, graph: Graph) -> bool:
        """Rewrites every linear that is worth it."""
        returned = set() if self._rounding.returned else set(graph.outputs)
        readers: dict[Value, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            if _is_whole(node) and self._chosen(node) and self._accepts(node, returned):
                readers[node.operands["weight"]].append(node)
        self._round(graph, readers)
        rounded = {node for linears in readers.values() for node in linears}
        came = {node for node in graph.nodes if _undecided(node) and came_in_blocks(node)} - rounded
        for node in came:
            node.decide(self.name, "int4 as it came, activations int8 per row")
        quantized = PackedRows(QuantizeRows())
        nodes: list[Node] = []
        for node in graph.nodes:
            if node in rounded or node in came:
                quantized.give(node, nodes)
                op = node.as_op(Linear)
                op.group = block_length(node)
                op.format = int4(op.group)
            nodes.append(node)
        graph.nodes = nodes
        return bool(rounded or came)

    def _accepts(self, node: Node, returned: set[Value]) -> bool:
        weight = node.operands["weight"]
        width, depth = weight.shape
        assert isinstance(width, int) and isinstance(depth, int)
        if node.output in returned and not self._named(node):
            node.decide(self.name, "not int4: the graph returns its result")
            return False
        if min(depth, width) < SMALLEST:
            node.decide(self.name, f"not int4: {depth} x {width} is too small")
            return False
        fits = 0 <= self._group <= _LONGEST and self._group % 32 == 0
        if not fits or (self._group and depth % self._group):
            raise GroupSizeError(self._group, weight.name, depth)
        require_finite(weight)
        return True

    def _round(self, graph: Graph, readers: dict[Value, list[Node]]) -> None:
        """Gives linears, by their weight, and lookups in it the rounded weight."""
        tables: dict[Value, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            if isinstance(node.op, Gather):
                tables[node.operands["table"]].append(node)

        def give(weight: Value, hessian: Array | None = None) -> None:
            self._replace(weight, hessian, readers[weight], tables[weight])

        if self._rounding.calibration is None:
            with ThreadPoolExecutor() as pool:
                list(pool.map(give, list(readers)))
            return
        left = set(readers)
        for node, operands in execute(graph, list(self._rounding.calibration)):
            if isinstance(node.op, Linear) and (weight := node.operands["weight"]) in left:
                left.remove(weight)
                x = operands[0].reshape(-1, operands[0].shape[-1])
                give(weight, x.T @ x)
            if not left:
                return

    def _replace(
        self, weight: Value, hessian: Array | None, linears: list[Node], lookups: list[Node]
    ) -> None:
        group, method = self._group, self._rounding.method
        assert weight.data is not None
        rounded = round_weights(weight.data, group, method, hessian)
        loss = loss_of(weight.data, rounded.dense(), hessian)
        q = constant(rounded.q, weight.name)
        kind, shape = DType.BF16 if group else DType.F32, rounded.scale.shape
        scale = Value(kind, shape, f"{weight.name}.scale", data=rounded.scale)
        per = f"block of {group}" if group else "channel"
        how = "" if method == "nearest" else f" by {method}"
        for node in linears:
            node.operands |= {"weight": q, "scale": scale}
            node.as_op(Linear).loss = loss
            node.decide(self.name, f"int4: weights per {per}{how}, activations int8 per row")
        for node in lookups:
            node.operands |= {"table": q, "scale": scale}
            op = node.as_op(Gather)
            op.format, op.group = int4(group), group
            node.decide(self.name, "int4: rows of the weights that a linear multiplies by")


def _is_whole(node: Node) -> bool:
    """Whether a linear has weights that nobody quantized yet."""
    return _undecided(node) and "scale" not in node.operands


def _undecided(node: Node) -> bool:
    return isinstance(node.op, Linear) and node.op.format is None
