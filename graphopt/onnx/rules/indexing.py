"""Ops that read and write elements at indices."""

from __future__ import annotations

import sympy

from graphopt.ir import Dim, DType, Shape, Value, scalar, symbolic
from graphopt.ir.ops import Sort
from graphopt.ir.scalar import Scalar, apply
from graphopt.ir.symbolic import simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import dims_of
from graphopt.onnx.rules.shapes import axes_of
from graphopt.onnx.rules.table import Table, merged, since
from graphopt.passes.lowering.builder import Unsupported
from graphopt.passes.lowering.functions import where


def _gather(c: Call) -> Value:
    x, indices = c.x(0), c.x(1)
    axis = c.axis(c.attr("axis", 0), x.rank)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if indices.data is not None and isinstance(x.shape[axis], int):
        _check_range(indices, x.shape[axis], axis)
        if indices.rank == 0:
            place = int(indices.data) % x.shape[axis]
            return c.b.reshape(c.b.slice(x, axis, place, 1), shape)
    if x.dtype is DType.BOOL and 0 in x.shape:
        raise Unsupported("a lookup in a tensor without elements")
    given: list[Value | None] = [*[None] * axis, indices]
    (y,) = c.aten("index.Tensor", (x.dtype, shape), self=x, indices=given)
    return y


def _check_range(indices: Value, extent: int, axis: int) -> None:
    data = indices.data
    if data is not None and ((data < -extent) | (data >= extent)).any():
        raise Malformed(f"an index beyond the {extent} elements of axis {axis}")


def from_the_end(c: Call, indices: Value, extent: Dim) -> Value:
    """Indices of which negative ones count from the end, as others.

    Args:
        c: the node.
        indices: whole numbers.
        extent: of the axis that they are for.
    """
    indices = c.b.cast(indices, DType.I64)
    if indices.data is not None and (indices.data >= 0).all():
        return indices
    return c.b.apply(lambda i: scalar.wrap(i, extent), indices)


def _gather_elements(c: Call) -> Value:
    x, indices = c.x(0), c.x(1)
    if x.rank != indices.rank:
        raise Malformed(f"indices of {indices.rank} axes of a tensor of {x.rank}")
    axis = c.axis(c.attr("axis", 0), x.rank)
    if isinstance(x.shape[axis], int):
        _check_range(indices, x.shape[axis], axis)
    indices = from_the_end(c, indices, x.shape[axis])
    given = {"self": x, "dim": axis, "index": indices}
    return c.aten("gather", (x.dtype, indices.shape), **given)[0]


def _lookup(c: Call, indices: Value) -> tuple[int, list[Value]]:
    """The number of axes that the last axis of indices names, and indices of each."""
    count = indices.shape[-1] if indices.rank else 0
    if not isinstance(count, int) or count < 1:
        raise Unsupported(f"indices of {count} axes")
    front = indices.shape[:-1]
    last = indices.rank - 1
    return count, [c.b.reshape(c.b.slice(indices, last, i, 1), front) for i in range(count)]


def _gather_nd(c: Call) -> Value:
    x, indices, batch = c.x(0), c.x(1), c.attr("batch_dims", 0)
    if not 0 <= batch < min(x.rank, indices.rank):
        raise Malformed(f"batch_dims {batch}")
    count, given = _lookup(c, indices)
    if batch + count > x.rank:
        raise Malformed(f"indices of {count} axes of a tensor of {x.rank}")
    front = indices.shape[:-1]
    for axis in range(batch):
        c.require_equal(x.shape[axis], front[axis], "batches")
    batches = [_counted(c, front, axis) for axis in range(batch)]
    shape = (*front, *x.shape[batch + count :])
    arguments = {"self": x, "indices": [*batches, *given]}
    return c.aten("index.Tensor", (x.dtype, shape), **arguments)[0]


def _counted(c: Call, shape: Shape, axis: int) -> Value:
    """0, 1, ... along an axis, in a shape with 1 along the others."""
    extents = tuple(e if a == axis else 1 for a, e in enumerate(shape))
    return c.b.pointwise(scalar.index(axis), [], extents)


