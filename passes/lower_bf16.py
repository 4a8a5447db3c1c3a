"""Keeps intermediates in bf16 and multiplies float matrices with BFMMLA.

    %1 = go.linear(%x, weight=%w)           %1 = go.pack_rows(%x)                      # panels
    %2 = go.norm(%1)                 ->     %2 = go.linear(%1, weight=%w, format=bf16) # bf16
                                            %3 = go.norm(%2)

1. A linear or recurrent layer that is not int8 gets `format=bf16` if the GEMM is to be bf16 too.
2. A result of a linear, norm, attention or depthwise convolution is stored as bf16 if all its
   readers take bf16. They compute in f32; only storage is narrow.
Left in f32: layers that are not for bf16 and what they return, the residual stream (a sum that is
added to again: rounding it at each of many layers would add up), graph inputs and outputs, and what
only f32 kernels read.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.ops import Linear, PackRows, Recurrent
from graphopt.ir.ops.contractions import RESIDUALS
from graphopt.ir.ops.recurrent import WEIGHTS
from graphopt.kernels.formats import BF16
from graphopt.passes.base import Choice, Pass, every_node
from graphopt.passes.support.gemm import PackedRows, require_finite
from graphopt.passes.support.narrowing import Narrowing


class LowerBf16(Pass):
    """See the module.

    Args:
        gemm: whether linears that are still float multiply in bf16.
        chosen: which layers are for bf16.
    """

    def __init__(self, gemm: bool, chosen: Choice = every_node) -> None:
        self._gemm, self._chosen = gemm, chosen

    def run(self, graph: Graph) -> bool:
        """First the multiplications, then the storage between them."""
        modified = self._gemm and self._lower_linears(graph)
        self._narrowing = Narrowing(graph)
        makers = [n for n in graph.nodes if n.op.STORES_BF16]
        candidates = [n for n in makers if n.output.dtype is DType.F32]
        refusals = {node: self._refusal(node) for node in candidates}
        self._narrowing.refuse_mixed_attention(refusals)
        for node, refusal in refusals.items():
            if refusal is None:
                self._narrowing.narrow(node.output)
                node.decide(self.name, "stored as bf16")
                modified = True
            else:
                node.decide(self.name, f"kept f32: {refusal}")
        return modified

    def _lower_linears(self, graph: Graph) -> bool:
        packed = PackedRows(PackRows())
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            op = node.op
            if isinstance(op, Linear | Recurrent) and op.format is None and self._chosen(node):
                for role in WEIGHTS:
                    if role in node.operands:
                        require_finite(node.operands[role])
                if isinstance(op, Linear):
                    packed.give(node, nodes)
                op.format = BF16
                node.decide(self.name, "bf16: products in bf16, sums in f32")
                modified = True
            nodes.append(node)
        graph.nodes = nodes
        return modified

    def _refusal(self, node: Node) -> str | None:
        """Why the output must stay f32, or None."""
        value = node.output
        if not self._chosen(node):
            return "its layer is not for bf16"
        sums = any(role in node.operands for role in RESIDUALS)
        if sums and any(self._adds(user, value) for user in self._narrowing.readers[value]):
            return "residual stream"
        return self._narrowing.refusal(value)

    @staticmethod
    def _adds(user: Node, value: Value) -> bool:
        return any(user.operands.get(role) is value for role in RESIDUALS)
