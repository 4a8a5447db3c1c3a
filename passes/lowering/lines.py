"""Ops along the lines of an axis: running sums, order, and stores at indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphopt.ir import Dim, DType, Shape, Value, scalar, symbolic
from graphopt.ir.ops import Scan, Scatter
from graphopt.ir.scalar import Scalar, apply
from graphopt.passes.lowering.builder import (
    Builder,
    Unsupported,
    axis_of,
    broadcast,
    filled,
)
from graphopt.passes.lowering.functions import where
from graphopt.passes.lowering.indexing import is_mask
from graphopt.passes.lowering.reductions import refuse_equal, sort
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _with_axes(b: Builder, x: Value) -> Value:
    """A number as a line of one."""
    return x if x.rank else b.reshape(x, (1,))


def _refuse_half(x: Value, what: str) -> None:
    if x.dtype.is_half:
        raise Unsupported(f"{what} of {x.dtype.value}")


def _scan(*kinds: str) -> Lowering:
    """One result for each kind; sums and products are of the type of the result."""

    def rule(b: Builder) -> list[Value]:
        x = b.tensor()
        if kinds[0] in ("sum", "prod", "logsumexp"):
            x = b.cast(x, b.node.outputs[0].dtype)
        _refuse_half(x, "a scan")
        line = _with_axes(b, x)
        axis = axis_of(line, b.arg("dim"))
        made = [b.emit(Scan(kind, axis), line) for kind in kinds]
        return [b.reshape(y, out.shape) for y, out in zip(made, b.node.outputs, strict=True)]

    return rule


# Order.


def _sort(*results: int) -> Lowering:
    """The values (0) or the indices (1) of lines in order."""

    def rule(b: Builder) -> list[Value]:
        b.arg("stable")  # ours always is
        x = _with_axes(b, b.tensor())
        made = sort(b, x, axis_of(x, b.arg("dim", -1)), bool(b.arg("descending", False)))
        chosen = [made[i] for i in results]
        return [b.reshape(y, out.shape) for y, out in zip(chosen, b.node.outputs, strict=True)]

    return rule


def _first_axis_sorted(b: Builder) -> Value:
    x = _with_axes(b, b.tensor())
    return b.reshape(sort(b, x, 0)[0], b.node.output.shape)


def _topk(b: Builder) -> list[Value]:
    x = _with_axes(b, b.tensor())
    axis = axis_of(x, b.arg("dim", -1))
    b.arg("sorted")  # ours always are
    refuse_equal(x)
    made = sort(b, x, axis, descending=bool(b.arg("largest", True)))
    first = [b.slice(y, axis, 0, b.arg("k")) for y in made]
    return [b.reshape(y, out.shape) for y, out in zip(first, b.node.outputs, strict=True)]


# Stores at indices.

Place = Callable[..., Scalar]


def _flat_index(
    b: Builder, x: Value, shape: Shape, places: Sequence[Scalar], indices: Sequence[Value]
) -> Value:
    """Row-major indices into x, of a place along each axis, for every index of a shape."""
    steps = symbolic.contiguous_strides(x.shape)
    total = scalar.const(0, DType.I64)
    for place, step in zip(places, steps, strict=True):
        factor = scalar.const(step, DType.I64) if isinstance(step, int) else scalar.size(step)
        total = total + (place if step == 1 else place * factor)
    return b.pointwise(total, indices, shape)


def _place(number: int, index: Value, extent: Dim, wraps: bool) -> Scalar:
    """A place that an operand says, which must be on the axis."""
    position = scalar.cast(scalar.operand(number, index.dtype), DType.I64)
    return scalar.check(scalar.wrap(position, extent) if wraps else position, extent)


def _along(b: Builder, x: Value, axis: int, index: Value, shape: Shape, wraps: bool) -> Value:
    """Indices into x of elements whose place along one axis is read of a value."""
    places = [scalar.index(a) for a in range(x.rank)]
    places[axis] = _place(0, index, x.shape[axis], wraps)
    return _flat_index(b, x, shape, places, [index])


def _stored(b: Builder, kind: str, x: Value, at: Value, src: Value) -> Value:
    _refuse_half(x, "stores")
    return b.emit(Scatter(kind), x, indices=at, src=src)


def _corner(b: Builder, value: Value, shape: Shape) -> Value:
    """The first elements along every axis."""
    for axis, extent in enumerate(shape):
        value = b.slice(value, axis, 0, extent)
    return value


_KINDS = {"sum": "sum", "add": "sum", "prod": "prod", "multiply": "prod"}
_KINDS |= {"amax": "max", "amin": "min", "mean": "sum", "": "last"}


def _scatter(given: str, reduce: str | None = None) -> Lowering:
    """Args: name of what is stored, a tensor or a number; how, or None for what `reduce` says."""

    def rule(b: Builder) -> Value:
        x, index = _with_axes(b, b.tensor()), _with_axes(b, b.tensor("index"))
        axis, out = axis_of(x, b.arg("dim")), b.node.output
        how = b.arg("reduce", "") if reduce is None else reduce
        value = b.arg(given)
        if isinstance(value, Value):
            src = _corner(b, _with_axes(b, value), index.shape)
        elif isinstance(value, int | float):
            src = filled(index.shape, value, x.dtype, b)
        else:
            raise Unsupported(f"stores of {value}")
        at = _along(b, x, axis, index, index.shape, wraps=False)
        base = x
        if not b.arg("include_self", True):
            base = _untouched(b, x, at, how)
        made = _stored(b, _KINDS[how], base, at, src)
        if how == "mean":
            made = _divided_by_count(b, x, at, made)
        return b.reshape(made, out.shape)

    return rule


def _identity(how: str, dtype: DType) -> float | int:
    """The number that changes nothing."""
    if how in ("sum", "mean", "prod"):
        return int(how == "prod")
    if dtype.is_float:
        return -math.inf if how == "amax" else math.inf
    if dtype is DType.BOOL:
        return how == "amin"
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if how == "amax" else limits.max)


def _untouched(b: Builder, x: Value, at: Value, how: str) -> Value:
    """x, with what changes nothing in place of the elements to which something is stored."""
    marked = filled(at.shape, True, DType.BOOL, b)
    touched = _stored(b, "last", filled(x.shape, False, DType.BOOL, b), at, marked)
    neutral = scalar.const(_identity(how, x.dtype), x.dtype)
    return b.apply(lambda t, v: where(t, neutral, v), touched, x)


def _divided_by_count(b: Builder, x: Value, at: Value, total: Value) -> Value:
    """Sums over the number of what was added, which counts the element that was there."""
    kept = int(bool(b.arg("include_self", True)))
    start, one = (filled(s, n, DType.I64, b) for s, n in ((x.shape, kept), (at.shape, 1)))
    count = _stored(b, "sum", start, at, one)
    if not x.dtype.is_float:
        raise Unsupported(f"means of {x.dtype.value}")

    def mean(t: Scalar, n: Scalar) -> Scalar:
        return t / scalar.cast(apply("max", n, scalar.const(1, DType.I64)), t.dtype)

    return b.apply(mean, total, count)


def _index_store(kind: str, given: str, wraps: bool) -> Lowering:
    """Whole slices along an axis, of a source or filled with a number."""

    def rule(b: Builder) -> Value:
        x, index = _with_axes(b, b.tensor()), _with_axes(b, b.tensor("index"))
        axis = axis_of(x, b.arg("dim"))
        shape = (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :])
        spread = b.reshape(index, (index.shape[0], *[1] * (x.rank - 1 - axis)))
        value = b.arg(given)
        if isinstance(value, Value):
            src = b.reshape(b.cast(value, x.dtype), shape)
        elif isinstance(value, int | float):
            src = filled(shape, value, x.dtype, b)
        else:
            raise Unsupported(f"stores of {value}")
        alpha = b.arg("alpha", 1)
        if alpha != 1:
            src = b.apply(lambda v: v * alpha, src)
        made = _stored(b, kind, x, _along(b, x, axis, spread, shape, wraps), src)
        return b.reshape(made, b.node.output.shape)

    return rule


def _index_put(b: Builder) -> Value:
    """Stores at indices of several axes, which broadcast, or where a mask is true."""
    x, values, out = b.tensor(), b.tensor("values"), b.node.output
    indices, accumulate = b.arg("indices"), bool(b.arg("accumulate", False))
    given = {a: v for a, v in enumerate(indices) if v is not None}
    if any(map(is_mask, given.values())):
        return _put_by_mask(b, x, given, values, accumulate)
    picked = broadcast(*(v.shape for v in given.values()))
    axes, rank = list(given), len(picked)
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    front = axes[0] if together else 0
    rest = [a for a in range(x.rank) if a not in given]
    before, after = rest[:front], rest[front:]
    shape = (*(x.shape[a] for a in before), *picked, *(x.shape[a] for a in after))
    places = [scalar.const(0, DType.I64)] * x.rank
    for position, a in enumerate(before):
        places[a] = scalar.index(position)
    for position, a in enumerate(after):
        places[a] = scalar.index(front + rank + position)
    spread = []
    for number, (axis, index) in enumerate(given.items()):
        places[axis] = _place(number, index, x.shape[axis], wraps=True)
        spread.append(b.reshape(index, (*index.shape, *[1] * len(after))))
    at = _flat_index(b, x, shape, places, spread)
    tail = shape[len(shape) - values.rank :]
    if values.rank > len(shape) or any(
        e not in (1, s) for e, s in zip(values.shape, tail, strict=True)
    ):
        raise Unsupported("values that need not have the extents of what they are stored to")
    src = b.expand(b.cast(values, x.dtype), shape)
    return b.reshape(_stored(b, "sum" if accumulate else "last", x, at, src), out.shape)


def _put_by_mask(
    b: Builder, x: Value, given: dict[int, Value], values: Value, accumulate: bool
) -> Value:
    """One value for every true element of a mask, or the next one."""
    (axis, mask), *others = given.items()
    if others:
        raise Unsupported("stores by a mask and other indices")
    _refuse_half(x, "stores")
    behind = axis + mask.rank
    rest = x.shape[behind:]
    shape = (*x.shape[:axis], symbolic.product(x.shape[axis:behind]), *rest)
    truth = b.reshape(b.truth(mask), (shape[axis],))
    number = values.rank - 1 - len(rest)  # the axis of values along which they are numbered
    many = number >= 0 and values.shape[number] != 1
    if number > axis or any(
        e not in (1, s)
        for a, (e, s) in enumerate(zip(values.shape[::-1], shape[::-1], strict=False))
        if a != len(rest)
    ):
        raise Unsupported("values that need not have the extents of what they are stored to")
    beside = [b.reshape(x, shape), b.reshape(truth, (shape[axis], *[1] * len(rest)))]
    places: list[Scalar] = [
        scalar.const(0, DType.I64) if e == 1 else scalar.index(len(shape) - values.rank + a)
        for a, e in enumerate(values.shape)
    ]
    if many:
        b.check_count(mask, mask.shape, values.shape[number])
        count = b.emit(Scan("sum", 0), b.cast(truth, DType.I64))
        beside.append(b.reshape(count, beside[1].shape))
        places[number] = scalar.check(scalar.operand(2, DType.I64) - 1, values.shape[number])
    old = scalar.operand(0, x.dtype)
    new = scalar.cast(scalar.load(len(beside), values.dtype, places), x.dtype)
    stored = where(scalar.operand(1, DType.BOOL), old + new if accumulate else new, old)
    if (function := scalar.not_computable(stored)) is not None:
        raise Unsupported(function)
    return b.reshape(b.pointwise(stored, [*beside, values], shape), x.shape)


def _masked_scatter(b: Builder) -> Value:
    """The next element of a source wherever a mask is true."""
    mask, out, source = b.tensor("mask"), b.node.output, b.tensor("source")
    flat = (symbolic.product(out.shape),)
    x, truth = (b.reshape(b.expand(v, out.shape), flat) for v in (b.tensor(), mask))
    _refuse_half(x, "stores")
    count = b.emit(Scan("sum", 0), b.cast(truth, DType.I64))
    extent = symbolic.product(source.shape)

    def element(t: Scalar, n: Scalar, v: Scalar) -> Scalar:
        at = scalar.check(apply("max", n - 1, scalar.const(0, DType.I64)), extent)
        return where(t, scalar.load(3, source.dtype, [at]), v)

    operands = [truth, count, x, b.reshape(source, (extent,))]
    leaves = [scalar.operand(i, v.dtype) for i, v in enumerate(operands[:3])]
    return b.reshape(b.pointwise(element(*leaves), operands, flat), out.shape)


_PAIR = "(Tensor values, Tensor indices)"
_AT = "Tensor self, int dim, Tensor index"
RULES: dict[str, Rule] = {
    **rules(
        _scan("sum"),
        "aten::cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
    ),
    **rules(
        _scan("prod"),
        "aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
    ),
    **rules(_scan("max", "argmax"), f"aten::cummax(Tensor self, int dim) -> {_PAIR}"),
    **rules(_scan("min", "argmin"), f"aten::cummin(Tensor self, int dim) -> {_PAIR}"),
    **rules(_scan("logsumexp"), "aten::logcumsumexp(Tensor self, int dim) -> Tensor"),
    **rules(
        _sort(0, 1),
        f"aten::sort(Tensor self, int dim=-1, bool descending=False) -> {_PAIR}",
        "aten::sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) "
        f"-> {_PAIR}",
    ),
    **rules(
        _sort(1),
        "aten::argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor",
        "aten::argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) "
        "-> Tensor",
    ),
    **rules(_first_axis_sorted, "aten::msort(Tensor self) -> Tensor"),
    **rules(
        _topk,
        "aten::topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) "
        f"-> {_PAIR}",
    ),
    **rules(
        _scatter("src"),
        f"aten::scatter.src({_AT}, Tensor src) -> Tensor",
        f"aten::scatter.reduce({_AT}, Tensor src, *, str reduce) -> Tensor",
        f"aten::scatter_reduce.two({_AT}, Tensor src, str reduce, *, bool include_self=True) "
        "-> Tensor",
    ),
    **rules(
        _scatter("value"),
        f"aten::scatter.value({_AT}, Scalar value) -> Tensor",
        f"aten::scatter.value_reduce({_AT}, Scalar value, *, str reduce) -> Tensor",
    ),
    **rules(_scatter("src", "sum"), f"aten::scatter_add({_AT}, Tensor src) -> Tensor"),
    **rules(
        _index_store("sum", "source", wraps=False),
        f"aten::index_add({_AT}, Tensor source, *, Scalar alpha=1) -> Tensor",
    ),
    **rules(
        _index_store("last", "source", wraps=False),
        f"aten::index_copy({_AT}, Tensor source) -> Tensor",
    ),
    **rules(
        _index_store("last", "value", wraps=True),
        f"aten::index_fill.int_Scalar({_AT}, Scalar value) -> Tensor",
    ),
    **rules(
        _index_put,
        "aten::index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) "
        "-> Tensor",
    ),
    **rules(
        _masked_scatter,
        "aten::masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor",
    ),
}
