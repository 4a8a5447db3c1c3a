"""Parts of a tensor along an axis: slices, splits, and tensors with a part replaced."""

from __future__ import annotations

import sympy

from graphopt.ir import Dim, Value, scalar
from graphopt.ir.indices import (
    every,
    larger,
    minus,
    place,
    plus,
    quotient,
    remainder,
    smaller,
    times,
)
from graphopt.ir.ops import Cat
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import is_non_negative, maximum, minimum, simplify
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.loads import chosen, computed, current, element, here, loaded
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _start(x: Value, axis: int, start: Dim | None) -> Dim | Scalar:
    """Where a slice begins, counted from the front; not below 0, at least one element before it.

    It is an expression where the size that says it may have either sign.
    """
    if start is None:
        return 0
    if not isinstance(start, int | sympy.Expr):
        raise Unsupported(f"a slice from {start}")
    extent = x.shape[axis]
    if is_non_negative(start):
        return start
    if is_non_negative(simplify(-1 - start)):
        return maximum((0, simplify(extent + start)))
    return larger(scalar.wrap(place(start), extent), 0)


def _cut(b: Builder, x: Value, axis: int, start: Dim | Scalar, extent: Dim, step: int = 1) -> Value:
    """A slice; of a start of either sign the elements one by one."""
    if extent == 0 or (extent == x.shape[axis] and step == 1):
        return b.slice(x, axis, 0, extent)
    if not isinstance(start, Scalar):
        return b.slice(x, axis, start, extent, step)
    shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
    places = here(shape)
    places[axis] = scalar.check(plus(times(places[axis], step), start), x.shape[axis])
    return loaded(b, x, places, shape)


def _slice(b: Builder) -> Value:
    """What the end says, the extent of the result says too."""
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    start, step = _start(x, axis, b.arg("start")), b.arg("step", 1)
    if not isinstance(step, int):
        raise Unsupported(f"a slice in steps of {step}")
    return _cut(b, x, axis, start, b.node.output.shape[axis], step)


