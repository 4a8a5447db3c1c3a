"""Rows of weights that are packed for a GEMM, looked up by index."""

from __future__ import annotations

from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.ir import DType, Node
from graphopt.kernels import registry
from graphopt.symbolic import product


def emit_packed_gather(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Rows of an int8 table [n, k] as f32: scale * q (qs8c of kernels/packing.py)."""
    table, indices = node.inputs
    rows, columns = table.shape
    assert isinstance(rows, int) and isinstance(columns, int)
    layout = registry.layout(memory.weights.arch, "qa8")
    panel = int(registry.packed_rhs_bytes(layout, layout.nr, columns))
    values = -(-columns // layout.k_multiple) * layout.k_multiple * layout.nr
    zero, kind = (128, "uint8_t") if layout.biased else (0, "int8_t")
    f.frame()
    f.pointer("table", None, memory.weight(memory.weights.gemm(table, "int8")))
    f.pointer("indices", indices.dtype, memory.address(indices))
    f.pointer("dst", DType.F32, memory.address(node.output), write=True)
    f.tasks("row", f.size(product(indices.shape)))
    emit_index(f, str(rows))
    f.line(f"    const char *panel = (const char *)table + at / {layout.nr} * {panel};")
    f.line(f"    const int64_t lane = at % {layout.nr};")
    f.line(f"    const {kind} *q = (const {kind} *)panel + lane * {layout.kr};")
    scale = f"panel + {values + 4 * layout.nr}"  # behind the values and the sums of q
    f.line(f"    const float scale = ((const float *)({scale}))[lane];")
    f.line(f"    for (int64_t i = 0; i < {columns}; i++)")
    at = f"i / {layout.kr} * {layout.kr * layout.nr} + i % {layout.kr}"
    f.line(f"        dst[row * {columns} + i] = scale * (float)(q[{at}] - {zero});")
    f.line("}")


def emit_index(f: FunctionBuilder, rows: str) -> None:
    """Reads `at = indices[row]`; outside of a table of `rows` rows it is an error of the caller."""
    f.line("    int64_t at = indices[row];")
    f.line(f"    if (at < 0 || at >= {rows}) {{")
    f.line(
        f'        go_fail(frame, GO_ERROR_VALUE, -1, {rows}, at, "an index is outside the table");'
    )
    f.line("        at = 0;")
    f.line("    }")
