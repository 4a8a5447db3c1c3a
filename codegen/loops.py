"""Steps that are loops made for one node: arithmetic, copies, lookups, reductions, checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.codegen.function import SELF, Fields, FunctionBuilder
from graphopt.codegen.kernel_calls import Emit
from graphopt.codegen.memory import Memory
from graphopt.codegen.packed_table import emit_packed_gather
from graphopt.codegen.scalar_c import can_fail, expression
from graphopt.ir import Dim, DType, Node, Shape, Value, scalar
from graphopt.ir.layout import broadcast_strides, layout_of
from graphopt.ir.op import Op
from graphopt.ir.ops import Cat, Check, Gather, Pad, Pointwise, Reduce
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import evaluate, is_non_negative, product, simplify

_TILE = 16  # elements of a line of the cache
_LONG_TILE = 128  # elements beside each of a few
_LONG_ROW = 2048  # elements, a line of the cache for each, that stay for the next row


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


def _long_inside(nest: _Nest) -> _Nest:
    """The two innermost loops in the order that makes the inner one long.

    A loop over a few elements, such as the colours of pixels, costs more than they do.
    """
    if len(nest.extents) < 2 or _may_reach(nest.extents[-1], _TILE):
        return nest
    few, many = nest.extents[-1], nest.extents[-2]
    if isinstance(many, int) and many < _TILE * few:
        return nest
    for per_loop in (nest.extents, *nest.strides):
        per_loop[-2:] = per_loop[-1], per_loop[-2]
    nest.axes[-2:] = nest.axes[-1], nest.axes[-2]
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
    tensors = [*_strides_in_loops(expr, inputs, len(shape)), strides]
    nest = _long_inside(_nest(shape, tensors, order, _indexed(expr)))
    inner = len(nest.extents) - 1
    pointers, text = _element(f, memory, expr, inputs, nest)
    step = f.size(nest.strides[-1][inner])
    kind = expr.dtype.c_type
    pointers.append(f"{kind} *restrict y = {dst}{_offset(f, nest.strides[-1][:inner])};")
    _emit_nest(f, nest, pointers, f"y[{_times(f'i{inner}', step)}] = {text};")


def _strides_in_loops(expr: Scalar, inputs: Sequence[Value], rank: int) -> list[Shape]:
    """Strides of the operands that the loops walk; 0 of those that are only loaded."""
    walked = scalar.read_in_place(expr)
    return [
        broadcast_strides(v, rank) if i in walked else (0,) * rank for i, v in enumerate(inputs)
    ]


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

    def read(leaf: Scalar, indices: list[str]) -> str:
        number: int = leaf.value  # type: ignore[assignment]
        if leaf.op == "index":
            return index_of[number]
        if leaf.op == "load":
            steps = map(f.size, layout_of(inputs[number]).strides)
            terms = [f"{at} * {s}" for at, s in zip(indices, steps, strict=True)]
            return f"{names[number]}[{' + '.join(terms) or '0'}]"
        return f"a{number}[{_times(f'i{inner}', f.size(nest.strides[number][inner]))}]"

    if can_fail(expr):
        f.frame()
    text = expression(expr, read, f.size)
    walked = scalar.read_in_place(expr)
    pointers = [
        f"const {v.dtype.c_type} *a{i} = {name}{_offset(f, nest.strides[i][:inner])};"
        for i, (v, name) in enumerate(zip(inputs, names, strict=True))
        if i in walked
    ]
    return pointers, text


def _emit_nest(f: FunctionBuilder, nest: _Nest, pointers: list[str], element: str) -> None:
    """A loop nest: pointers to where each row begins, and what is done for an element.

    Where a tensor lies along another loop than the innermost, in tiles of both, so that what a
    line of the cache holds is read while it is there.
    """
    inner = len(nest.extents) - 1
    outer, across = [f.size(e) for e in nest.extents[:inner]], _loop_across(nest)
    shape: dict[str, Any] = {"outer": outer}
    if across is not None:
        behind = [f.size(e) for e in nest.extents[across + 1 : inner]]
        tile = _TILE if _may_reach(nest.extents[across], _TILE) else _LONG_TILE
        shape = {"before": outer[:across], "lanes": outer[across], "behind": behind, "tile": tile}
    f.loops(
        "elements" if across is None else "tiles",
        width=f.size(nest.extents[inner]),
        row=[*_outer_indices(f, nest), *pointers],
        i=f"i{inner}",
        element=element,
        **shape,
    )


def _loop_across(nest: _Nest) -> int | None:
    """A loop along which a tensor is dense whose elements the innermost one finds far apart."""
    inner = len(nest.extents) - 1
    if inner and not _may_reach(nest.extents[inner - 1], _TILE):
        beside = [steps[inner - 1] == 1 != steps[inner] for steps in nest.strides]
        return inner - 1 if any(beside) else None
    if not _may_reach(nest.extents[inner], _LONG_ROW):
        return None
    for steps in nest.strides:
        for loop in range(inner):
            far = _may_reach(steps[inner], _TILE) and _may_reach(nest.extents[loop], _TILE)
            if far and steps[loop] == 1:
                return loop
    return None


def _may_reach(count: Dim, least: int) -> bool:
    return not isinstance(count, int) or count >= least


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
    tensors = _strides_in_loops(expr, node.inputs, out.rank)
    nest = _nest(out.shape, tensors, list(range(out.rank)), {*_indexed(expr), last})
    pointers, text = _element(f, memory, expr, node.inputs, nest)
    *outer, i = (f"i{loop}" for loop in range(len(nest.extents)))
    row = [*_outer_indices(f, nest), *pointers]
    f.loops("values", outer=outer, row=row, i=i, element=f"y[{i}] = {text};")
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
        copy_elements(f, part, name, f"dst + {f.size(at)}", strides, order)
        f.line("}")
        start = simplify(start + part.shape[axis])


def copy_elements(
    f: FunctionBuilder, source: Value, name: str, dst: str, strides: Shape, order: list[int]
) -> None:
    """A loop nest that copies a value.

    Args:
        f: receives the code.
        source: the value.
        name: of the pointer to it.
        dst: C of a pointer to where the first element goes.
        strides: of the destination.
        order: axes, slowest first.
    """
    tensors = [broadcast_strides(source, source.rank), strides]
    nest = _long_inside(_nest(source.shape, tensors, order, set()))
    inner = len(nest.extents) - 1
    kind = source.dtype.c_type
    steps = [f.size(s[inner]) for s in nest.strides]
    loop = f"i{inner}"
    pointers = [
        f"const {kind} *a = {name}{_offset(f, nest.strides[0][:inner])};",
        f"{kind} *restrict y = {dst}{_offset(f, nest.strides[1][:inner])};",
    ]
    _emit_nest(f, nest, pointers, f"y[{_times(loop, steps[1])}] = a[{_times(loop, steps[0])}];")


def _pad(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Fills the result, then copies the source into it."""
    op, out, source = node.as_op(Pad), node.output, node.operands["x"]
    strides, order = layout_of(out).strides, memory_order(out, memory)
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    number = DType.F32 if out.dtype.is_half else out.dtype
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
    copy_elements(f, source, name, f"dst + {f.size(start)}", strides, order)


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
    f.loops("gather", count=count, rows=rows, columns=columns)


