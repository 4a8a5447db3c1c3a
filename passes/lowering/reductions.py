"""Sums, extremes and what is made of them: variances, norms, distances."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.ir import DType, Node, Shape, Value, scalar, symbolic
from graphopt.ir.ops import Reduce, Sort
from graphopt.ir.scalar import Scalar, apply
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of, broadcast
from graphopt.passes.lowering.functions import equal, is_nan, where
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _axes(x: Value, given: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes that are reduced: all of them for none."""
    if given is None or given == [] or x.rank == 0:
        return tuple(range(x.rank))
    axes = [given] if isinstance(given, int) else given
    return tuple(sorted(axis_of(x, a) for a in axes))


def _folded(b: Builder, kind: str, x: Value, axes: tuple[int, ...]) -> Value:
    """A reduction that keeps its axes with an extent of 1."""
    if x.dtype.is_half:
        raise Unsupported(f"a reduction of {x.dtype.value}")
    return b.emit(Reduce(kind, axes), x)


def _result(b: Builder, y: Value, number: int = 0) -> Value:
    """A reduced value in the shape and type of an output."""
    out = b.node.outputs[number]
    return b.cast(b.reshape(y, out.shape), out.dtype)


_ADDED = ("sum", "mean", "prod", "nansum")


def _reduce(kind: str) -> Lowering:
    """Sums and the like are of the type of the result; others of that of the operand."""

    def rule(b: Builder) -> Value:
        x, out = b.tensor(), b.node.output
        axes = _axes(x, b.arg("dim"))
        if kind in _ADDED:
            if out.dtype is DType.BOOL:
                raise Unsupported(f"{kind} as bool")
            x = b.cast(x, out.dtype)
        if kind == "nansum" and x.dtype.is_float:
            x = b.apply(lambda v: where(is_nan(v), scalar.const(0, v.dtype), v), x)
        if kind in ("any", "all"):
            x = b.cast(x, DType.BOOL)
        of = {"any": "max", "all": "min", "nansum": "sum"}.get(kind, kind)
        return _result(b, _folded(b, of, x, axes))

    return rule


def _count_nonzero(b: Builder) -> Value:
    x = b.tensor()
    counted = b.cast(b.cast(x, DType.BOOL), DType.I64)
    return _result(b, _folded(b, "sum", counted, _axes(x, b.arg("dim"))))


def _histogram(b: Builder) -> Value:
    """How many elements lie in each of as many bins of equal width; the last has both its ends."""
    x, bins = b.tensor(), b.arg("bins", 100)
    low, high = b.arg("min", 0), b.arg("max", 0)
    if not all(isinstance(n, int | float) for n in (low, high)) or low >= high:
        raise Unsupported("a histogram between the least and the largest element")
    x = b.reshape(x, (symbolic.product(x.shape),))
    if x.dtype is not DType.F32:
        raise Unsupported(f"a histogram of {x.dtype.value}")
    value = scalar.operand(0, x.dtype)
    first, last = (scalar.const(n, x.dtype) for n in (low, high))
    count, width = scalar.const(bins, x.dtype), scalar.const(high - low, x.dtype)
    place = apply("div", apply("mul", apply("sub", value, first), count), width)
    place = apply("min", scalar.cast(place, DType.I64), scalar.const(bins - 1, DType.I64))
    inside = apply("and", apply("ge", value, first), apply("le", value, last))
    place = where(inside, place, scalar.const(-1, DType.I64))
    hit = scalar.cast(apply("eq", place, scalar.index(0)), DType.I64)
    hits = b.pointwise(hit, [b.reshape(x, (1, *x.shape))], (bins, *x.shape))
    return _result(b, _folded(b, "sum", hits, (1,)))


def _line(b: Builder, x: Value, axis: int | None) -> tuple[Value, int]:
    """X and an axis of it, which is flat if there is none."""
    if axis is None or x.rank == 0:
        return b.reshape(x, (symbolic.product(x.shape),)), 0
    return x, axis_of(x, axis)


def _arg(kind: str) -> Lowering:
    def rule(b: Builder) -> Value:
        x, axis = _line(b, b.tensor(), b.arg("dim"))
        return _result(b, _folded(b, kind, x, (axis,)))

    return rule


def _with_index(kind: str) -> Lowering:
    """The largest or smallest along an axis, and the first index of it."""

    def rule(b: Builder) -> list[Value]:
        x, axis = _line(b, b.tensor(), b.arg("dim"))
        found = [_folded(b, of, x, (axis,)) for of in (kind, f"arg{kind}")]
        return [_result(b, y, i) for i, y in enumerate(found)]

    return rule


