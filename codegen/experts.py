"""The product of a mixture of experts: GEMMs of columns of each matrix with the rows of its own."""

from __future__ import annotations

from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.ir import DType, Node
from graphopt.ir.layout import layout_of, row_stride
from graphopt.ir.ops.experts import UNSORTED
from graphopt.kernels.formats import F32

_COLUMNS = 64
"""Of a task: whole panels of weights in every layout."""


def emit_grouped_matmul(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Tasks by expert and columns, however many rows each finds; see `Emit`."""
    x, weight, ends = (node.operands[name] for name in ("x", "weight", "ends"))
    experts, n, k = weight.shape
    arch = memory.weights.arch
    f.frame()
    f.pointer("x", DType.F32, memory.address(x))
    f.pointer("ends", ends.dtype, memory.address(ends))
    f.pointer("rhs", None, memory.weight(memory.weights.experts(weight)))
    f.pointer("dst", DType.F32, memory.address(node.output), write=True)
    step = row_stride(x.shape, layout_of(x).strides)
    assert step is not None, "assign_layouts has seen to rows at equal distance"
    f.loops(
        "grouped",
        "experts.c.j2",
        experts=experts,
        rows=f.size(x.shape[0]),
        k=k,
        n=n,
        step=f.size(step),
        columns=_COLUMNS,
        matrix=F32.packed_bytes(arch, n, k),
        part=F32.packed_bytes(arch, _COLUMNS, k),
        kernel=node.kernel,
        wrong=UNSORTED,
    )
