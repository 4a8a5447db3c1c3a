"""Reductions and what is made of them, softmax."""

from __future__ import annotations

from collections.abc import Callable

from graphopt.ir import DType, Value, scalar, symbolic
from graphopt.ir.ops import Reduce
from graphopt.ir.scalar import apply
from graphopt.ir.symbolic import simplify
from graphopt.onnx.call import Call
from graphopt.onnx.rules.shapes import axes_of
from graphopt.onnx.rules.table import Rule, Table, merged, since
from graphopt.passes.lowering.builder import Unsupported

Of = Callable[[Call, Value, tuple[int, ...]], Value]


def _reduce(of: Of, place: int) -> Rule:
    """A reduction over axes of an attribute, or of an input (`place`)."""

    def rule(c: Call) -> Value:
        x = c.x()
        given, keep = axes_of(c, place), c.attr("keepdims", 1)
        nothing = bool(c.attr("noop_with_empty_axes", 0)) if place else False
        if not given and nothing:
            axes: tuple[int, ...] = ()
        else:
            axes = tuple(sorted(c.axes(given, x.rank))) if given else tuple(range(x.rank))
        wide = c.b.cast(x, DType.F32) if x.dtype.is_half else x
        y = c.b.cast(of(c, wide, axes), x.dtype)
        shape = tuple(1 if a in axes else e for a, e in enumerate(x.shape) if keep or a not in axes)
        return c.b.reshape(y, shape)

    return rule


def _folded(c: Call, kind: str, x: Value, axes: tuple[int, ...]) -> Value:
    """With axes of 1 in place of those reduced."""
    if not axes:
        return x
    if kind == "mean" and not x.dtype.is_float:
        raise Unsupported(f"means of {x.dtype.value}")
    if 0 in x.shape and kind in ("max", "min", "mean"):
        raise Unsupported(f"the {kind} of no elements")
    return c.b.emit(Reduce(kind, axes), x)


def _of(kind: str) -> Of:
    return lambda c, x, axes: _folded(c, kind, x, axes)


def _squares(c: Call, x: Value, axes: tuple[int, ...]) -> Value:
    return _folded(c, "sum", c.b.apply(lambda v: v * v, x), axes)


def _l1(c: Call, x: Value, axes: tuple[int, ...]) -> Value:
    return _folded(c, "sum", c.unary("abs", x), axes)


def _l2(c: Call, x: Value, axes: tuple[int, ...]) -> Value:
    return _rooted(c, "sqrt", _squares(c, x, axes))


def _rooted(c: Call, name: str, x: Value) -> Value:
    """A function of floats, of whole numbers in f64."""
    wide = x if x.dtype.is_float else c.b.cast(x, DType.F64)
    return c.b.cast(c.b.apply(lambda v: apply(name, v), wide), x.dtype)


def _log_sum(c: Call, x: Value, axes: tuple[int, ...]) -> Value:
    return _rooted(c, "log", _folded(c, "sum", x, axes))


def _log_sum_exp(c: Call, x: Value, axes: tuple[int, ...]) -> Value:
    if not axes:
        return x
    if 0 in x.shape:
        raise Unsupported("the sum of no elements")
    wide = x if x.dtype.is_float else c.b.cast(x, DType.F64)
    shape = tuple(1 if a in axes else e for a, e in enumerate(x.shape))
    given = {"self": wide, "dim": list(axes), "keepdim": True}
    return c.b.cast(c.aten("logsumexp", (wide.dtype, shape), **given)[0], x.dtype)


def _arg(kind: str) -> Rule:
    def rule(c: Call) -> Value:
        x = c.x()
        axis, keep = c.axis(c.attr("axis", 0), x.rank), c.attr("keepdims", 1)
        x = c.b.cast(x, DType.F32) if x.dtype.is_half else x
        if 0 in x.shape:
            raise Unsupported("an index among no elements")
        if last := c.attr("select_last_index", 0):
            (x,) = c.aten("flip", (x.dtype, x.shape), self=x, dims=[axis])
        y = c.b.emit(Reduce(kind, (axis,)), x)
        if last:
            end = simplify(x.shape[axis] - 1)
            number = scalar.const(end, DType.I64) if isinstance(end, int) else scalar.size(end)
            y = c.b.apply(lambda v: number - v, y)
        shape = (*x.shape[:axis], *([1] if keep else []), *x.shape[axis + 1 :])
        return c.b.reshape(y, shape)

    return rule


def _softmax(name: str) -> Rule:
    def rule(c: Call) -> Value:
        x = c.x()
        axis = c.axis(c.attr("axis", -1), x.rank)
        return c.unary(name, x, dim=axis, half_to_float=False)

    return rule


def _softmax_of_rows(name: str) -> Rule:
    """Over all axes from one on, as if they were one."""

    def rule(c: Call) -> Value:
        x = c.x()
        axis = c.axis(c.attr("axis", 1), x.rank)
        flat = (symbolic.product(x.shape[:axis]), symbolic.product(x.shape[axis:]))
        rows = x if axis == x.rank - 1 else c.b.reshape(x, flat)
        y = c.unary(name, rows, dim=rows.rank - 1, half_to_float=False)
        return c.b.reshape(y, x.shape)

    return rule


def _hardmax(whole: bool) -> Rule:
    """1 at the first of the largest, along an axis, or over all from one on."""

    def rule(c: Call) -> Value:
        x = c.x()
        axis = c.axis(c.attr("axis", 1 if whole else -1), x.rank)
        flat = (symbolic.product(x.shape[:axis]), symbolic.product(x.shape[axis:]))
        rows = c.b.reshape(x, flat) if whole else x
        axis = 1 if whole else axis
        wide = c.b.cast(rows, DType.F32) if x.dtype.is_half else rows
        largest = c.b.emit(Reduce("argmax", (axis,)), wide)
        hit = apply("eq", scalar.operand(0, DType.I64), scalar.index(axis))
        y = c.b.pointwise(scalar.cast(hit, wide.dtype), [largest], rows.shape)
        return c.b.reshape(c.b.cast(y, x.dtype), x.shape)

    return rule


_KINDS: dict[str, Of] = {
    "ReduceSum": _of("sum"),
    "ReduceMean": _of("mean"),
    "ReduceMax": _of("max"),
    "ReduceMin": _of("min"),
    "ReduceProd": _of("prod"),
    "ReduceSumSquare": _squares,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}
_INPUTS_SINCE = {"ReduceSum": 13}
"""The opset since which axes are an input; 18 for others."""


def _forms(op: str, of: Of) -> Table:
    newer = _INPUTS_SINCE.get(op, 18)
    return {("", op): {1: _reduce(of, 0), newer: _reduce(of, 1)}}


RULES: Table = merged(
    *(_forms(op, of) for op, of in _KINDS.items()),
    since(1, ArgMax=_arg("argmax"), ArgMin=_arg("argmin")),
    since(1, Softmax=_softmax_of_rows("_softmax"), LogSoftmax=_softmax_of_rows("_log_softmax")),
    since(13, Softmax=_softmax("_softmax"), LogSoftmax=_softmax("_log_softmax")),
    since(1, Hardmax=_hardmax(whole=True)),
    since(13, Hardmax=_hardmax(whole=False)),
)