_REDUCTIONS = {"none": "", "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _stored(c: Call, x: Value, axis: int, indices: Value, updates: Value, how: str) -> Value:
    if how not in _REDUCTIONS:
        raise Malformed(f"the reduction {how}")
    if updates.dtype is not x.dtype:
        raise Malformed(f"updates of {updates.dtype.value} to {x.dtype.value}")
    held = c.b.cast(x, DType.U8) if x.dtype is DType.BOOL else x
    updates = c.b.cast(updates, held.dtype)
    given = {"self": held, "dim": axis, "index": indices, "src": updates}
    if how == "none":
        (y,) = c.aten("scatter.src", (held.dtype, x.shape), **given)
    else:
        given["reduce"] = _REDUCTIONS[how]
        (y,) = c.aten("scatter_reduce.two", (held.dtype, x.shape), **given)
    return c.b.cast(y, x.dtype)


def _scatter_elements(c: Call) -> Value:
    x, indices, updates = c.x(0), c.x(1), c.x(2)
    if not x.rank == indices.rank == updates.rank:
        raise Malformed("indices, updates and tensor of different numbers of axes")
    for mine, its in zip(indices.shape, updates.shape, strict=True):
        c.require_equal(mine, its, "indices and updates")
    axis = c.axis(c.attr("axis", 0), x.rank)
    if isinstance(x.shape[axis], int):
        _check_range(indices, x.shape[axis], axis)
    indices = from_the_end(c, indices, x.shape[axis])
    return _stored(c, x, axis, indices, updates, c.attr("reduction", "none"))


def _scatter_nd(c: Call) -> Value:
    """Rows of what lies behind the axes that indices name, at their places in row-major order."""
    x, indices, updates = c.x(0), c.x(1), c.x(2)
    count, given = _lookup(c, indices)
    if count > x.rank:
        raise Malformed(f"indices of {count} axes of a tensor of {x.rank}")
    front, behind = indices.shape[:-1], x.shape[count:]
    for mine, its in zip((*front, *behind), updates.shape, strict=True):
        c.require_equal(mine, its, "indices and updates")
    steps = symbolic.contiguous_strides(x.shape[:count])
    rows, width = symbolic.product(front), symbolic.product(behind)
    total: Value | None = None
    for index, extent, step in zip(given, x.shape, steps, strict=False):
        place = c.b.reshape(c.b.cast(index, DType.I64), (rows,))
        part = c.b.apply(lambda i, e=extent, s=step: _step(i, e, s), place)
        total = part if total is None else c.b.apply(lambda v, w: v + w, total, part)
    assert total is not None
    flat = (symbolic.product(x.shape[:count]), width)
    at = c.b.expand(c.b.reshape(total, (rows, 1)), (rows, width))
    updates = c.b.reshape(updates, (rows, width))
    how = c.attr("reduction", "none")
    return c.b.reshape(_stored(c, c.b.reshape(x, flat), 0, at, updates, how), x.shape)


def _step(index: Scalar, extent: Dim, step: Dim) -> Scalar:
    """The distance in row-major order of an index that must be on its axis."""
    place = scalar.check(scalar.wrap(index, extent), extent)
    if step == 1:
        return place
    return place * (scalar.const(step, DType.I64) if isinstance(step, int) else scalar.size(step))


def _one_hot(c: Call) -> Value:
    """The second of two values at the index, the first elsewhere."""
    indices, values, classes = c.x(0), c.x(2), c.tensor(1)
    if classes.dtype.is_float:
        depth: list[Dim] = [int(c.number(1, "a number of classes"))]
    else:
        depth = dims_of(classes, "a number of classes")
    if len(depth) != 1 or values.shape != (2,):
        raise Malformed("it lacks a depth or two values")
    axis = c.axis(c.attr("axis", -1), indices.rank + 1)
    shape = (*indices.shape[:axis], depth[0], *indices.shape[axis:])
    column = c.b.reshape(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    off, on = (c.b.reshape(c.b.slice(values, 0, i, 1), ()) for i in range(2))
    extent = scalar.const(depth[0], DType.I64) if isinstance(depth[0], int) else None
    extent = scalar.size(depth[0]) if extent is None else extent
    index = scalar.cast(scalar.operand(0, indices.dtype), DType.I64)
    place = where(apply("lt", index, scalar.const(0, DType.I64)), index + extent, index)
    hit = apply("eq", place, scalar.index(axis))
    expr = where(hit, scalar.operand(1, values.dtype), scalar.operand(2, values.dtype))
    return c.b.pointwise(expr, [column, on, off], shape)


def _top_k_by_attribute(c: Call) -> list[Value]:
    return _first(c, c.required("k"))


def _top_k(c: Call) -> list[Value]:
    k = c.dims(1, "a number of elements")
    if k is None or len(k) != 1:
        raise Malformed("it lacks the number of elements")
    return _first(c, k[0])


def _first(c: Call, k: Dim) -> list[Value]:
    """The first elements in order; of equal ones those of the smaller index."""
    x = c.x()
    c.harmless("sorted")
    axis = c.axis(c.attr("axis", -1), x.rank)
    extent = x.shape[axis]
    if isinstance(extent, int) and isinstance(k, int) and k > extent:
        raise Malformed(f"{k} of {extent} elements")
    if extent != k:
        c.require(sympy.Le(sympy.sympify(k), sympy.sympify(extent)))
    held = c.b.cast(x, DType.F32) if x.dtype.is_half else x
    values, indices = c.b.emit_all(Sort(axis, bool(c.attr("largest", 1))), held)
    values = c.b.cast(values, x.dtype)
    return [c.b.slice(y, axis, 0, k) for y in (values, indices)]


def _cumsum(c: Call) -> Value:
    x, given = c.x(0), axes_of(c, 1)
    if given is None or len(given) != 1:
        raise Malformed("it lacks an axis")
    axis = c.axis(given[0], x.rank)
    backward, exclusive = bool(c.attr("reverse", 0)), bool(c.attr("exclusive", 0))

    def flipped(v: Value) -> Value:
        return c.aten("flip", (v.dtype, v.shape), self=v, dims=[axis])[0]

    y = flipped(x) if backward else x
    if exclusive:
        pairs = [0, 0] * (x.rank - 1 - axis) + [1, 0]
        shape = (*x.shape[:axis], simplify(x.shape[axis] + 1), *x.shape[axis + 1 :])
        (y,) = c.aten("pad", (x.dtype, shape), self=y, pad=pairs)
        y = c.b.slice(y, axis, 0, x.shape[axis])
    (y,) = c.aten("cumsum", (x.dtype, x.shape), self=y, dim=axis)
    return flipped(y) if backward else y


def _reverse_sequence(c: Call) -> Value:
    """The first elements of each sequence, as many as it is long, in reverse order."""
    x, lengths = c.x(0), c.x(1)
    time, batch = c.attr("time_axis", 0), c.attr("batch_axis", 1)
    if {time, batch} != {0, 1} or x.rank < 2:
        raise Malformed(f"a time axis {time} and a batch axis {batch}")
    spread = tuple(e if a == batch else 1 for a, e in enumerate(x.shape))
    length = c.b.reshape(c.b.cast(lengths, DType.I64), spread)
    at = scalar.index(time)
    last = scalar.operand(1, DType.I64) - 1
    place = where(apply("le", at, last), last - at, at)
    places = [scalar.index(a) for a in range(x.rank)]
    places[time] = scalar.check(place, x.shape[time])
    return c.b.pointwise(scalar.load(0, x.dtype, places), [x, length], x.shape)


RULES: Table = merged(
    since(1, Gather=_gather),
    since(11, GatherElements=_gather_elements, GatherND=_gather_nd),
    since(9, Scatter=_scatter_elements),
    since(11, ScatterElements=_scatter_elements, ScatterND=_scatter_nd),
    since(9, OneHot=_one_hot),
    since(1, TopK=_top_k_by_attribute),
    since(10, TopK=_top_k, ReverseSequence=_reverse_sequence),
    since(11, CumSum=_cumsum),
)
