"""Convolutions and pooling: windows along the axes behind batch and channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt.ir import Dim, DType, Shape, Value, constant, scalar, symbolic
from graphopt.ir.ops import Reduce
from graphopt.ir.scalar import apply
from graphopt.ir.symbolic import ceil_div, floor_div, is_non_negative, maximum, simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.rules.shapes import padded
from graphopt.onnx.rules.table import Rule, Table, merged, since
from graphopt.passes.lowering.builder import Unsupported


def _each(c: Call, name: str, axes: int, default: int = 1) -> list[int]:
    """A number for each spatial axis."""
    found = list(c.attr(name) or [default] * axes)
    if len(found) != axes or any(n < 1 for n in found):
        raise Malformed(f"{name} {found} of {axes} axes")
    return found


def window_pads(
    c: Call,
    extents: Sequence[Dim],
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[list[Dim], list[Dim]]:
    """Elements in front of and behind every spatial axis, by `pads` or `auto_pad`.

    Args:
        c: the node.
        extents: of the spatial axes.
        taps: of a window.
        stride: distance of windows.
        dilation: distance of taps.
    """
    axes = len(extents)
    pads, auto = c.attr("pads"), c.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = list(pads or [0] * (2 * axes))
        if len(pads) != 2 * axes:
            raise Malformed(f"{len(pads)} pads of {axes} axes")
        return pads[:axes], pads[axes:]
    if auto == "VALID":
        return [0] * axes, [0] * axes
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Malformed(f"auto_pad {auto}")
    before: list[Dim] = []
    after: list[Dim] = []
    for extent, k, s, d in zip(extents, taps, stride, dilation, strict=True):
        needed = simplify((ceil_div(extent, s) - 1) * s + (k - 1) * d + 1 - extent)
        total = needed if is_non_negative(needed) else maximum((0, needed))
        small = floor_div(total, 2)
        large = simplify(total - small)
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before, after


def _positions(extent: Dim, taps: int, stride: int, dilation: int, pads: Dim) -> Dim:
    """How many windows there are."""
    reach = (taps - 1) * dilation + 1
    found = simplify(floor_div(simplify(extent + pads - reach), stride) + 1)
    if isinstance(found, int) and found < 0:
        raise Malformed(f"windows of {reach} over {extent} elements")
    return found


def _convolution(c: Call) -> Value:
    x, weight, bias = c.x(0), c.x(1), c.optional(2)
    return convolved(c, x, weight, bias)


def _taps(c: Call, weight: Value) -> list[int]:
    """The extents of filters behind their channels, which are those that the node says."""
    taps = [k for k in weight.shape[2:] if isinstance(k, int)]
    if len(taps) != weight.rank - 2:
        raise Unsupported("filters with a number of taps that varies")
    if c.attr("kernel_shape", taps) != taps:
        raise Malformed(f"kernel_shape {c.attr('kernel_shape')} with filters of {taps}")
    return taps


def convolved(c: Call, x: Value, weight: Value, bias: Value | None, pad: float = 0) -> Value:
    """The convolution that the attributes of a node describe, with `pad` around x.

    Args:
        c: the node.
        x: [batch, channels, ...].
        weight: [filters, channels / groups, ...].
        bias: [filters], or None.
        pad: value around x.
    """
    axes = x.rank - 2
    if axes < 1 or weight.rank != x.rank:
        raise Malformed(f"filters of {weight.rank} axes for a tensor of {x.rank}")
    taps = _taps(c, weight)
    stride, dilation = _each(c, "strides", axes), _each(c, "dilations", axes)
    groups = c.attr("group", 1)
    if groups < 1:
        raise Malformed(f"{groups} groups")
    c.require_equal(x.shape[1], simplify(weight.shape[1] * groups), "channels and filters")
    if isinstance(weight.shape[0], int) and weight.shape[0] % groups:
        raise Malformed(f"{weight.shape[0]} filters in {groups} groups")
    before, after = window_pads(c, x.shape[2:], taps, stride, dilation)
    plain = before == after and all(isinstance(p, int) and p >= 0 for p in before) and pad == 0
    if not plain:
        x = padded(c, x, [0, 0, *before], [0, 0, *after], pad)
        before = [0] * axes
    found = [
        _positions(e, k, s, d, 2 * p)
        for e, k, s, d, p in zip(x.shape[2:], taps, stride, dilation, before, strict=True)
    ]
    given: dict[str, Any] = {"input": x, "weight": weight, "bias": bias, "stride": stride}
    given |= {"padding": before, "dilation": dilation, "transposed": False}
    given |= {"output_padding": [0] * axes, "groups": groups}
    return c.aten("convolution", (x.dtype, (x.shape[0], weight.shape[0], *found)), **given)[0]


def _transposed(c: Call) -> Value:
    x, weight, bias = c.x(0), c.x(1), c.optional(2)
    axes, groups = x.rank - 2, c.attr("group", 1)
    if axes < 1 or weight.rank != x.rank or groups < 1:
        raise Malformed(f"filters of {weight.rank} axes for a tensor of {x.rank}")
    taps = _taps(c, weight)
    stride, dilation = _each(c, "strides", axes), _each(c, "dilations", axes)
    extra = list(c.attr("output_padding") or [0] * axes)
    c.require_equal(x.shape[1], weight.shape[0], "channels and filters")
    whole = [
        simplify((e - 1) * s + (k - 1) * d + 1 + more)
        for e, s, k, d, more in zip(x.shape[2:], stride, taps, dilation, extra, strict=True)
    ]
    before, after = _crops(c, x.shape[2:], stride, whole)
    channels = simplify(weight.shape[1] * groups)
    given: dict[str, Any] = {"input": x, "weight": weight, "bias": bias, "stride": stride}
    given |= {"padding": [0] * axes, "dilation": dilation, "transposed": True}
    given |= {"output_padding": extra, "groups": groups}
    (y,) = c.aten("convolution", (x.dtype, (x.shape[0], channels, *whole)), **given)
    for axis, (first, last) in enumerate(zip(before, after, strict=True), 2):
        if not (is_non_negative(first) and is_non_negative(last)):
            raise Unsupported("a transposed convolution that pads its result")
        y = c.b.slice(y, axis, first, simplify(y.shape[axis] - first - last))
    return y


def _crops(
    c: Call, extents: Sequence[Dim], stride: Sequence[int], whole: Sequence[Dim]
) -> tuple[list[Dim], list[Dim]]:
    """What a transposed convolution leaves out on both sides of every axis."""
    axes = len(extents)
    auto, wanted = c.attr("auto_pad", "NOTSET"), c.attr("output_shape")
    if wanted is None and auto in ("NOTSET", "", "VALID"):
        pads = list(c.attr("pads") or [0] * (2 * axes))
        if len(pads) != 2 * axes:
            raise Malformed(f"{len(pads)} pads of {axes} axes")
        return (pads[:axes], pads[axes:]) if auto != "VALID" else ([0] * axes, [0] * axes)
    c.harmless("pads")
    sizes = list(wanted or (simplify(e * s) for e, s in zip(extents, stride, strict=True)))
    before: list[Dim] = []
    after: list[Dim] = []
    for size, there in zip(sizes[-axes:], whole, strict=True):
        total = simplify(there - size)
        half = floor_div(total, 2)
        first, last = (half, simplify(total - half))
        before.append(last if auto == "SAME_LOWER" or auto != "SAME_UPPER" else first)
        after.append(first if auto == "SAME_LOWER" or auto != "SAME_UPPER" else last)
    return before, after


# Pooling.


def _windows(c: Call, x: Value) -> tuple[list[int], list[int], list[int], list[Dim], list[Dim]]:
    """Taps, strides, dilation and what is in front of and behind x."""
    axes = x.rank - 2
    if axes < 1:
        raise Malformed(f"pooling of a tensor of {x.rank} axes")
    if axes > 3:
        raise Unsupported(f"pooling along {axes} axes")
    taps = list(c.required("kernel_shape"))
    if len(taps) != axes or any(k < 1 for k in taps):
        raise Malformed(f"windows {taps} of {axes} axes")
    stride, dilation = _each(c, "strides", axes), _each(c, "dilations", axes)
    before, after = window_pads(c, x.shape[2:], taps, stride, dilation)
    return taps, stride, dilation, before, after


def _found(
    c: Call,
    x: Value,
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[Dim],
    after: Sequence[Dim],
) -> list[Dim]:
    """How many windows there are along each axis; with `ceil_mode` also one that juts out."""
    up, found = c.attr("ceil_mode", 0), []
    for e, k, s, d, p, q in zip(x.shape[2:], taps, stride, dilation, before, after, strict=True):
        if not up:
            found.append(_positions(e, k, s, d, simplify(p + q)))
            continue
        count = simplify(ceil_div(simplify(e + p + q - (k - 1) * d - 1), s) + 1)
        starts = simplify((count - 1) * s - e - p)
        if isinstance(starts, int):
            count = simplify(count - 1) if starts >= 0 else count
        elif is_non_negative(starts):
            count = simplify(count - 1)
        elif not is_non_negative(simplify(-starts - 1)):
            most = simplify(floor_div(simplify(e + p - 1), s) + 1)
            count = symbolic.minimum(count, most)
        found.append(count)
    return found


def _max_pool(c: Call) -> list[Value]:
    x = c.x()
    taps, stride, dilation, before, after = _windows(c, x)
    found = _found(c, x, taps, stride, dilation, before, after)
    axes, half = x.rank - 2, x.dtype.is_half
    if c.attr("storage_order", 0) and c.wants(1):
        raise Unsupported("indices in column-major order")
    least = -math.inf if x.dtype.is_float else int(np.iinfo(x.dtype.numpy).min)
    held = c.b.cast(x, DType.F32) if half else x
    front = before
    ints = all(isinstance(p, int) for p in before)
    if c.wants(1) and not ints:
        raise Unsupported("indices beside padding that sizes decide")
    reach = [(k - 1) * d + 1 for k, d in zip(taps, dilation, strict=True)]
    if not ints or any(p > r // 2 for p, r in zip(before, reach, strict=True)):
        if c.wants(1):
            raise Unsupported("indices beside padding wider than half a window")
        held = padded(c, held, [0, 0, *before], [0, 0, *after], least)
        front = [0] * axes
    given: dict[str, Any] = {"self": held, "kernel_size": taps, "stride": stride}
    given |= {"padding": front, "dilation": dilation}
    shape = (*x.shape[:2], *found)
    name = f"max_pool{axes}d" + ("_with_indices" if c.wants(1) else "")
    outs = [(held.dtype, shape), (DType.I64, shape)][: 2 if c.wants(1) else 1]
    y, *places = c.aten(name, *outs, **given)
    y = c.b.cast(y, x.dtype)
    return [y, _in_whole(c, places[0], x.shape)] if places else [y]


def _in_whole(c: Call, places: Value, shape: Shape) -> Value:
    """Places in one channel as those in the whole tensor."""
    plane = symbolic.product(shape[2:])

    def size(extent: Dim) -> Any:
        return scalar.const(extent, DType.I64) if isinstance(extent, int) else scalar.size(extent)

    channel = scalar.index(0) * size(shape[1]) + scalar.index(1)
    expr = scalar.operand(0, DType.I64) + channel * size(plane)
    return c.b.pointwise(expr, [places], places.shape)


def _average_pool(c: Call) -> Value:
    x = c.x()
    taps, stride, dilation, before, after = _windows(c, x)
    found = _found(c, x, taps, stride, dilation, before, after)
    counts = bool(c.attr("count_include_pad", 0))
    wide = c.b.cast(x, DType.F32) if x.dtype.is_half else x
    even = before == after and all(isinstance(p, int) for p in before)
    small = even and all(2 * p <= k for p, k in zip(before, taps, strict=True))
    if small and all(d == 1 for d in dilation):
        return c.b.cast(_averaged(c, wide, taps, stride, before, found, counts), x.dtype)
    if any(d != 1 for d in dilation):
        raise Unsupported("averages of windows with gaps")
    ones = constant(np.ones((), wide.dtype.numpy))
    ones = c.b.expand(ones, (1, 1, *x.shape[2:]))
    around = ([0, 0, *before], [0, 0, *after])
    none = [0] * (x.rank - 2)
    ones = padded(c, ones, *around, 1) if counts else padded(c, ones, *around)
    parts = [
        _averaged(c, v, taps, stride, none, found, True) for v in (padded(c, wide, *around), ones)
    ]
    return c.b.cast(c.b.apply(lambda v, n: v / n, *parts), x.dtype)


def _averaged(
    c: Call,
    x: Value,
    taps: list[int],
    stride: list[int],
    padding: Sequence[Dim],
    found: Sequence[Dim],
    counts: bool,
) -> Value:
    given: dict[str, Any] = {"self": x, "kernel_size": taps, "stride": stride}
    given |= {"padding": list(padding), "ceil_mode": False, "count_include_pad": counts}
    name = f"avg_pool{len(taps)}d"
    return c.aten(name, (x.dtype, (*x.shape[:2], *found)), **given)[0]


def _lp_pool(c: Call) -> Value:
    """The p-norm of the elements in each window."""
    x, p = c.x(), float(c.attr("p", 2))
    taps, stride, dilation, before, after = _windows(c, x)
    if any(d != 1 for d in dilation):
        raise Unsupported("norms of windows with gaps")
    found = _found(c, x, taps, stride, dilation, before, after)
    powers = _powers(c, x, p)
    powers = padded(c, powers, [0, 0, *before], [0, 0, *after])
    means = _averaged(c, powers, taps, stride, [0] * (x.rank - 2), found, True)
    count = math.prod(taps)
    total = c.b.apply(lambda v: v * count, means)
    return c.b.apply(lambda v: apply("pow", v, scalar.const(1 / p, v.dtype)), total)


def _powers(c: Call, x: Value, p: float) -> Value:
    sizes = c.unary("abs", x)
    return c.b.apply(lambda v: apply("pow", v, scalar.const(p, v.dtype)), sizes)


def _over_all(kind: str) -> Rule:
    """Of all elements of a channel."""

    def rule(c: Call) -> Value:
        x = c.x()
        if x.rank < 3:
            raise Malformed(f"pooling of a tensor of {x.rank} axes")
        held = c.b.cast(x, DType.F32) if x.dtype.is_half else x
        return c.b.cast(c.b.emit(Reduce(kind, tuple(range(2, x.rank))), held), x.dtype)

    return rule


def _global_lp(c: Call) -> Value:
    x, p = c.x(), float(c.attr("p", 2))
    total = c.b.emit(Reduce("sum", tuple(range(2, x.rank))), _powers(c, x, p))
    return c.b.apply(lambda v: apply("pow", v, scalar.const(1 / p, v.dtype)), total)


RULES: Table = merged(
    since(1, Conv=_convolution, ConvTranspose=_transposed),
    since(1, MaxPool=_max_pool),
    since(7, AveragePool=_average_pool),
    since(2, LpPool=_lp_pool),
    since(1, GlobalAveragePool=_over_all("mean"), GlobalMaxPool=_over_all("max")),
    since(2, GlobalLpPool=_global_lp),
)
