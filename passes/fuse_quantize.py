"""Quantizes rows where they are made, before they leave a near cache.

    %1 = go.norm(%x)                       %1 = go.norm(%x, writes=(packed))      # qa8r
    %2 = go.quantize_rows(%1)      ->

    %1 = go.linear(%x, weight=%w)          %1 = go.linear(%x, weight=%w)          # qa8r
    %2 = go.quantize_rows(%1)      ->

    %1 = go.pointwise(%x, %y, expr=E)      %1 = go.pointwise(%x, %y, expr=E)      # qa8r
    %2 = go.quantize_rows(%1)      ->

1. If something else reads the normalized row too, the norm writes both (`writes=(dst, packed)`).
2. Of a product or an element-wise op nothing else may read the row: else it would be stored after
   all, or computed twice.
The numbers are the same: the kernel quantizes the f32 row, so a bf16 row that would have been
rounded before is quantized more exactly.
Left alone: expressions that end in another type than f32, and those without operands; products
with more than `LARGEST_WEIGHT` weights, which the kernel would read again for every few rows.
"""

from __future__ import annotations

from collections.abc import Callable

from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.op import Op
from graphopt.ir.ops import Linear, Norm, Pointwise, QuantizeRows
from graphopt.passes.base import Pass

#: Weights of a product. For each buffer of rows (common/gemm_quantize.h) they are read again, so
#: they must stay in the second cache beside it. With 2^20 (Paraformer's 512 to 2048, 8 x 167 rows)
#: one step took up to 8 % longer than two on a Zen 4, with 2^15 (FSMN-VAD) a tenth less.
LARGEST_WEIGHT = 1 << 18


class FuseQuantize(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        users = graph.users()
        producers = graph.producers()
        outputs = set(graph.outputs)
        modified = False
        for node in list(graph.nodes):
            if not isinstance(node.op, QuantizeRows):
                continue
            x = node.operands["x"]
            maker = producers.get(x)
            if maker is None or type(maker.op) not in _RULES or maker.outputs != [x]:
                continue
            alone = len(users[x]) == 1 and x not in outputs
            if not _RULES[type(maker.op)](maker, node.output, alone):
                continue
            maker.decide(self.name, "quantizes its rows for the next multiplication")
            maker.fused.append(node.origin)
            graph.nodes.remove(node)
            modified = True
        return modified


def _norm(norm: Node, rows: Value, alone: bool) -> bool:
    norm.as_op(Norm).writes = ("packed",) if alone else ("dst", "packed")
    norm.outputs = [rows] if alone else [norm.output, rows]
    if alone:
        _forget_type(norm)
    return True


def _linear(linear: Node, rows: Value, alone: bool) -> bool:
    n, k = linear.operands["weight"].shape
    assert isinstance(n, int) and isinstance(k, int), "weights have known sizes"
    if not alone:
        return False
    if n * k > LARGEST_WEIGHT:
        linear.decide(FuseQuantize().name, "stores its rows: too many weights to read for a few")
        return False
    linear.outputs = [rows]
    _forget_type(linear)
    return True


def _pointwise(loop: Node, rows: Value, alone: bool) -> bool:
    if not alone or loop.output.dtype is not DType.F32 or not loop.operands:
        return False
    loop.outputs = [rows]
    return True


def _forget_type(node: Node) -> None:
    """Drops what lower_bf16 said of a row in memory: there is none now."""
    stored = ("lower_bf16: stored as bf16", "lower_bf16: kept f32")
    node.reasons = [r for r in node.reasons if not r.startswith(stored)]


#: By the op that makes the rows: lets its node write `rows`, the quantized ones, in their place
#: or, unless they are read by the quantization alone, beside them. False if it cannot.
_RULES: dict[type[Op], Callable[[Node, Value, bool], bool]] = {
    Norm: _norm,
    Linear: _linear,
    Pointwise: _pointwise,
}