def _narrow(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim"))
    return _cut(b, x, axis, _start(x, axis, b.arg("start")), b.node.output.shape[axis])


def _select(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim"))
    part = _cut(b, x, axis, _start(x, axis, b.arg("index")), 1)
    return b.reshape(part, b.node.output.shape)


def _split(b: Builder) -> list[Value]:
    return _in_turn(b, axis_of(b.tensor(), b.arg("dim", 0)))


def _in_turn(b: Builder, axis: int) -> list[Value]:
    """Parts side by side, with the extents of the results."""
    x, start = b.tensor(), 0
    parts: list[Value] = []
    for output in b.node.outputs:
        parts.append(b.slice(x, axis, start, output.shape[axis]))
        start = simplify(start + output.shape[axis])
    return parts


def _split_at(b: Builder, axis: int) -> list[Value]:
    """Parts that begin at given indices, which need not be in order."""
    x = b.tensor()
    starts = [_start(x, axis, start) for start in (0, *b.arg("indices"))]
    extents = [output.shape[axis] for output in b.node.outputs]
    return [_cut(b, x, axis, s, e) for s, e in zip(starts, extents, strict=True)]


def _tensor_split(b: Builder) -> list[Value]:
    axis = axis_of(b.tensor(), b.arg("dim", 0))
    return _split_at(b, axis) if b.arg("indices") is not None else _in_turn(b, axis)


def _split_along(axis: int) -> Lowering:
    """Splits along an axis; `hsplit` of one axis along that."""

    def rule(b: Builder) -> list[Value]:
        along = min(axis, b.tensor().rank - 1)
        return _split_at(b, along) if b.arg("indices") is not None else _in_turn(b, along)

    return rule


def _unbind(b: Builder) -> list[Value]:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    parts = [b.slice(x, axis, i, 1) for i in range(len(b.node.outputs))]
    return [b.reshape(p, o.shape) for p, o in zip(parts, b.node.outputs, strict=True)]


def _slice_scatter(b: Builder) -> Value:
    x, part, step = b.tensor(), b.tensor("src"), b.arg("step", 1)
    axis = axis_of(x, b.arg("dim", 0))
    start, extent = _start(x, axis, b.arg("start")), x.shape[axis]
    if step == 1 and not isinstance(start, Scalar):
        return _between(b, x, part, axis, minimum(extent, start))
    places = here(x.shape)
    behind = minus(places[axis], smaller(start, extent))
    end = times(part.shape[axis], step)
    is_part = [scalar.apply("ge", behind, place(0)), scalar.apply("lt", behind, end)]
    if step != 1:
        is_part.append(scalar.apply("eq", remainder(behind, step), place(0)))
    places[axis] = quotient(behind, step)
    return _replaced(b, x, part, every(is_part), places)


def _select_scatter(b: Builder) -> Value:
    x, part = b.tensor(), b.tensor("src")
    axis = axis_of(x, b.arg("dim"))
    start = _start(x, axis, b.arg("index"))
    if not isinstance(start, Scalar):
        row = b.reshape(part, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
        return _between(b, x, row, axis, start)
    places = here(x.shape)
    is_part = scalar.apply("eq", places.pop(axis), start)
    return _replaced(b, x, part, is_part, places)


def _replaced(b: Builder, x: Value, part: Value, where: Scalar, places: list[Scalar]) -> Value:
    """X with elements of `part`, converted, where a condition holds."""
    if 0 in part.shape:
        return x
    part = b.cast(part, x.dtype)
    return computed(b, chosen(where, element(1, part, places), current(0, x)), [x, part])


def _diagonal_scatter(b: Builder) -> Value:
    x, part, offset = b.tensor(), b.tensor("src"), b.arg("offset", 0)
    rows, columns = (axis_of(x, b.arg(f"dim{n}", n - 1)) for n in (1, 2))
    places = here(x.shape)
    row, column = places[rows], places[columns]
    is_part = [scalar.apply("eq", column, plus(row, offset))]
    kept = [i for axis, i in enumerate(places) if axis not in (rows, columns)]
    return _replaced(b, x, part, every(is_part), [*kept, plus(row, min(offset, 0))])


def _between(b: Builder, x: Value, part: Value, axis: int, start: Dim) -> Value:
    """X with `part` in place of its elements from `start` along an axis."""
    if x.shape[axis] == 0:
        return x
    part = b.cast(part, x.dtype)
    end = simplify(start + part.shape[axis])
    around = [(0, start), (end, simplify(x.shape[axis] - end))]
    before, after = ([] if n == 0 else [b.slice(x, axis, at, n)] for at, n in around)
    parts = [*before, *([part] if part.shape[axis] != 0 else []), *after]
    return parts[0] if len(parts) == 1 else b.emit(Cat(axis), *parts, shape=x.shape)


RULES: dict[str, Rule] = {
    **rules(
        _slice,
        *(
            f"aten::{op}.Tensor(Tensor self, int dim=0, SymInt? start=None, SymInt? end=None, "
            "SymInt step=1) -> Tensor"
            for op in ("slice", "slice_copy")
        ),
        implied="end",
    ),
    **rules(
        _narrow,
        "aten::narrow(Tensor self, int dim, SymInt start, SymInt length) -> Tensor",
        "aten::narrow_copy(Tensor self, int dim, SymInt start, SymInt length) -> Tensor",
        implied="length",
    ),
    **rules(
        _select,
        "aten::select.int(Tensor self, int dim, SymInt index) -> Tensor",
        "aten::select_copy.int(Tensor self, int dim, SymInt index) -> Tensor",
    ),
    **rules(
        _slice_scatter,
        "aten::slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, "
        "SymInt? end=None, SymInt step=1) -> Tensor",
        implied="end",
    ),
    **rules(
        _select_scatter,
        "aten::select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor",
    ),
    **rules(
        _diagonal_scatter,
        "aten::diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) "
        "-> Tensor",
    ),
    **rules(
        _split,
        "aten::split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]",
        "aten::split.sizes(Tensor self, SymInt[] split_size, int dim=0) -> Tensor[]",
        "aten::split_with_sizes(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]",
        "aten::chunk(Tensor self, int chunks, int dim=0) -> Tensor[]",
        "aten::split_copy.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]",
        "aten::split_with_sizes_copy(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]",
        "aten::unsafe_chunk(Tensor self, int chunks, int dim=0) -> Tensor[]",
        "aten::unsafe_split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]",
        "aten::unsafe_split_with_sizes(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]",
        implied="split_size split_sizes chunks",
    ),
    **rules(
        _tensor_split,
        "aten::tensor_split.sections(Tensor self, SymInt sections, int dim=0) -> Tensor[]",
        "aten::tensor_split.indices(Tensor self, SymInt[] indices, int dim=0) -> Tensor[]",
        implied="sections",
    ),
    **{
        overload: rule
        for axis, name in enumerate(("vsplit", "hsplit", "dsplit"))
        for overload, rule in rules(
            _split_along(axis),
            f"aten::{name}.int(Tensor self, int sections) -> Tensor[]",
            f"aten::{name}.array(Tensor self, int[] indices) -> Tensor[]",
            implied="sections",
        ).items()
    },
    **rules(
        _unbind,
        "aten::unbind.int(Tensor self, int dim=0) -> Tensor[]",
        "aten::unbind_copy.int(Tensor self, int dim=0) -> Tensor[]",
    ),
}