def _both_extremes(b: Builder) -> list[Value]:
    x, axis = b.tensor(), b.arg("dim")
    axes = _axes(x, axis)
    return [_result(b, _folded(b, kind, x, axes), i) for i, kind in enumerate(("min", "max"))]


# Moments.


def _floats(b: Builder, name: str = "self") -> Value:
    x = b.tensor(name)
    if x.dtype not in (DType.F32, DType.F64):
        raise Unsupported(f"{b.node.op} of {x.dtype.value}")
    return x


def _count(x: Value, axes: tuple[int, ...], correction: float) -> Scalar:
    """How many elements a result is of, less the correction and at least 0."""
    count = symbolic.product(x.shape[a] for a in axes)
    if isinstance(count, int):
        return scalar.const(max(0.0, count - correction), x.dtype)
    number = scalar.cast(scalar.size(count), x.dtype) - correction
    return apply("max", number, scalar.const(0, x.dtype))


def variance(b: Builder, x: Value, axes: tuple[int, ...], correction: float) -> tuple[Value, Value]:
    """Variance and mean of floats, with axes of extent 1 in place of those reduced.

    Args:
        b: gets the nodes.
        x: f32 or f64.
        axes: that are reduced.
        correction: subtracted from the number of elements that squares are divided by.
    """
    mean = _folded(b, "mean", x, axes)
    squares = b.apply(lambda v, m: (v - m) * (v - m), x, mean)
    total, count = _folded(b, "sum", squares, axes), _count(x, axes, correction)
    return b.apply(lambda t: t / count, total), mean


def _moments(root: bool, mean: bool) -> Lowering:
    def rule(b: Builder) -> list[Value]:
        x = _floats(b)
        correction = b.arg("correction")
        if correction is None:
            correction = int(b.arg("unbiased", True))
        spread, center = variance(b, x, _axes(x, b.arg("dim")), float(correction))
        if root:
            spread = b.apply(lambda v: apply("sqrt", v), spread)
        results = [spread, center] if mean else [spread]
        return [_result(b, y, i) for i, y in enumerate(results)]

    return rule


# Norms and distances.


def _norm_of(b: Builder, x: Value, axes: tuple[int, ...], order: float) -> Value:
    """The p-norm of real numbers along axes."""
    if order == 0:
        counted = b.apply(lambda v: scalar.cast(scalar.cast(v, DType.BOOL), v.dtype), x)
        return _folded(b, "sum", counted, axes)
    if order == 2:
        total = _folded(b, "sum", b.apply(lambda v: v * v, x), axes)
        return b.apply(lambda v: apply("sqrt", v), total)
    sizes = b.apply(lambda v: apply("abs", v), x)
    if order == 1:
        return _folded(b, "sum", sizes, axes)
    if math.isinf(order):
        return _folded(b, "max" if order > 0 else "min", sizes, axes)
    powers = b.apply(lambda v: apply("pow", v, scalar.const(order, v.dtype)), sizes)
    total = _folded(b, "sum", powers, axes)
    return b.apply(lambda v: apply("pow", v, scalar.const(1 / order, v.dtype)), total)


def _number(b: Builder, name: str, default: float) -> float:
    value = b.arg(name, default)
    if value is None:
        return default
    if not isinstance(value, int | float):
        raise Unsupported(f"{name} = {value} of {b.node.op}")
    return float(value)


def _vector_norm(order: str) -> Lowering:
    def rule(b: Builder) -> Value:
        x, out = b.tensor(), b.node.output
        x = b.cast(x, out.dtype)
        if x.dtype not in (DType.F32, DType.F64):
            raise Unsupported(f"a norm as {x.dtype.value}")
        return _result(b, _norm_of(b, x, _axes(x, b.arg("dim")), _number(b, order, 2.0)))

    return rule


def _logsumexp(b: Builder) -> Value:
    x = b.cast(b.tensor(), b.node.output.dtype)
    axes = _axes(x, b.arg("dim"))
    largest = _folded(b, "max", x, axes)
    infinite = b.apply(
        lambda m: where(equal(apply("abs", m), math.inf), scalar.const(0, m.dtype), m), largest
    )
    total = _folded(b, "sum", b.apply(lambda v, m: apply("exp", v - m), x, infinite), axes)
    return _result(b, b.apply(lambda t, m: apply("log", t) + m, total, infinite))


def _inner(b: Builder, x: Value, y: Value, axes: tuple[int, ...]) -> Value:
    return _folded(b, "sum", b.apply(lambda v, w: v * w, x, y), axes)


