"""Ops that give tensors other shapes, order, or sizes, and tensors made from nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy

from graphopt.ir import Dim, DType, Shape, Value, constant, scalar, symbolic
from graphopt.ir.numbers import widen
from graphopt.ir.ops import Cat
from graphopt.ir.symbolic import is_non_negative, maximum, minimum, simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Array, Tensor
from graphopt.onnx.meanings import Later, Weights
from graphopt.onnx.rules.table import Rule, Table, merged, since
from graphopt.onnx.tensors import DTYPES, type_name
from graphopt.passes.lowering.builder import Unsupported, filled

# Sizes.


def _shape(c: Call) -> Tensor:
    shape = c.tensor().shape
    rank = len(shape)
    start, end = c.attr("start", 0), c.attr("end", rank)
    bounds = [min(max(b + rank if b < 0 else b, 0), rank) for b in (start, end)]
    made = np.empty(max(bounds[1] - bounds[0], 0), object)
    made[:] = shape[bounds[0] : bounds[1]]
    return Tensor.known(made, DType.I64)


def _size(c: Call) -> Tensor:
    made = np.empty((), object)
    made[()] = symbolic.product(c.tensor().shape)
    return Tensor.known(made, DType.I64)


def axes_of(c: Call, place: int, name: str = "axes") -> list[int] | None:
    """Axes of an attribute, or of an input in newer forms; None if they are not given.

    Args:
        c: the node.
        place: number of the input; 0 for forms without one.
        name: of the attribute.
    """
    found = c.attr(name)
    if found is None and place:
        numbers = c.numbers(place, name)
        return None if numbers is None else [int(a) for a in numbers.reshape(-1)]
    return found  # type: ignore[no-any-return]


def _reshape(c: Call) -> Value:
    x = c.x()
    wanted = c.dims(1, "a shape")
    if wanted is None:
        raise Malformed("it lacks a shape")
    keeps = not c.attr("allowzero", 0)
    return c.b.reshape(x, reshaped(c, x.shape, wanted, keeps))


def reshaped(c: Call, shape: Shape, wanted: Sequence[Dim], keeps: bool) -> Shape:
    """The shape that a reshape asks for.

    Args:
        c: gets a condition where elements might be left over.
        shape: as it is.
        wanted: with -1 for what is left over.
        keeps: whether 0 stands for the extent that was there.
    """
    result: list[Dim] = []
    for axis, extent in enumerate(wanted):
        if extent == 0 and keeps:
            if axis >= len(shape):
                raise Malformed(f"it keeps axis {axis} of {len(shape)}")
            extent = shape[axis]
        result.append(extent)
    total = symbolic.product(shape)
    open_axes = [axis for axis, extent in enumerate(result) if extent == -1]
    if len(open_axes) > 1 or any(isinstance(e, int) and e < -1 for e in result):
        raise Malformed(f"the shape {list(wanted)}")
    if not open_axes:
        c.require_equal(total, symbolic.product(result), "a tensor and its shape")
        return tuple(result)
    rest = symbolic.product(e for e in result if e != -1)
    result[open_axes[0]] = _divided(c, total, rest)
    return tuple(result)


def _divided(c: Call, total: Dim, rest: Dim) -> Dim:
    """The quotient of two sizes, which leaves nothing."""
    if rest == 0:
        raise Malformed("what is left over of no elements")
    quotient = simplify(sympy.cancel(sympy.sympify(total) / rest))
    if isinstance(quotient, int) or sympy.denom(quotient) == 1:
        return quotient
    if isinstance(total, int) and isinstance(rest, int):
        raise Malformed(f"{total} elements in rows of {rest}")
    whole = symbolic.floor_div(total, rest)
    c.require_equal(simplify(whole * rest), total, "rows of a tensor and the tensor")
    return whole


def _flatten(c: Call) -> Value:
    x = c.x()
    axis = c.attr("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise Malformed(f"axis {axis} of a tensor of {x.rank} axes")
    axis = axis + x.rank if axis < 0 else axis
    return c.b.reshape(x, (symbolic.product(x.shape[:axis]), symbolic.product(x.shape[axis:])))


def _squeeze(place: int) -> Rule:
    def rule(c: Call) -> Value:
        x, given = c.x(), axes_of(c, place)
        if given is None:
            axes = [a for a, e in enumerate(x.shape) if e == 1]
            if not symbolic.is_static(x.shape):
                raise Unsupported("axes of 1 that sizes decide; name them")
        else:
            axes = c.axes(given, x.rank)
            for a in axes:
                c.require_equal(x.shape[a], 1, "an axis that is squeezed and 1")
        return c.b.reshape(x, tuple(e for a, e in enumerate(x.shape) if a not in axes))

    return rule


def _unsqueeze(place: int) -> Rule:
    def rule(c: Call) -> Value:
        x, given = c.x(), axes_of(c, place)
        if given is None:
            raise Malformed("it lacks axes")
        rank = x.rank + len(given)
        axes, rest = c.axes(given, rank), iter(x.shape)
        return c.b.reshape(x, tuple(1 if a in axes else next(rest) for a in range(rank)))

    return rule


def _transpose(c: Call) -> Value | Tensor:
    given = c.tensor()
    if isinstance(given.meaning, Weights) and c.attr("perm") in (None, [1, 0]):
        held = given.meaning.transposed()
        return Later(given.dtype, given.shape[::-1], lambda: constant(held.dense()), held)
    x = c.x()
    axes = c.axes(c.attr("perm") or range(x.rank)[::-1], x.rank)
    if len(axes) != x.rank:
        raise Malformed(f"an order {axes} of {x.rank} axes")
    return c.b.permute(x, axes)


def _concat(c: Call) -> Value:
    parts = c.all()
    if not parts:
        raise Malformed("it has no inputs")
    axis = c.axis(c.required("axis"), parts[0].rank)
    for part in parts[1:]:
        if part.rank != parts[0].rank or part.dtype is not parts[0].dtype:
            raise Malformed("its operands are of different types or numbers of axes")
        for a, (mine, its) in enumerate(zip(part.shape, parts[0].shape, strict=True)):
            if a != axis:
                c.require_equal(mine, its, f"axes {a} of tensors side by side")
    there = [p for p in parts if p.shape[axis] != 0]
    if len(there) < 2:
        return (there or parts)[0]
    total: Any = sum(p.shape[axis] for p in there)
    shape = (*parts[0].shape[:axis], simplify(total), *parts[0].shape[axis + 1 :])
    return c.b.emit(Cat(axis), *there, shape=shape)


def _split(place: int) -> Rule:
    def rule(c: Call) -> list[Value]:
        x, count = c.x(), c.results
        axis = c.axis(c.attr("axis", 0), x.rank)
        sizes: Any = c.attr("split")
        if sizes is None and place:
            sizes = c.dims(place, "sizes of parts")
        pieces = c.attr("num_outputs", count)
        if pieces != count:
            raise Malformed(f"{pieces} parts in {count} outputs")
        extent = x.shape[axis]
        if sizes is None:
            each = symbolic.ceil_div(extent, count)
            if isinstance(extent, int) and isinstance(each, int):
                sizes = [max(0, min(each, extent - i * each)) for i in range(count)]
            else:
                sizes = [each] * count
        if len(sizes) != count:
            raise Malformed(f"{len(sizes)} sizes of {count} parts")
        total: Any = sum(sizes)
        c.require_equal(simplify(total), extent, "parts and the whole")
        parts, start = [], 0
        for size in sizes:
            parts.append(c.b.slice(x, axis, start, size))
            start = simplify(start + size)
        return parts

    return rule


# Slices.

_FAR = 1 << 31


def _at_least_zero(size: Dim) -> Dim:
    return size if is_non_negative(size) else maximum((0, size))


def _at_most(size: Dim, extent: Dim) -> Dim:
    return size if is_non_negative(simplify(extent - size)) else minimum(size, extent)


def _bound(bound: Dim, extent: Dim) -> Dim:
    """A bound of a slice, in 0 .. extent."""
    if isinstance(bound, int):
        if bound >= _FAR:
            return extent
        if bound <= -_FAR:
            return 0
        if bound < 0:
            return _at_least_zero(simplify(extent + bound))
        return _at_most(bound, extent)
    if not is_non_negative(bound):
        if not is_non_negative(simplify(-bound)):
            raise Unsupported(f"a bound {bound} that may be negative or not")
        return _at_least_zero(simplify(extent + bound))
    return _at_most(bound, extent)


def _backward_bound(bound: Dim, extent: Dim) -> Dim:
    """A bound of a slice that runs backward, in -1 .. extent - 1."""
    if not isinstance(bound, int):
        raise Unsupported(f"the bound {bound} of a slice that runs backward")
    if bound >= _FAR:
        return simplify(extent - 1)
    if bound <= -_FAR:
        return -1
    if isinstance(extent, int):
        return min(max(bound + extent if bound < 0 else bound, -1), extent - 1)
    if bound < 0:
        return simplify(maximum((-1, simplify(extent + bound))))
    return minimum(bound, simplify(extent - 1))


def sliced(c: Call, x: Value, axis: int, start: Dim, end: Dim, step: int) -> Value:
    """A slice as Python has it, with bounds that may be sizes.

    Args:
        c: the node.
        x: the tensor.
        axis: not negative.
        start: as in Python.
        end: as in Python.
        step: not 0.
    """
    extent = x.shape[axis]
    if step == 0:
        raise Malformed("a step of 0")
    if step > 0:
        first = _bound(start, extent)
        count = symbolic.ceil_div(_at_least_zero(simplify(_bound(end, extent) - first)), step)
        return c.b.slice(x, axis, first, count, step)
    first, last = _backward_bound(start, extent), _backward_bound(end, extent)
    count = symbolic.ceil_div(_at_least_zero(simplify(first - last)), -step)
    (flipped,) = c.aten("flip", (x.dtype, x.shape), self=x, dims=[axis])
    return c.b.slice(flipped, axis, simplify(extent - 1 - first), count, -step)


def _slice_by_attributes(c: Call) -> Value:
    return _sliced_all(c, c.required("starts"), c.required("ends"), c.attr("axes"), None)


def _slice(c: Call) -> Value:
    starts, ends = c.dims(1, "a bound of a slice"), c.dims(2, "a bound of a slice")
    if starts is None or ends is None:
        raise Malformed("it lacks starts or ends")
    return _sliced_all(c, starts, ends, axes_of(c, 3), c.dims(4, "a step"))


def _sliced_all(
    c: Call,
    starts: Sequence[Dim],
    ends: Sequence[Dim],
    axes: Sequence[int] | None,
    steps: Sequence[Dim] | None,
) -> Value:
    x = c.x()
    axes = c.axes(axes if axes is not None else range(len(starts)), x.rank)
    steps = steps or [1] * len(axes)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Malformed("its bounds, axes and steps are not equally many")
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not isinstance(step, int):
            raise Unsupported(f"a step of {step}")
        x = sliced(c, x, axis, start, end, step)
    return x


# Larger ones.


def _expand(c: Call) -> Value:
    x, wanted = c.x(), c.dims(1, "a shape")
    if wanted is None:
        raise Malformed("it lacks a shape")
    return c.b.expand(x, c.broadcast_shapes(x.shape, tuple(wanted)))


def _tile(c: Call) -> Value:
    x, repeats = c.x(), c.dims(1, "repeats")
    if repeats is None or len(repeats) != x.rank:
        raise Malformed("as many repeats as axes are needed")
    if 0 in x.shape or 0 in repeats:
        raise Unsupported("repeats of no elements")
    shape = tuple(simplify(e * n) for e, n in zip(x.shape, repeats, strict=True))
    (y,) = c.aten("repeat", (x.dtype, shape), self=x, repeats=list(repeats))
    return y


def _pad_by_attributes(c: Call) -> Value:
    return _padded(c, c.required("pads"), c.attr("value", 0.0), None)


def _pad(c: Call) -> Value:
    pads = c.dims(1, "padding")
    if pads is None:
        raise Malformed("it lacks pads")
    value = c.number(2, "the value of padding")
    return _padded(c, pads, 0 if value is None else value, axes_of(c, 3))


def _padded(c: Call, pads: Sequence[Dim], value: float, axes: Sequence[int] | None) -> Value:
    x, mode = c.x(), c.attr("mode", "constant")
    axes = c.axes(axes if axes is not None else range(x.rank), x.rank)
    if len(pads) != 2 * len(axes):
        raise Malformed(f"{len(pads)} pads of {len(axes)} axes")
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for number, axis in enumerate(axes):
        before[axis], after[axis] = pads[number], pads[number + len(axes)]
    return padded(c, x, before, after, value, mode)


_TORCH_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
_TORCH_MODES["wrap"] = "circular"


def padded(
    c: Call,
    x: Value,
    before: Sequence[Dim],
    after: Sequence[Dim],
    value: float = 0,
    mode: str = "constant",
) -> Value:
    """A tensor with elements in front of and behind each axis; fewer where they are negative.

    Args:
        c: the node.
        x: the tensor.
        before: elements in front, of every axis.
        after: elements behind.
        value: of them in mode constant.
        mode: constant, reflect, edge or wrap.
    """
    if mode not in _TORCH_MODES:
        raise Malformed(f"the mode {mode} of padding")
    if all(n == 0 for n in (*before, *after)):
        return x
    shape = tuple(simplify(e + p + q) for e, p, q in zip(x.shape, before, after, strict=True))
    if any(isinstance(e, int) and e < 0 for e in shape):
        raise Malformed(f"padding to the shape {shape}")
    if mode != "constant":
        _check_mirrors(x, before, after, mode)
    held = c.b.cast(x, DType.U8) if x.dtype is DType.BOOL else x
    pairs = [n for p, q in zip(before[::-1], after[::-1], strict=True) for n in (p, q)]
    if not isinstance(value, int | float):
        value = float(value)
    given = {"self": held, "pad": pairs, "mode": _TORCH_MODES[mode]}
    given |= {"value": value} if mode == "constant" else {}
    (y,) = c.aten("pad", (held.dtype, shape), **given)
    return c.b.cast(y, x.dtype)


def _check_mirrors(x: Value, before: Sequence[Dim], after: Sequence[Dim], mode: str) -> None:
    for extent, *sides in zip(x.shape, before, after, strict=True):
        for side in sides:
            if not isinstance(side, int) or side < 0:
                raise Unsupported(f"padding in mode {mode} by {side}")
            most = {"reflect": extent - 1, "edge": math.inf, "wrap": extent}[mode]
            if isinstance(extent, int) and side > most:
                raise Unsupported(f"padding in mode {mode} by more than the {extent} elements")


def _depth_to_space(c: Call) -> Value:
    """[B, C, H, W] with blocks of channels as blocks of positions."""
    x, block = c.x(), c.required("blocksize")
    mode = c.attr("mode", "DCR")
    if x.rank != 4 or mode not in ("DCR", "CRD"):
        raise Malformed(f"mode {mode} of a tensor of {x.rank} axes")
    batch, channels, height, width = x.shape
    inner = symbolic.floor_div(channels, block * block)
    c.require_equal(simplify(inner * block * block), channels, "blocks and channels")
    split = (block, block, inner) if mode == "DCR" else (inner, block, block)
    y = c.b.reshape(x, (batch, *split, height, width))
    y = c.b.permute(y, (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3))
    return c.b.reshape(y, (batch, inner, simplify(height * block), simplify(width * block)))


def _space_to_depth(c: Call) -> Value:
    x, block = c.x(), c.required("blocksize")
    if x.rank != 4:
        raise Malformed(f"a tensor of {x.rank} axes")
    batch, channels, *sides = x.shape
    height, width = (_divided(c, side, block) for side in sides)
    y = c.b.reshape(x, (batch, channels, height, block, width, block))
    y = c.b.permute(y, (0, 3, 5, 1, 2, 4))
    return c.b.reshape(y, (batch, simplify(channels * block * block), height, width))


def _trilu(c: Call) -> Value:
    x, diagonal = c.x(), c.number(1, "the diagonal") or 0
    if x.rank < 2:
        raise Malformed(f"a tensor of {x.rank} axes")
    name = "triu" if c.attr("upper", 1) else "tril"
    return c.unary(name, x, diagonal=int(diagonal))


# From nothing.


def _constant(c: Call) -> Tensor:
    names = ("value", "value_float", "value_floats", "value_int", "value_ints")
    given = {name: c.attr(name) for name in names}
    (name, value), *others = [(n, v) for n, v in given.items() if v is not None] or [("", None)]
    if others or value is None:
        raise Unsupported("a constant that is no tensor and no number")
    if name != "value":
        kind = np.float32 if "float" in name else np.int64
        return Tensor.of(constant(np.array(value, kind)))
    dtype = DTYPES.get(value.data_type)
    if dtype is None:
        raise Unsupported(f"a constant of {type_name(value.data_type)}")
    array = c.array(value)
    return Tensor.of(Value(dtype, array.shape, data=array))


def _constant_of_shape(c: Call) -> Any:
    shape, value = c.dims(0, "a shape"), c.attr("value")
    if shape is None:
        raise Malformed("it lacks a shape")
    array: Array = np.zeros(1, np.float32) if value is None else c.array(value)
    dtype = DType.F32 if value is None else DTYPES.get(value.data_type)
    if dtype is None:
        raise Unsupported(f"a constant of {type_name(value.data_type)}")
    if array.size != 1:
        raise Malformed(f"a value of {array.size} elements")
    number = widen(array, dtype).reshape(()).item()
    return filled(tuple(shape), number, dtype, c.b)


def _range(c: Call) -> Value:
    given = [c.tensor(i) for i in range(3)]
    dtype = given[0].dtype
    if dtype.is_half:
        raise Unsupported(f"a range of {dtype.value}")
    if all(t.data is not None for t in given):
        low, high, each = (t.data.reshape(()) for t in given if t.data is not None)
        if not each:
            raise Malformed("steps of 0")
        count = max(math.ceil((high.item() - low.item()) / each.item()), 0)
        if count > _FAR:
            raise Malformed(f"{count} elements")
        wide = DType.F64 if dtype is DType.F32 else dtype
        made = low.astype(wide.numpy) + np.arange(count).astype(wide.numpy) * each
        return constant(made.astype(dtype.numpy))
    numbers = [None if t.elements is None else t.elements.reshape(()).item() for t in given]
    first, limit, step = numbers
    if None in numbers or not isinstance(step, int) or not isinstance(first, int | sympy.Basic):
        raise Unsupported("a range whose bounds data decide")
    length = symbolic.ceil_div(simplify(sympy.sympify(limit) - first), step)
    length = _at_least_zero(length)
    given_args = {"start": first, "end": limit, "step": step}
    return c.aten("arange.start_step", (dtype, (length,)), **given_args)[0]


def _eye_like(c: Call) -> Value:
    x = c.tensor()
    if x.rank != 2:
        raise Malformed(f"a tensor of {x.rank} axes")
    element = c.attr("dtype")
    dtype = x.dtype if element is None else DTYPES.get(element)
    if dtype is None:
        raise Unsupported(f"elements of {type_name(element)}")
    diagonal = scalar.index(0) + c.attr("k", 0)
    expr = scalar.apply("eq", diagonal, scalar.index(1))
    return c.b.pointwise(scalar.cast(expr, dtype), [], x.shape)


RULES: Table = merged(
    since(1, Shape=_shape, Size=_size),
    since(5, Reshape=_reshape),
    since(1, Flatten=_flatten, Transpose=_transpose, Constant=_constant),
    since(1, Squeeze=_squeeze(0), Unsqueeze=_unsqueeze(0)),
    since(13, Squeeze=_squeeze(1), Unsqueeze=_unsqueeze(1)),
    since(4, Concat=_concat),
    since(2, Split=_split(0)),
    since(13, Split=_split(1)),
    since(1, Slice=_slice_by_attributes),
    since(10, Slice=_slice),
    since(8, Expand=_expand),
    since(6, Tile=_tile),
    since(2, Pad=_pad_by_attributes),
    since(11, Pad=_pad),
    since(1, DepthToSpace=_depth_to_space, SpaceToDepth=_space_to_depth),
    since(14, Trilu=_trilu),
    since(9, ConstantOfShape=_constant_of_shape, EyeLike=_eye_like),
    since(11, Range=_range),
)
