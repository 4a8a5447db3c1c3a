"""Names the kernel or loop that runs each node, and says why not a faster one.

    %2 = go.linear(%1, weight=%w, scheme=int8)   ->   kernel=go_gemm_qa8

Generated loops are named `loop`, views `view`. The name is generic: each ISA level of a library
binds it to its own variant (kernels/registry.py), which reports list.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.passes.assign_layouts import VIEWS
from graphopt.passes.base import Pass
from graphopt.target import Target

_GEMM = {"int8": "go_gemm_qa8", "bf16": "go_gemm_bf16", "f32": "go_gemm_f32"}
_INT4 = {"channel": "go_gemm_qs4c", "block": "go_gemm_qs4b"}
_KERNELS = {
    "go.quantize_rows": "go_quantize_rows",
    "go.pack_rows": "go_pack_bf16",
    "go.split_rows": "go_split",
    "go.norm": "go_norm",
    "go.softmax": "go_softmax",
    "go.attention": "go_attention",
    "go.rope": "go_rope",
    "go.cached_attention": "go_attention",
    "go.depthwise": "go_depthwise",
    "go.conv": "go_conv",
    "go.matmul": "go_gemm_f32",
    "go.cif": "go_cif",
}
_LOOPS = ("go.pointwise", "go.cat", "go.pad", "go.gather", "go.reduce", "go.check")


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
            kernel = self._kernel(node)
            if kernel and node.attrs.get("kernel") != kernel:
                node.attrs["kernel"] = kernel
                self._explain(node)
                modified = True
        return modified

    @staticmethod
    def _kernel(node: Node) -> str | None:
        if node.op == "go.linear":
            return _gemm(node)
        if node.op == "go.patches":
            return f"go_patches_{node.output.packed}"
        if node.op in VIEWS:
            return "view"
        if node.op == "go.pointwise" and node.output.packed:
            return _KERNELS["go.quantize_rows"]
        return "loop" if node.op in _LOOPS else _KERNELS.get(node.op)

    def _explain(self, node: Node) -> None:
        if node.op == "go.linear":
            scheme = node.attrs.get("scheme", "f32")
            if scheme == "f32" and (self._target.int8_matrix or self._target.bf16_matrix):
                node.decide(self.name, "f32 although the target multiplies int8 or bf16 faster")
            best = self._target.isa_levels[-1].kernel(_gemm(node)).symbol
            node.decide(self.name, f"{best} on the best level of {self._target.name}")
        elif node.op == "go.matmul":
            node.decide(self.name, "right operand computed at run time: packed on every call")
        elif node.op == "go.conv":
            node.decide(self.name, "f32: implicit GEMM over gathered rows")


def _gemm(node: Node) -> str:
    scheme = node.attrs.get("scheme", "f32")
    if scheme == "int4":
        return _INT4["block" if node.attrs["group"] else "channel"]
    return _GEMM[scheme]