def _cosine_similarity(b: Builder) -> Value:
    x, y, eps = _floats(b, "x1"), _floats(b, "x2"), _number(b, "eps", 1e-8)
    rank = max(x.rank, y.rank)
    x, y = (b.reshape(v, (*[1] * (rank - v.rank), *v.shape)) for v in (x, y))
    axis = axis_of(x, b.arg("dim", 1))
    axes, extent = (axis,), broadcast(x.shape, y.shape)[axis]
    x, y = (b.expand(v, (*v.shape[:axis], extent, *v.shape[axis + 1 :])) for v in (x, y))

    def unit(v: Value) -> Value:
        length = _norm_of(b, v, axes, 2)
        return b.apply(lambda a, n: a / apply("max", n, scalar.const(eps, n.dtype)), v, length)

    return _result(b, _inner(b, unit(x), unit(y), axes))


def _pairwise_distance(b: Builder) -> Value:
    x, y = _floats(b, "x1"), _floats(b, "x2")
    eps = _number(b, "eps", 1e-6)
    apart = b.apply(lambda v, w: v - w + eps, x, y)
    return _result(b, _norm_of(b, apart, (apart.rank - 1,), _number(b, "p", 2.0)))


def _cdist(b: Builder) -> Value:
    """Distances of every row of x1 [.., p, m] from every row of x2 [.., r, m]."""
    x, y = _floats(b, "x1"), _floats(b, "x2")
    b.arg("compute_mode")
    rows: Shape = (*x.shape[:-1], 1, x.shape[-1])
    columns: Shape = (*y.shape[:-2], 1, *y.shape[-2:])
    apart = b.apply(lambda v, w: v - w, b.reshape(x, rows), b.reshape(y, columns))
    return _result(b, _norm_of(b, apart, (apart.rank - 1,), _number(b, "p", 2.0)))


def _mse_loss(b: Builder) -> Value:
    x, y = _floats(b), _floats(b, "target")
    squares = b.apply(lambda v, w: (v - w) * (v - w), x, y)
    reduction = b.arg("reduction", 1)
    if reduction == 0:
        return squares
    kind = "mean" if reduction == 1 else "sum"
    return _result(b, _folded(b, kind, squares, tuple(range(squares.rank))))


# Order statistics.


def sort(b: Builder, x: Value, axis: int, descending: bool = False) -> list[Value]:
    """Lines in order, and the indices of their elements.

    Args:
        b: gets the node.
        x: what is sorted.
        axis: along which lines run, not negative.
        descending: whether the largest comes first.
    """
    if x.dtype.is_half:
        raise Unsupported(f"an order of {x.dtype.value}")
    b.nodes.append(Node.of(Sort(axis, descending), x, origin=b.node.origin))
    return b.nodes[-1].outputs


def refuse_equal(x: Value) -> None:
    """Of several equal elements torch gives some index; whole numbers are often equal."""
    if not x.dtype.is_float:
        raise Unsupported(f"the index of one of several equal elements of {x.dtype.value}")


def _kth(b: Builder) -> list[Value]:
    x, axis = _line(b, b.tensor(), b.arg("dim", -1))
    refuse_equal(x)
    place = b.arg("k") - 1
    found = [b.slice(y, axis, place, 1) for y in sort(b, x, axis)]
    return [_result(b, y, i) for i, y in enumerate(found)]