def _check(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """A value read from a tensor must equal a size of the inputs."""
    value = node.operands["value"]
    f.frame()
    f.pointer("value", value.dtype, memory.address(value))
    f.loops("check", expected=f.size(node.as_op(Check).size), where=node.origin.code)


_COMPARE = {"max": ">", "min": "<"}


def _reduce(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Each result in order of its elements; sums and products of floats run in double."""
    op, x, out = node.as_op(Reduce), node.operands["x"], node.output
    kind, reduced = op.kind, set(op.axes)
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    count = product(x.shape[a] for a in reduced)
    is_sum = kind in ("sum", "mean", "prod")
    if not is_sum and x.dtype is not DType.BOOL and not is_non_negative(count - 1):
        f.frame()
        f.loops("refuse_none", count=f.size(count))
    kept = [a for a in range(x.rank) if a not in reduced]
    beside = kept.pop() if not kind.startswith("arg") and _is_side_by_side(x, kept) else None
    results: dict[str, Any] = {
        "count": f.size(product(x.shape[a] for a in kept)),
        "kind": x.dtype.c_type,
        "kept": [_extent_and_step(f, x, axis) for axis in reversed(kept)],
        "floating": x.dtype.is_float,
    }
    loops = {axis: _extent_and_step(f, x, axis) for axis in sorted(reduced)}
    if kind in ("argmax", "argmin"):
        ((extent, step),) = loops.values()
        f.loops("arg", **results, extent=extent, step=step, compare=_COMPARE[kind[3:]])
        return
    at, total = ("lane", "total[lane]") if beside is not None else ("0", "total")
    first = str(int(kind == "min")) if x.dtype is DType.BOOL else f"a[{at}]"
    mean = f" / (double)({f.size(count)})" if kind == "mean" else ""
    if beside is not None:
        results["extent"] = f.size(x.shape[beside])
    f.loops(
        "reduce" if beside is None else "reduce_lanes",
        **results,
        total=("double" if x.dtype.is_float else "int64_t") if is_sum else x.dtype.c_type,
        start=str(int(kind == "prod")) if is_sum else first,
        fold="*=" if kind == "prod" else "+=",
        loops=[(axis, extent) for axis, (extent, _) in loops.items()],
        index=" + ".join(_times(f"r{axis}", step) for axis, (_, step) in loops.items()) or "0",
        compare=_COMPARE.get(kind),
        result=f"({out.dtype.c_type})({total}{mean})",
    )


def _is_side_by_side(x: Value, kept: Sequence[int]) -> bool:
    """Whether neighbours along the last axis that is kept lie side by side in memory."""
    if not kept or layout_of(x).strides[kept[-1]] != 1:
        return False
    return _may_reach(x.shape[kept[-1]], _TILE)


def _extent_and_step(f: FunctionBuilder, x: Value, axis: int) -> tuple[str, str]:
    return f.size(x.shape[axis]), f.size(layout_of(x).strides[axis])


LOOPS: dict[type[Op], Emit] = {
    Pointwise: _pointwise,
    Cat: _cat,
    Pad: _pad,
    Gather: _gather,
    Check: _check,
    Reduce: _reduce,
}
