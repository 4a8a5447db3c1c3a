"""Steps that are loops made for one node: arithmetic, copies, lookups, reductions, checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.codegen.function import SELF, Fields, FunctionBuilder
from graphopt.codegen.kernel_calls import Emit, broadcast_strides
from graphopt.codegen.memory import Memory
from graphopt.codegen.packed_table import emit_index, emit_packed_gather
from graphopt.codegen.render import c_text
from graphopt.codegen.scalar_c import expression
from graphopt.ir import Dim, DType, Node, Shape, Value, scalar
from graphopt.ir.layout import layout_of
from graphopt.ir.op import Op
from graphopt.ir.ops import Cat, Check, Gather, Pad, Pointwise, Reduce
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import evaluate, is_non_negative, product, simplify


@dataclass
class _Nest:
    """Loops over an output, slowest first, with the strides of every tensor in them.

    Attributes:
        extents: trip counts.
        strides: for each tensor (operands, then the output) its stride per loop.
        axes: output axes that each loop walks.
    """

    extents: list[Dim]
    strides: list[list[Dim]]
    axes: list[list[int]]


def _nest(shape: Shape, tensors: Sequence[Shape], order: list[int], fixed: set[int]) -> _Nest:
    """Orders the axes and merges neighbours that every tensor walks at one pace.

    Args:
        shape: extents of the output.
        tensors: strides of every tensor against `shape`.
        order: axes, slowest first.
        fixed: axes whose index the expression reads: these stay loops of their own.
    """
    nest = _Nest([], [[] for _ in tensors], [])
    for axis in order:
        if shape[axis] == 1 and axis not in fixed:
            continue
        extent = shape[axis]
        steps = [strides[axis] for strides in tensors]
        mergeable = bool(nest.extents) and axis not in fixed and not set(nest.axes[-1]) & fixed
        if mergeable and all(
            s[-1] == simplify(step * extent) for s, step in zip(nest.strides, steps, strict=True)
        ):
            nest.extents[-1] = simplify(nest.extents[-1] * extent)
            for s, step in zip(nest.strides, steps, strict=True):
                s[-1] = step
            nest.axes[-1].append(axis)
        else:
            nest.extents.append(extent)
            for s, step in zip(nest.strides, steps, strict=True):
                s.append(step)
            nest.axes.append([axis])
    if not nest.extents:
        nest = _Nest([1], [[0] for _ in tensors], [[]])
    return nest


def memory_order(value: Value, memory: Memory) -> list[int]:
    """Axes from the slowest to the fastest in memory, at the example sizes."""
    sizes = memory.graph.hints()
    strides = [evaluate(s, sizes) for s in layout_of(value).strides]
    return sorted(range(value.rank), key=lambda a: (-strides[a], a))


def emit_elements(
    f: FunctionBuilder,
    memory: Memory,
    expr: Scalar,
    inputs: Sequence[Value],
    shape: Shape,
    dst: str,
    strides: Shape,
    order: list[int],
) -> None:
    """A loop nest that stores `expr` at every index of `shape`.

    Args:
        f: receives the code.
        memory: addresses of the inputs.
        expr: what to compute.
        inputs: operands.
        shape: extents.
        dst: name of the pointer to the first element.
        strides: of the destination.
        order: axes, slowest first.
    """
    tensors = [*(broadcast_strides(v, len(shape)) for v in inputs), strides]
    nest = _nest(shape, tensors, order, _indexed(expr))
    inner = len(nest.extents) - 1
    pointers, text = _element(f, memory, expr, inputs, nest)
    step = f.size(nest.strides[-1][inner])
    body = [f"y[{_times(f'i{inner}', step)}] = {text};"]
    kind = expr.dtype.c_type
    pointers.append(f"{kind} *restrict y = {dst}{_offset(f, nest.strides[-1][:inner])};")
    _emit_rows(f, nest, pointers, body)


def _indexed(expr: Scalar) -> set[int]:
    """Axes whose index the expression reads."""
    return {s.value for s in expr.walk() if s.op == "index"}  # type: ignore[misc]


def _element(
    f: FunctionBuilder, memory: Memory, expr: Scalar, inputs: Sequence[Value], nest: _Nest
) -> tuple[list[str], str]:
    """Pointers to where the operands of the innermost loop begin, and C for an element."""
    names = [f.pointer(f"x{i}", v.dtype, memory.address(v)) for i, v in enumerate(inputs)]
    inner = len(nest.extents) - 1
    index_of = {axis: f"i{loop}" for loop, axes in enumerate(nest.axes) for axis in axes}

    def load(leaf: Scalar) -> str:
        if leaf.op == "index":
            return index_of[leaf.value]  # type: ignore[index]
        step = nest.strides[leaf.value][inner]  # type: ignore[index]
        return f"a{leaf.value}[{_times(f'i{inner}', f.size(step))}]"

    text = expression(expr, load, f.size)
    pointers = [
        f"const {v.dtype.c_type} *a{i} = {name}{_offset(f, nest.strides[i][:inner])};"
        for i, (v, name) in enumerate(zip(inputs, names, strict=True))
    ]
    return pointers, text


def _emit_rows(f: FunctionBuilder, nest: _Nest, pointers: list[str], body: list[str]) -> None:
    """Ranges of elements as tasks; the innermost loop is one that the compiler vectorizes."""
    inner = len(nest.extents) - 1
    width = f.size(nest.extents[inner])
    outer = [f.size(e) for e in nest.extents[:inner]]
    f.line(f"const int64_t width = {width}, total = {' * '.join(['width', *outer])};")
    f.line("const int64_t grain = go_loop_grain(team, total);")
    f.tasks("task", "(total + grain - 1) / grain")
    f.line("    const int64_t at = task * grain;")
    f.line("    const int64_t stop = go_smaller(at + grain, total);")
    f.line("    int64_t from = at % width;")
    f.line("    for (int64_t row = at / width; row * width < stop; row++, from = 0) {")
    f.line("        const int64_t to = go_smaller(width, stop - row * width);")
    f.body.extend(f"        {line}" for line in [*_outer_indices(f, nest), *pointers])
    f.line(f"        for (int64_t i{inner} = from; i{inner} < to; i{inner}++) {{")
    f.body.extend(f"            {line}" for line in body)
    f.line("        }")
    f.line("    }")
    f.line("}")


def _outer_indices(f: FunctionBuilder, nest: _Nest) -> list[str]:
    """The indices of all loops but the innermost, of row number `row`."""
    lines, rest = [], "row"
    for loop in range(len(nest.extents) - 2, 0, -1):
        extent = f.size(nest.extents[loop])
        lines.append(f"const int64_t i{loop} = {rest} % {extent};")
        rest = f"({rest} / {extent})" if rest == "row" else f"({rest[1:-1]} / {extent})"
    return [*lines, f"const int64_t i0 = {rest};"] if len(nest.extents) > 1 else lines


def _times(index: str, step: str) -> str:
    return {"1": index, "0": "0"}.get(step, f"{index} * {step}")


def _offset(f: FunctionBuilder, steps: Sequence[Dim]) -> str:
    terms = [_times(f"i{loop}", f.size(s)) for loop, s in enumerate(steps) if s != 0]
    return "".join(f" + {t}" for t in terms)


def _pointwise(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    out = node.output
    if out.packed:
        _quantized(node, f, memory)
        return
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    order = memory_order(out, memory)
    emit_elements(
        f,
        memory,
        node.as_op(Pointwise).expr,
        node.inputs,
        out.shape,
        "dst",
        layout_of(out).strides,
        order,
    )


def _quantized(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """A function that computes a part of a row, for the kernel that quantizes the rows."""
    out, expr = node.output, node.as_op(Pointwise).expr
    last = out.rank - 1
    tensors = [broadcast_strides(v, out.rank) for v in node.inputs]
    nest = _nest(out.shape, tensors, list(range(out.rank)), {*_indexed(expr), last})
    pointers, text = _element(f, memory, expr, node.inputs, nest)
    *outer, index = (f"i{loop}" for loop in range(len(nest.extents)))
    f.body += [*_outer_indices(f, nest), *pointers]
    f.line(f"(void){', (void)'.join(['row', *outer])};")  # rows may be all alike
    f.line(f"for (int64_t {index} = first; {index} < end; {index}++) {{")
    f.line(f"    y[{index}] = {text};")
    f.line("}")
    f.hand_over(
        "_values(const void *operands, int64_t row, int64_t first, int64_t end, float *restrict y)"
    )
    fields: Fields = {
        "m": f.size(product(out.shape[:-1])),
        "k": f.size(out.shape[-1]),
        "dst": f.pointer("dst", None, memory.address(out), write=True),
        "values": f"{SELF}_values",
        "operands": "&operands",
        "scratch": f.pointer("scratch", None, memory.scratch(node), write=True),
    }
    f.call(node.kernel, "go_pack_lhs_args", fields)


def _cat(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Copies every part to its place; parts are phases of one step."""
    out, axis = node.output, node.as_op(Cat).axis
    strides, order = layout_of(out).strides, memory_order(out, memory)
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    start: Dim = 0
    for i, part in enumerate(node.inputs):
        if 0 in part.shape:
            continue
        if i:
            f.line("go_barrier(team);")
        f.line("{")
        name = f.pointer(f"part{i}", part.dtype, memory.address(part))
        at = simplify(start * strides[axis])
        _copy(f, part, name, f"dst + {f.size(at)}", strides, order)
        f.line("}")
        start = simplify(start + part.shape[axis])


