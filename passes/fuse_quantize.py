"""Quantizes rows where they are made, before they leave a near cache.

    %1 = go.norm(%x)                       %1 = go.norm(%x, writes=(packed))      # qa8r
    %2 = go.quantize_rows(%1)      ->

    %1 = go.pointwise(%x, %y, expr=E)      %1 = go.pointwise(%x, %y, expr=E)      # qa8r
    %2 = go.quantize_rows(%1)      ->

1. If something else reads the normalized row too, the norm writes both (`writes=(dst, packed)`).
2. Of an element-wise op nothing else may read the row: else it would be computed twice.
The numbers are the same: the kernel quantizes the f32 row, so a bf16 row that would have been
rounded before is quantized more exactly.
Left alone: expressions that end in another type than f32, and those without operands.
"""

from __future__ import annotations

from collections.abc import Callable

from graphopt.ir import DType, Graph, Node, Value
from graphopt.passes.base import Pass


class FuseQuantize(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        users = graph.users()
        producers = graph.producers()
        outputs = set(graph.outputs)
        modified = False
        for node in list(graph.nodes):
            if node.op != "go.quantize_rows":
                continue
            (x,) = node.inputs
            maker = producers.get(x)
            if maker is None or maker.op not in _RULES or maker.outputs != [x]:
                continue
            alone = len(users[x]) == 1 and x not in outputs
            if not _RULES[maker.op](maker, node.output, alone):
                continue
            maker.decide(self.name, "quantizes its rows for the next multiplication")
            maker.fused.append(node.origin)
            graph.nodes.remove(node)
            modified = True
        return modified


def _norm(norm: Node, rows: Value, alone: bool) -> bool:
    norm.attrs["writes"] = ("packed",) if alone else ("dst", "packed")
    norm.outputs = [rows] if alone else [norm.output, rows]
    if alone:  # nothing of the row is stored, in whatever type
        norm.reasons = [r for r in norm.reasons if not r.startswith("lower_bf16")]
    return True


def _pointwise(loop: Node, rows: Value, alone: bool) -> bool:
    if not alone or loop.output.dtype is not DType.F32 or not loop.inputs:
        return False
    loop.outputs = [rows]
    return True


#: By the op that makes the rows: lets its node write `rows`, the quantized ones, in their place
#: or, unless they are read by the quantization alone, beside them. False if it cannot.
_RULES: dict[str, Callable[[Node, Value, bool], bool]] = {
    "go.norm": _norm,
    "go.pointwise": _pointwise,
}
