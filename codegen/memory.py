"""Where each value of a planned graph is, as C."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphopt.codegen.plan_memory import MemoryPlan, plan_memory
from graphopt.codegen.size_c import c_size
from graphopt.codegen.weights import WeightsFile
from graphopt.ir import Dim, Graph, Node, Value
from graphopt.ir.layout import layout_of, stored
from graphopt.ir.numbers import QUANTIZED
from graphopt.ir.ops import (
    Attention,
    CachedAttention,
    Cif,
    Conv,
    Im2col,
    Linear,
    Matmul,
    Nonzero,
    Pointwise,
    Recurrent,
)
from graphopt.ir.symbolic import THREADS, ceil_div, minimum, product, simplify
from graphopt.kernels import layouts
from graphopt.kernels.formats import F32, ROWS
from graphopt.kernels.scratch import (
    attention_scratch_bytes,
    cif_scratch_bytes,
    conv_scratch_bytes,
    im2col_scratch_bytes,
    nonzero_scratch_bytes,
    quantized_result_bytes,
    recurrent_scratch_bytes,
    row_values_scratch_bytes,
    winograd_scratch_bytes,
)


def bytes_of(value: Value, arch: str) -> Dim:
    """Size of a value's own memory; packed values by the layout of the architecture."""
    if value.packed:
        rule = ROWS[value.packed].layout(arch)
        rows = product(value.shape[:-1])
        return simplify(layouts.packed_lhs_bytes(rule, rows, value.shape[-1], ceil_div))
    return simplify(stored(value) * value.dtype.itemsize)


def scratch_of(node: Node, arch: str) -> Dim:
    """Scratch memory of a node's kernel; 0 for none."""
    op, given = node.op, node.operands
    if isinstance(op, Attention):
        q, k, v = (given[role] for role in ("q", "k", "v"))
        return simplify(
            attention_scratch_bytes(
                q.shape[0], k.shape[1], k.shape[2], q.shape[3], v.shape[3], THREADS, ceil_div
            )
        )
    if isinstance(op, CachedAttention):
        q, cache = given["q"], given["cache"]
        rows, kv_heads, dim = cache.shape[3], cache.shape[4], q.shape[3]
        return simplify(attention_scratch_bytes(1, kv_heads, rows, dim, dim, THREADS, ceil_div))
    if isinstance(op, Conv):
        x, weight = given["x"], given["weight"]
        if op.winograd:
            return simplify(winograd_scratch_bytes(weight.shape[1], op.tile_rows, THREADS))
        return simplify(
            conv_scratch_bytes(
                x.shape[1],
                weight.shape[0],
                op.groups,
                1,
                product(weight.shape[2:]),
                op.tile_rows,
                THREADS,
                ceil_div,
            )
        )
    if isinstance(op, Cif):
        return simplify(cif_scratch_bytes(*given["alphas"].shape))
    if isinstance(op, Nonzero):
        return simplify(nonzero_scratch_bytes(product(given["x"].shape), ceil_div))
    if isinstance(op, Pointwise) and node.output.packed:
        return simplify(row_values_scratch_bytes(node.output.shape[-1], THREADS))
    if isinstance(op, Im2col):
        value_bytes = 1 if node.output.packed == QUANTIZED else 2
        out_w, channels = node.output.shape[-2], given["x"].shape[-1]
        return simplify(
            im2col_scratch_bytes(channels, out_w, op.windows, value_bytes, THREADS, ceil_div)
        )
    if isinstance(op, Linear) and node.output.packed:
        rows, n = product(node.output.shape[:-1]), given["weight"].shape[0]
        assert isinstance(n, int), "weights have a known size"
        return simplify(quantized_result_bytes(rows, n, THREADS, minimum))
    if isinstance(op, Recurrent):
        directions, batch, width = given["state"].shape
        hidden = given.get("cell", given["state"]).shape[2]
        return simplify(recurrent_scratch_bytes(directions, batch, width, hidden, THREADS))
    if isinstance(op, Matmul):
        right = given["right"]
        rule = F32.layout(arch)
        return simplify(layouts.packed_rhs_bytes(rule, right.shape[-1], right.shape[-2], ceil_div))
    return 0


@dataclass(eq=False)
class Memory:
    """Addresses of the values of one graph.

    Attributes:
        plan: the arena.
        weights: the constants.
        offsets: what addresses add to where the memory of a value begins, in bytes.
    """

    graph: Graph
    plan: MemoryPlan
    weights: WeightsFile
    offsets: list[Dim] = field(default_factory=list)

    @staticmethod
    def of(graph: Graph, arch: str) -> Memory:
        """Plans the memory of a graph with layouts."""
        plan = plan_memory(graph, lambda v: bytes_of(v, arch), lambda n: scratch_of(n, arch))
        return Memory(graph, plan, WeightsFile(arch))

    def address(self, value: Value) -> str:
        """C for a pointer to the first element of a value."""
        return self.element(value, 0)

    def element(self, value: Value, number: Dim) -> str:
        """C for a pointer to an element of a value, counted in memory from the first."""
        at = layout_of(value)
        offset = simplify((at.offset + number) * value.dtype.itemsize)
        return self._base(at.storage, offset)

    def _base(self, storage: Value, offset: Dim) -> str:
        self.offsets.append(offset)
        plus = "" if offset == 0 else f" + {c_size(offset)}"
        if storage.is_constant:
            return f"WEIGHT({self.weights.raw(storage)}{plus})"
        if storage.is_state:
            return f"STATE({self.graph.inputs.index(storage)}, {c_size(offset)})"
        if storage in self.graph.inputs:
            return f"INPUT({self.graph.inputs.index(storage)}, {c_size(offset)})"
        if storage in self.graph.outputs:
            return f"OUTPUT({self.graph.outputs.index(storage)}, {c_size(offset)})"
        return f"ARENA(slot{self.plan.slot_of[storage]}{plus})"

    def scratch(self, node: Node) -> str:
        """C for the scratch memory of a node."""
        slot = self.plan.slot_of.get(node)
        return "NULL" if slot is None else f"ARENA(slot{slot})"

    def weight(self, offset: int) -> str:
        """C for packed weights."""
        return f"WEIGHT({offset})"
