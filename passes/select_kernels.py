"""Names the kernel or loop that runs each node, and says why not a faster one.

    %2 = go.linear(%1, weight=%w, format=int8)   ->   kernel=go_gemm_qa8

Generated loops are named `loop`, views `view`. The name is generic: each ISA level of a library
binds it to its own variant (kernels/registry.py), which reports list.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Conv, Linear, Matmul
from graphopt.kernels.formats import F32
from graphopt.passes.base import Pass
from graphopt.target import Target


class SelectKernels(Pass):
    """See the module.

    Args:
        target: the CPU family, for the reasons.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        modified = False
        for node in graph.nodes:
            kernel = node.op.kernel(node)
            if node.is_lowered and node.kernel != kernel:
                node.kernel = kernel
                self._explain(node)
                modified = True
        return modified

    def _explain(self, node: Node) -> None:
        if isinstance(node.op, Linear):
            fast = self._target.int8_matrix or self._target.bf16_matrix
            if node.op.decided is F32 and fast:
                node.decide(self.name, "f32 although the target multiplies int8 or bf16 faster")
            best = self._target.isa_levels[-1].kernel(node.kernel).symbol
            node.decide(self.name, f"{best} on the best level of {self._target.name}")
        elif isinstance(node.op, Matmul):
            node.decide(self.name, "right operand computed at run time: packed on every call")
        elif isinstance(node.op, Conv):
            how = (
                "a GEMM for each point of tiles"
                if node.op.winograd
                else "implicit GEMM over gathered rows"
            )
            node.decide(self.name, f"f32: {how}")
