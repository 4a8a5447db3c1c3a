"""Multiplies by weights of a format, and packs activations row by row as it wants them.

                                              %1 = go.quantize_rows(%x)            # qa8r
    %1 = go.linear(%x, weight=%w)      ->     %2 = go.linear(%1, weight=%q, scale=%s, format=int8)

In int8, weights are symmetric with one scale per output channel, activations asymmetric with scale
and zero point per row at run time (kernels/reference.py defines both); kernels/formats.py has the
formats. One packed tensor serves all linears that read the same input. A table that `go.gather`
shares with a linear, as the embedding of a language model whose head is tied to it, is looked up in
the quantized weights: they are there once, and a row is the one that the head multiplies by.
Of weights of a torch module, which stay in memory as they are, int8 is computed whenever something
reads it, such as packing, and no graph holds it.
The state of a recurrent layer is packed in the same way before each step, by its kernel.
A linear with an operand `scale` has rows in int8: i8 [n, k] and f32 [n] are taken as they are, and
int4 in blocks, with bf16 scales [n, k / group], too.
Left in floating point: a depth or width below 16, where quantizing costs more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.graph import Array, Held
from graphopt.ir.ops import Gather, Linear, Recurrent
from graphopt.ir.ops.recurrent import WEIGHTS
from graphopt.ir.ops.rows import PACKING
from graphopt.kernels.formats import INT8, Format, int4
from graphopt.passes.base import Choice, Pass, every_node
from graphopt.passes.support.gemm import (
    SMALLEST,
    PackedRows,
    block_length,
    came_in_blocks,
    require_finite,
)


class QuantizeWeights(Pass):
    """See the module.

    Args:
        format: of the weights, one scale per channel if it has scales.
        chosen: which layers are for it; weights that came quantized are, in any case.
    """

    def __init__(self, format: Format = INT8, chosen: Choice = every_node) -> None:
        self._format, self._chosen = format, chosen

    def run(self, graph: Graph) -> bool:
        """Rewrites every linear and recurrent layer that is worth it."""
        chosen = [
            node
            for node in graph.nodes
            if isinstance(node.op, Linear | Recurrent)
            and node.op.format is None
            and self._accepts(node)
        ]
        whole = [
            node.operands[role]
            for node in chosen
            for role, scale in WEIGHTS.items()
            if role in node.operands and scale not in node.operands
        ]
        with ThreadPoolExecutor() as pool:
            distinct = list(dict.fromkeys(whole))
            rounded = dict(zip(distinct, pool.map(self._rounded, distinct), strict=True))
        packing, nodes = PACKING[self._format.rows], list[Node]()
        packed = None if packing is None else PackedRows(packing())
        products = set(chosen)
        for node in graph.nodes:
            op = node.op
            if node in products:
                if packed is not None and isinstance(op, Linear):
                    packed.give(node, nodes)
                self._narrow(node, rounded)
            elif (
                self._format.looked_up
                and isinstance(op, Gather)
                and node.operands["table"] in rounded
            ):
                found = rounded[node.operands["table"]]
                node.operands |= {"table": found["weight"], "scale": found["scale"]}
                op.format = self._format
                how = "rows of the weights that a linear multiplies by"
                node.decide(self.name, f"{self._format}: {how}")
            nodes.append(node)
        graph.nodes = nodes
        return bool(chosen)

    def _accepts(self, node: Node) -> bool:
        weight = node.operands["weight"]
        if "scale" in node.operands:
            if self._format is INT8:
                kind = "int4 in blocks" if came_in_blocks(node) else "int8"
                node.decide(self.name, f"{kind} with the scales that came, activations per row")
            return self._format is INT8
        if not self._chosen(node):
            return False
        out_features, in_features = weight.shape
        if min(in_features, out_features) < SMALLEST:
            node.decide(self.name, f"kept in float: {in_features} x {out_features} is too small")
            return False
        for role in WEIGHTS:
            if role in node.operands:
                require_finite(node.operands[role])
        node.decide(self.name, f"{self._format}: {self._format.how}")
        return True

    def _narrow(self, node: Node, rounded: dict[Value, dict[str, Value]]) -> None:
        """Lets a product read weights of the format."""
        assert isinstance(node.op, Linear | Recurrent)
        node.op.format = self._format
        if isinstance(node.op, Linear) and came_in_blocks(node):
            node.op.group = block_length(node)
            node.op.format = int4(node.op.group)
        for role, scale in WEIGHTS.items():
            weight = node.operands.get(role)
            if weight is not None and (found := rounded.get(weight)):
                node.operands |= {role: found["weight"], scale: found["scale"]}

    def _rounded(self, weight: Value) -> dict[str, Value]:
        """Operands of a linear in place of an f32 weight."""
        quantize = self._format.quantize
        if quantize is None:  # packing rounds
            return {}

        def made(part: int) -> Array:
            assert weight.data is not None and quantize is not None
            return quantize(weight.data, 0)[part]

        held: Sequence[Held] = [partial(made, 0), partial(made, 1)]
        if not callable(weight.held):  # the f32 numbers go; those of a model would stay beside them
            assert weight.data is not None
            held = quantize(weight.data, 0)
        scale = Value(DType.F32, weight.shape[:1], f"{weight.name}.scale", data=held[1])
        return {"weight": Value(DType.I8, weight.shape, weight.name, data=held[0]), "scale": scale}
