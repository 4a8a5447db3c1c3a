"""Quantizes rows in the product that makes them, which stores nothing else of them.

    %1 = go.linear(%x, weight=%w)          %1 = go.linear(%x, weight=%w)      # qa8r
    %2 = go.quantize_rows(%1)      ->

The kernel quantizes f32 rows, most often while it has them in cache, so a bf16 row that would have
been rounded before is quantized more exactly; else the numbers are the same.

Left alone: rows that something else reads or the caller gets, since they would be stored after
all; and products with more than `LARGEST_WEIGHT` weights, which the kernel would read again for
every few rows, so that storing these costs less.
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.passes.base import Pass

#: Weights of a product. For each buffer of rows (common/gemm_quantize.h) they are read again: n k
#: bytes. With so many weights a buffer holds k / 8 rows, and to store their results and read them
#: takes as many bytes, 8 for each of n; or 128 rows, whose products take 30 times as long.
LARGEST_WEIGHT = 1 << 20

#: What lower_bf16 says of a value in memory.
_STORED = ("lower_bf16: stored as bf16", "lower_bf16: kept f32")


class FuseLinearQuantize(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep."""
        users, producers, outputs = graph.users(), graph.producers(), set(graph.outputs)
        modified = False
        for node in list(graph.nodes):
            if node.op != "go.quantize_rows":
                continue
            (x,) = node.inputs
            linear = producers.get(x)
            if linear is None or linear.op != "go.linear" or len(users[x]) > 1 or x in outputs:
                continue
            if not _is_small(linear):
                linear.decide(self.name, "stores its rows: too many weights to read for a few")
                continue
            linear.outputs = [node.output]
            # Nothing of the row is stored, in whatever type.
            linear.reasons = [r for r in linear.reasons if not r.startswith(_STORED)]
            linear.decide(self.name, "quantizes its rows for the next multiplication")
            linear.fused.append(node.origin)
            graph.nodes.remove(node)
            modified = True
        return modified


def _is_small(linear: Node) -> bool:
    n, k = linear.inputs[1].shape
    assert isinstance(n, int) and isinstance(k, int), "weights have known sizes"
    return n * k <= LARGEST_WEIGHT
