"""Rows of weights that are packed for a GEMM, looked up by index."""

from __future__ import annotations

from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.ir import DType, Node
from graphopt.ir.ops import Gather
from graphopt.ir.symbolic import product


def emit_packed_gather(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Rows of an int8 or int4 table [n, k] as f32: scale * q (kernels/packing.py).

    Args:
        node: a `go.gather` whose table has a format.
        f: gets the parameters and the body.
        memory: where operands and result are; its weights file gets the packed table.
    """
    op, table, indices = node.as_op(Gather), node.operands["table"], node.operands["indices"]
    form, group = op.format, op.group
    assert form is not None
    rows, columns = table.shape
    assert isinstance(rows, int) and isinstance(columns, int)
    layout = form.layout(memory.weights.arch)
    packed = memory.weights.gemm(table, form, group, node.operands.get("scale"))
    f.frame()
    f.pointer("table", None, memory.weight(packed))
    f.pointer("indices", indices.dtype, memory.address(indices))
    f.pointer("dst", DType.F32, memory.address(node.output), write=True)
    f.loops(
        "packed_gather",
        count=f.size(product(indices.shape)),
        rows=rows,
        columns=columns,
        token=form.token,
        layout=layout,
        group=group,
        panel=form.packed_bytes(memory.weights.arch, layout.nr, columns, group),
        depth=-(-columns // layout.k_multiple) * layout.k_multiple,
    )