def _copy(
    f: FunctionBuilder, source: Value, name: str, dst: str, strides: Shape, order: list[int]
) -> None:
    tensors = [broadcast_strides(source, source.rank), strides]
    nest = _nest(source.shape, tensors, order, set())
    inner = len(nest.extents) - 1
    kind = source.dtype.c_type
    steps = [f.size(s[inner]) for s in nest.strides]
    loop = f"i{inner}"
    _emit_rows(
        f,
        nest,
        [
            f"const {kind} *a = {name}{_offset(f, nest.strides[0][:inner])};",
            f"{kind} *restrict y = {dst}{_offset(f, nest.strides[1][:inner])};",
        ],
        [f"y[{_times(loop, steps[1])}] = a[{_times(loop, steps[0])}];"],
    )


def _pad(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Fills the result, then copies the source into it."""
    op, out, source = node.as_op(Pad), node.output, node.operands["x"]
    strides, order = layout_of(out).strides, memory_order(out, memory)
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    number = DType.F32 if out.dtype is DType.BF16 else out.dtype
    value = scalar.const(op.value, number)
    if number is not out.dtype:
        value = Scalar("cast", out.dtype, (value,))
    f.line("{")
    emit_elements(f, memory, value, [], out.shape, "dst", strides, order)
    f.line("}")
    if 0 in source.shape:
        return
    f.line("go_barrier(team);")
    name = f.pointer("src", source.dtype, memory.address(source))
    terms = [b * s for b, s in zip(op.before, strides, strict=True)]
    start = simplify(sum(terms))
    _copy(f, source, name, f"dst + {f.size(start)}", strides, order)


def _gather(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Rows of a table by index; an index outside the table is an error of the caller's data."""
    if node.as_op(Gather).format:
        emit_packed_gather(node, f, memory)
        return
    table, indices = node.operands["table"], node.operands["indices"]
    out = node.output
    width = product(table.shape[1:])
    f.frame()
    f.pointer("table", table.dtype, memory.address(table))
    f.pointer("indices", indices.dtype, memory.address(indices))
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    rows, columns, count = (f.size(s) for s in (table.shape[0], width, product(indices.shape)))
    f.tasks("row", count)
    emit_index(f, rows)
    f.line(f"    for (int64_t i = 0; i < {columns}; i++)")
    f.line(f"        dst[row * {columns} + i] = table[at * {columns} + i];")
    f.line("}")


def _check(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """A value read from a tensor must equal a size of the inputs."""
    value = node.operands["value"]
    f.frame()
    f.pointer("value", value.dtype, memory.address(value))
    expected = f.size(node.as_op(Check).size)
    where = c_text(node.origin.code)
    f.line("while (go_next(team, 1) < 1)")
    f.line(f"    if ((int64_t)value[0] != {expected})")
    f.line(f"        go_fail(frame, GO_ERROR_VALUE, -1, {expected}, (int64_t)value[0],")
    f.line(f'                "a size computed from an input differs from its shape: {where}");')


_START = {"sum": "0", "mean": "0"}


def _reduce(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Each result in order of its elements; sums of floats run in double."""
    op, x, out = node.as_op(Reduce), node.operands["x"], node.output
    kind, reduced = op.kind, set(op.axes)
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    strides = layout_of(x).strides
    count = product(x.shape[a] for a in reduced)
    if kind not in _START and x.dtype is not DType.BOOL:
        _refuse_none(f, count)
    _open_rows(f, x, reduced)
    if kind == "argmax":
        (axis,) = reduced
        _argmax(f, x, f.size(x.shape[axis]), f.size(strides[axis]))
        return
    floating = x.dtype.is_float
    total = "double" if floating and kind in _START else x.dtype.c_type
    total = "int64_t" if not floating and kind in _START else total
    start = {"max": "0", "min": "1"}[kind] if x.dtype is DType.BOOL else "a[0]"
    f.line(f"    {total} total = {_START.get(kind, start)};")
    index = []
    for axis in sorted(reduced):
        extent, step = f.size(x.shape[axis]), f.size(strides[axis])
        f.line(f"    for (int64_t r{axis} = 0; r{axis} < {extent}; r{axis}++)")
        index.append(_times(f"r{axis}", step))
    f.line("    {")
    f.line(f"        const {x.dtype.c_type} value = a[{' + '.join(index) or '0'}];")
    f.line(f"        {_step(kind, floating)}")
    f.line("    }")
    result = "total"
    if kind == "mean":
        result = f"total / (double)({f.size(count)})"
    f.line(f"    dst[row] = ({out.dtype.c_type})({result});")
    f.line("}")


def _refuse_none(f: FunctionBuilder, count: Dim) -> None:
    """Nothing is the largest or smallest of no elements, where there may be none."""
    if is_non_negative(count - 1):
        return
    f.frame()
    f.line(f"if ({f.size(count)} == 0) {{")
    f.line("    while (go_next(team, 1) < 1)")
    f.line('        go_fail(frame, GO_ERROR_VALUE, -1, 1, 0, "the largest of no elements");')
    f.line("    return;")
    f.line("}")


def _argmax(f: FunctionBuilder, x: Value, extent: str, step: str) -> None:
    """The first of the largest elements; a NaN is larger than any number, as in torch."""
    f.line("    int64_t best = 0;")
    f.line(f"    for (int64_t i = 1; i < {extent}; i++) {{")
    f.line(f"        const {x.dtype.c_type} value = a[i * {step}], top = a[best * {step}];")
    nan = " || (value != value && top == top)" if x.dtype.is_float else ""
    f.line(f"        if (value > top{nan}) best = i;")
    f.line("    }")
    f.line("    dst[row] = best;")
    f.line("}")


def _open_rows(f: FunctionBuilder, x: Value, reduced: set[int]) -> None:
    """A task for each result, with `a` at the first of the elements that it is made of."""
    kept = [a for a in range(x.rank) if a not in reduced]
    count = f.size(product(x.shape[a] for a in kept))
    f.tasks("row", count)
    f.line(f"    const {x.dtype.c_type} *a = x;")
    if kept:
        f.line("    int64_t rest = row;")
    for axis in reversed(kept):
        extent, step = f.size(x.shape[axis]), f.size(layout_of(x).strides[axis])
        f.line(f"    a += rest % {extent} * {step};")
        f.line(f"    rest /= {extent};")


def _step(kind: str, floating: bool) -> str:
    if kind in _START:
        return "total += value;"
    compare = ">" if kind == "max" else "<"
    nan = " || value != value" if floating else ""
    return f"if (value {compare} total{nan}) total = value;"


LOOPS: dict[type[Op], Emit] = {
    Pointwise: _pointwise,
    Cat: _cat,
    Pad: _pad,
    Gather: _gather,
    Check: _check,
    Reduce: _reduce,
}
