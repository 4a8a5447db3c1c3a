"""Rows of weights that are packed for a GEMM, looked up by index."""

from __future__ import annotations

from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.ir import DType, Node
from graphopt.ir.ops import Gather
from graphopt.ir.symbolic import product
from graphopt.kernels import layouts


def emit_packed_gather(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Rows of an int8 or int4 table [n, k] as f32: scale * q (kernels/packing.py)."""
    op, table, indices = node.as_op(Gather), node.operands["table"], node.operands["indices"]
    form, group = op.format, op.group
    assert form is not None
    rows, columns = table.shape
    assert isinstance(rows, int) and isinstance(columns, int)
    layout = form.layout(memory.weights.arch)
    panel = int(layouts.packed_rhs_bytes(layout, layout.nr, columns, group=group))
    packed = memory.weights.gemm(table, form, group, node.operands.get("scale"))
    f.frame()
    f.pointer("table", None, memory.weight(packed))
    f.pointer("indices", indices.dtype, memory.address(indices))
    f.pointer("dst", DType.F32, memory.address(node.output), write=True)
    f.tasks("row", f.size(product(indices.shape)))
    emit_index(f, str(rows))
    f.line(f"    const char *panel = (const char *)table + at / {layout.nr} * {panel};")
    f.line(f"    const int64_t lane = at % {layout.nr};")
    f.line(f"    float *out = dst + row * {columns};")
    emit = {"qa8": _int8, "qs4c": _int4_channel, "qs4b": _int4_blocks}[form.token]
    emit(f, layout, columns, group)
    f.line("}")


def _int8(f: FunctionBuilder, layout: layouts.Layout, columns: int, group: int) -> None:
    zero, kind = (128, "uint8_t") if layout.biased else (0, "int8_t")
    f.line(f"    const {kind} *q = (const {kind} *)panel + lane * {layout.kr};")
    _channel_scale(f, layout, _depth(layout, columns) * layout.nr)
    f.line(f"    for (int64_t i = 0; i < {columns}; i++)")
    at = f"i / {layout.kr} * {layout.kr * layout.nr} + i % {layout.kr}"
    f.line(f"        out[i] = scale * (float)(q[{at}] - {zero});")


def _int4_channel(f: FunctionBuilder, layout: layouts.Layout, columns: int, group: int) -> None:
    f.line(f"    const uint8_t *pairs = (const uint8_t *)panel + lane * {layout.kr};")
    _channel_scale(f, layout, _depth(layout, columns) // 2 * layout.nr)
    _nibbles(f, layout, columns, "    ")


def _int4_blocks(f: FunctionBuilder, layout: layouts.Layout, columns: int, group: int) -> None:
    """Each block with its bf16 scale, which lies behind the block or behind all of them."""
    nr, block = layout.nr, layout.nr * group // 2
    step = block + 2 * nr if layout.biased else block
    first, scale_step = (block, step) if layout.biased else (nr * columns // 2, 2 * nr)
    places = ", ".join(map(str, layout.scale_places()))
    f.line(f"    static const uint8_t places[] = {{{places}}};")
    f.line(f"    for (int64_t b = 0; b < {columns // group}; b++, out += {group}) {{")
    f.line(f"        const char *at_scale = panel + {first} + b * {scale_step};")
    f.line("        const uint16_t bits = ((const uint16_t *)at_scale)[places[lane]];")
    f.line("        const float scale = go_f32_from_bf16(bits);")
    start = f"panel + b * {step}"
    f.line(f"        const uint8_t *pairs = (const uint8_t *)({start}) + lane * {layout.kr};")
    _nibbles(f, layout, group, "        ")
    f.line("    }")


def _nibbles(f: FunctionBuilder, layout: layouts.Layout, count: int, indent: str) -> None:
    """`out[i] = scale * q` of nibble pairs: the low half of a byte is q + 8."""
    kr, pair = layout.kr, layout.kr * layout.nr
    high = "(pair >> 4) - 8" if layout.biased else "(int8_t)pair >> 4"
    f.line(f"{indent}for (int64_t i = 0; i < {count}; i++) {{")
    f.line(f"{indent}    const uint8_t pair = pairs[i / {2 * kr} * {pair} + i % {kr}];")
    f.line(f"{indent}    const int q = i / {kr} % 2 ? {high} : (pair & 15) - 8;")
    f.line(f"{indent}    out[i] = scale * (float)q;")
    f.line(f"{indent}}}")


def _depth(layout: layouts.Layout, columns: int) -> int:
    return -(-columns // layout.k_multiple) * layout.k_multiple


def _channel_scale(f: FunctionBuilder, layout: layouts.Layout, values: int) -> None:
    """Reads `scale`: behind the bytes of values and the sums of q."""
    f.line(f"    const float scale = ((const float *)(panel + {values + 4 * layout.nr}))[lane];")


def emit_index(f: FunctionBuilder, rows: str) -> None:
    """Reads `at = indices[row]`; outside of a table of `rows` rows it is an error of the caller."""
    f.line("    int64_t at = indices[row];")
    f.line(f"    if (at < 0 || at >= {rows}) {{")
    f.line(
        f'        go_fail(frame, GO_ERROR_VALUE, -1, {rows}, at, "an index is outside the table");'
    )
    f.line("        at = 0;")
    f.line("    }")