def _median(b: Builder) -> list[Value]:
    """The lower of the two in the middle; NaN if there is one, at the first such index."""
    x, axis = _line(b, b.tensor(), b.arg("dim"))
    extent = x.shape[axis]
    if extent == 0:
        raise Unsupported("the median of no elements")
    ordered = sort(b, x, axis)
    found = [b.slice(y, axis, (extent - 1) // 2, 1) for y in ordered]
    if x.dtype.is_float:
        last, first = b.slice(ordered[0], axis, extent - 1, 1), _folded(b, "argmax", x, (axis,))
        found = [
            b.apply(lambda v, w: where(is_nan(w), w, v), found[0], last),
            b.apply(lambda v, w, i: where(is_nan(w), i, v), found[1], last, first),
        ]
    return [_result(b, y, i) for i, y in enumerate(found[: len(b.node.outputs)])]


_DIM = "int dim, bool keepdim=False"
_OPTIONS = "bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"


def _of(kinds: str, *schemas: str) -> dict[str, Rule]:
    """Rules for reductions whose schemas differ in `{kind}` alone."""
    return {
        overload: rule
        for kind in kinds.split()
        for overload, rule in rules(
            _reduce(kind), *(s.format(kind=kind) for s in schemas), implied="keepdim"
        ).items()
    }


def _spreads() -> dict[str, Rule]:
    """`std` and `var`, with the mean or without."""
    made: dict[str, Rule] = {}
    for name, root in (("std", True), ("var", False)):
        for suffix, mean, result in (("", False, "Tensor"), ("_mean", True, "(Tensor, Tensor)")):
            made |= rules(
                _moments(root, mean),
                f"aten::{name}{suffix}(Tensor self, bool unbiased=True) -> {result}",
                f"aten::{name}{suffix}.dim(Tensor self, int[1]? dim, bool unbiased=True, "
                f"bool keepdim=False) -> {result}",
                f"aten::{name}{suffix}.correction(Tensor self, int[1]? dim=None, *, "
                f"Scalar? correction=None, bool keepdim=False) -> {result}",
                implied="keepdim",
            )
    return made


RULES: dict[str, Rule] = {
    **_of("sum mean prod", "aten::{kind}(Tensor self, *, ScalarType? dtype=None) -> Tensor"),
    **_of("sum", "aten::{kind}.dim_IntList(Tensor self, int[1]? dim, " + _OPTIONS),
    **_of("mean", "aten::{kind}.dim(Tensor self, int[1]? dim, " + _OPTIONS),
    **_of("nansum", "aten::{kind}(Tensor self, int[1]? dim=None, " + _OPTIONS),
    **_of("prod", "aten::{kind}.dim_int(Tensor self, int dim, " + _OPTIONS),
    **_of(
        "any all",
        "aten::{kind}(Tensor self) -> Tensor",
        "aten::_is_{kind}_true(Tensor self) -> Tensor",
        "aten::{kind}.dim(Tensor self, int dim, bool keepdim=False) -> Tensor",
        "aten::{kind}.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor",
    ),
    **_of(
        "max min",
        "aten::{kind}(Tensor self) -> Tensor",
        "aten::a{kind}(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
    ),
    **rules(
        _histogram,
        "aten::histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor",
    ),
    **rules(
        _count_nonzero,
        "aten::count_nonzero(Tensor self, int? dim=None) -> Tensor",
        "aten::count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor",
    ),
    **{
        overload: rule
        for kind in ("max", "min")
        for overload, rule in {
            **rules(
                _arg(f"arg{kind}"),
                f"aten::arg{kind}(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
                implied="keepdim",
            ),
            **rules(
                _with_index(kind),
                f"aten::{kind}.dim(Tensor self, {_DIM}) -> (Tensor values, Tensor indices)",
                implied="keepdim",
            ),
        }.items()
    },
    **rules(
        _both_extremes,
        "aten::aminmax(Tensor self, *, int? dim=None, bool keepdim=False) "
        "-> (Tensor min, Tensor max)",
        implied="keepdim",
    ),
    **_spreads(),
    **rules(
        _vector_norm("ord"),
        "aten::linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, "
        "bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
        implied="keepdim",
    ),
    **rules(
        _vector_norm("p"),
        "aten::norm.Scalar(Tensor self, Scalar p=2) -> Tensor",
        "aten::norm.ScalarOpt_dim(Tensor self, Scalar? p, int[1] dim, bool keepdim=False) "
        "-> Tensor",
        "aten::norm.ScalarOpt_dim_dtype(Tensor self, Scalar? p, int[1] dim, bool keepdim, *, "
        "ScalarType dtype) -> Tensor",
        "aten::norm.ScalarOpt_dtype(Tensor self, Scalar? p, *, ScalarType dtype) -> Tensor",
        implied="keepdim",
    ),
    **rules(
        _logsumexp,
        "aten::logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor",
        implied="keepdim",
    ),
    **rules(
        _cosine_similarity,
        "aten::cosine_similarity(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor",
    ),
    **rules(
        _pairwise_distance,
        "aten::pairwise_distance(Tensor x1, Tensor x2, float p=2., "
        "float eps=9.9999999999999995e-07, bool keepdim=False) -> Tensor",
        implied="keepdim",
    ),
    **rules(
        _cdist,
        "aten::cdist(Tensor x1, Tensor x2, float p=2., int? compute_mode=None) -> Tensor",
    ),
    **rules(
        _mse_loss,
        "aten::mse_loss(Tensor self, Tensor target, int reduction=1) -> Tensor",
    ),
    **rules(
        _kth,
        "aten::kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) "
        "-> (Tensor values, Tensor indices)",
        implied="keepdim",
    ),
    **rules(
        _median,
        "aten::median(Tensor self) -> Tensor",
        f"aten::median.dim(Tensor self, {_DIM}) -> (Tensor values, Tensor indices)",
        implied="keepdim",
    ),
}
