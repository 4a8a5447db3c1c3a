"""Convolutions of any rank: with padding by word, without a batch axis, transposed.

1. Weights that are known and one or two axes: `go.conv`.
2. Three axes: the sum over the taps in depth of convolutions of the other two, whose batch is
   that of all depths.
3. Weights, or a number of groups, that are known at run time: the windows side by side, and a
   matmul for each group.
4. Transposed: position q * stride + phase of the result reads the inputs q - m, for all phases
   alike. So it is a convolution at stride 1 with filters for each phase, whose channels are then
   positions; filters that have no tap at some m have a zero there. Along one axis that is a view.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.ir import Dim, DType, Shape, Value, constant, scalar, symbolic
from graphopt.ir.ops import Cat, Conv, Matmul, Pad
from graphopt.ir.ops.contractions import positions
from graphopt.passes.lowering.builder import Builder, Unsupported, require_f32
from graphopt.passes.lowering.schema import Rule, rules

_MOST_AXES = 3


@dataclass(frozen=True)
class _Geometry:
    """Stride, zeros on both sides and distance of taps along each axis, and groups of channels."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: Dim

    def inner(self) -> _Geometry:
        """That of all axes but the first."""
        return replace(
            self, stride=self.stride[1:], padding=self.padding[1:], dilation=self.dilation[1:]
        )


def _convolution(b: Builder) -> Value:
    x, weight, bias = b.tensor("input"), b.tensor("weight"), b.arg("bias")
    require_f32("convolution", x, weight, bias)
    axes = weight.rank - 2
    if not 1 <= axes <= _MOST_AXES:
        raise Unsupported(f"{axes}-D convolution")
    if not all(isinstance(taps, int) for taps in weight.shape[2:]):
        raise Unsupported("convolution with a number of taps that varies")
    batched = x.rank == weight.rank
    if not batched:
        x = b.reshape(x, (1, *x.shape))
    geometry = _Geometry(
        _each(b.arg("stride", 1), axes),
        (0,) * axes,
        _each(b.arg("dilation", 1), axes),
        b.arg("groups", 1),
    )
    padding = b.arg("padding", 0)
    if b.arg("transposed", "conv_transpose" in b.op.target):
        extra = _each(b.arg("output_padding", 0), axes)
        geometry = replace(geometry, padding=_each(padding, axes))
        y = _transposed(b, x, weight, bias, geometry, extra)
    else:
        b.arg("output_padding")
        if padding == "same":
            before = [d * (k - 1) for d, k in zip(geometry.dilation, weight.shape[2:], strict=True)]
            if any(total % 2 for total in before):
                x = _padded(b, x, [t // 2 for t in before], [t - t // 2 for t in before])
                before = [0] * axes
            geometry = replace(geometry, padding=tuple(total // 2 for total in before))
        elif padding != "valid":
            geometry = replace(geometry, padding=_each(padding, axes))
        y = _convolved(b, x, weight, bias, geometry)
    return b.reshape(y, b.node.output.shape)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    items = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(items * axes if len(items) == 1 else items)


def _padded(b: Builder, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """Zeros around the axes behind batch and channels."""
    if not any((*before, *after)):
        return x
    extents = zip(x.shape[2:], before, after, strict=True)
    shape = (*x.shape[:2], *(symbolic.simplify(e + low + high) for e, low, high in extents))
    return b.emit(Pad((0, 0, *before), 0.0, shape), x)


def _convolved(
    b: Builder, x: Value, weight: Value, bias: Value | None, geometry: _Geometry
) -> Value:
    """The convolution of x [batch, channels, ...] with weights as torch has them."""
    if not weight.is_constant or not isinstance(geometry.groups, int):
        return _with_computed_weights(b, x, weight, bias, geometry)
    if weight.rank == 5:
        return _three_axes(b, x, weight, bias, geometry)
    stride, dilation = (_height_width(v, 1) for v in (geometry.stride, geometry.dilation))
    op = Conv(stride, _height_width(geometry.padding, 0), dilation, geometry.groups)
    return b.emit(op, x, weight, bias=bias)


def _height_width(each: tuple[int, ...], missing: int) -> tuple[int, int]:
    return (missing, each[0]) if len(each) == 1 else (each[0], each[1])


def _three_axes(
    b: Builder, x: Value, weight: Value, bias: Value | None, geometry: _Geometry
) -> Value:
    assert weight.data is not None
    stride, padding, dilation = geometry.stride[0], geometry.padding[0], geometry.dilation[0]
    depth = positions(x.shape[2], weight.shape[2], stride, padding, dilation)
    x = _padded(b, x, [padding, 0, 0], [padding, 0, 0])
    swapped = (0, 2, 1, 3, 4)
    total: Value | None = None
    for tap in range(len(weight.data[0, 0])):
        plane = b.permute(b.slice(x, 2, tap * dilation, depth, stride), swapped)
        plane = b.reshape(plane, (symbolic.product(plane.shape[:2]), *plane.shape[2:]))
        filters = constant(weight.data[:, :, tap], f"{weight.name}_depth{tap}")
        part = _convolved(b, plane, filters, None if total else bias, geometry.inner())
        total = part if total is None else _sum(b, total, part)
    assert total is not None, "torch refuses filters without taps"
    y = b.reshape(total, (x.shape[0], depth, *total.shape[1:]))
    return b.permute(y, swapped)


def _sum(b: Builder, left: Value, right: Value) -> Value:
    """Their sum, in the shape of the first."""
    operands = (scalar.operand(i, DType.F32) for i in range(2))
    return b.pointwise(scalar.apply("add", *operands), [left, right], left.shape)


def _plus_channels(b: Builder, y: Value, bias: Value | None) -> Value:
    """With one number added for each channel."""
    if bias is None:
        return y
    return _sum(b, y, b.reshape(bias, (*bias.shape, *[1] * (y.rank - 2))))


def _with_computed_weights(
    b: Builder, x: Value, weight: Value, bias: Value | None, geometry: _Geometry
) -> Value:
    axes, groups = x.rank - 2, geometry.groups
    taps = [int(k) for k in weight.shape[2:]]
    each = zip(x.shape[2:], taps, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    found = tuple(positions(*given) for given in each)
    x = _padded(b, x, geometry.padding, geometry.padding)
    outer, inner = symbolic.floor_div(weight.shape[0], groups), weight.shape[1]
    x = b.reshape(x, (x.shape[0], groups, inner, *x.shape[2:]))
    x = b.permute(x, (1, 0, *range(3, x.rank), 2))
    windows = []
    for tap in itertools.product(*(range(n) for n in taps)):
        window = x
        for axis in range(axes):
            start = tap[axis] * geometry.dilation[axis]
            window = b.slice(window, 2 + axis, start, found[axis], geometry.stride[axis])
        windows.append(window)
    rows = b.emit(Cat(2 + axes), *windows) if len(windows) > 1 else windows[0]
    depth = symbolic.simplify(math.prod(taps) * inner)
    rows = b.reshape(rows, (groups, symbolic.product((x.shape[1], *found)), depth))
    weight = b.reshape(weight, (groups, outer, *weight.shape[1:]))
    weight = b.permute(weight, (0, *range(3, weight.rank), 2, 1))
    y = b.emit(Matmul(), rows, b.reshape(weight, (groups, depth, outer)))
    y = b.reshape(y, (groups, x.shape[1], *found, outer))
    y = b.permute(y, (1, 0, 2 + axes, *range(2, 2 + axes)))
    y = b.reshape(y, (x.shape[1], symbolic.simplify(groups * outer), *found))
    return _plus_channels(b, y, bias)


def _transposed(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    geometry: _Geometry,
    extra: tuple[int, ...],
) -> Value:
    """The transposed convolution, which crops `padding` and adds `extra` behind each axis."""
    if weight.data is None or not isinstance(geometry.groups, int):
        raise Unsupported("transposed convolution with weights or groups computed at run time")
    axes, groups, stride = x.rank - 2, geometry.groups, geometry.stride
    filters, distances = _phase_filters(weight.data, geometry.stride, geometry.dilation, groups)
    reach = [(k - 1) * d for k, d in zip(filters.shape[2:], distances, strict=True)]
    behind: list[int] = []
    found: list[Dim] = []
    for axis in range(axes):
        span = geometry.dilation[axis] * (weight.data.shape[2 + axis] - 1)
        grown = extra[axis] - geometry.padding[axis]
        size = (x.shape[2 + axis] - 1) * stride[axis] + span + 1 + grown - geometry.padding[axis]
        found.append(symbolic.simplify(size))
        behind.append(max(0, (span % stride[axis] + grown) // stride[axis]))
    inside = reach
    if any(behind):
        x = _padded(b, x, reach, [r + more for r, more in zip(reach, behind, strict=True)])
        inside = [0] * axes
    plain = _Geometry((1,) * axes, tuple(inside), tuple(distances), groups)
    inside_bias = None
    if bias is not None and bias.data is not None:  # of every phase
        by_group = bias.data.reshape(groups, 1, -1)
        each = np.repeat(by_group, math.prod(stride), axis=1).reshape(-1)
        inside_bias, bias = constant(each, bias.name), None
    y = _convolved(b, x, constant(filters, weight.name), inside_bias, plain)
    y = _phases_to_positions(b, y, stride, groups)
    for axis in range(axes):
        y = b.slice(y, 2 + axis, geometry.padding[axis], found[axis])
    return _plus_channels(b, y, bias)


def _phase_filters(
    weight: Any, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> tuple[Any, list[int]]:
    """Filters [groups * phases * out, in, ...] at stride 1 and the distances of their taps.

    `weight` is [in, out / groups, ...]. Its tap k is at m = k * dilation // stride of the filters
    of phase k * dilation % stride; the first tap of a convolution reads the earliest input.
    """
    taps = weight.shape[2:]
    inner, outer = weight.shape[0] // groups, weight.shape[1]
    places = [
        [divmod(k * d, s) for k in range(count)]
        for count, s, d in zip(taps, stride, dilation, strict=True)
    ]
    distances = [math.gcd(*(m for m, _ in along)) or 1 for along in places]
    extents = [along[-1][0] // d + 1 for along, d in zip(places, distances, strict=True)]
    filters = np.zeros((groups, *stride, outer, inner, *extents), np.float32)
    by_group = weight.reshape(groups, inner, outer, *taps)
    for tap in itertools.product(*map(range, taps)):
        at = [along[k] for along, k in zip(places, tap, strict=True)]
        phase = tuple(p for _, p in at)
        step = [e - 1 - m // d for e, (m, _), d in zip(extents, at, distances, strict=True)]
        place: Any = (slice(None), *phase, slice(None), slice(None), *step)
        filters[place] = by_group[:, :, :, *tap].transpose(0, 2, 1)
    count = groups * math.prod(stride) * outer
    return filters.reshape(count, inner, *extents), distances


def _phases_to_positions(b: Builder, y: Value, stride: tuple[int, ...], groups: int) -> Value:
    """[batch, groups * phases * out, ...] as [batch, channels, ...] of `stride` times the size."""
    phases = math.prod(stride)
    if phases == 1:
        return y
    axes, batch, extents = len(stride), y.shape[0], y.shape[2:]
    outer = symbolic.floor_div(y.shape[1], groups * phases)
    y = b.permute(y, (0, *range(2, y.rank), 1))
    y = b.reshape(y, (batch, *extents, groups, *stride, outer))
    interleaved = [a for axis in range(axes) for a in (1 + axis, 2 + axes + axis)]
    y = b.permute(y, (0, *interleaved, 1 + axes, 2 + 2 * axes))
    larger: Shape = tuple(symbolic.simplify(e * s) for e, s in zip(extents, stride, strict=True))
    y = b.reshape(y, (batch, *larger, symbolic.simplify(groups * outer)))
    return b.permute(y, (0, 1 + axes, *range(1, 1 + axes)))


_NUMBERS = (
    "(Tensor input, Tensor weight, Tensor? bias=None, SymInt[{n}] stride={ones}, {padding}, "
    "SymInt[{n}] dilation={ones}, SymInt groups=1) -> Tensor"
)
_TRANSPOSED = (
    "(Tensor input, Tensor weight, Tensor? bias=None, SymInt[{n}] stride={ones}, "
    "SymInt[{n}] padding={zeros}, SymInt[{n}] output_padding={zeros}, SymInt groups=1, "
    "SymInt[{n}] dilation={ones}) -> Tensor"
)
_ANY = (
    "(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups"
)


def _schemas(axes: int) -> list[str]:
    """The schemas of a convolution: padding as numbers and as a word, and transposed."""
    given = {"n": axes, "ones": [1] * axes, "zeros": [0] * axes}
    zeros = f"SymInt[{axes}] padding={[0] * axes}"
    word = 'str padding="valid"'
    transposed = "" if axes == 1 else ".input"
    return [
        f"aten::conv{axes}d" + _NUMBERS.format(padding=zeros, **given),
        f"aten::conv{axes}d.padding" + _NUMBERS.format(padding=word, **given),
        f"aten::conv_transpose{axes}d{transposed}" + _TRANSPOSED.format(**given),
    ]


RULES: dict[str, Rule] = {
    **rules(
        _convolution,
        *(schema for axes in (1, 2, 3) for schema in _schemas(axes)),
        f"aten::convolution{_ANY}) -> Tensor",
        f"aten::_convolution{_ANY}, bool benchmark, bool deterministic, bool cudnn_enabled, "
        "bool allow_tf32) -> Tensor",
        implied="benchmark deterministic cudnn_enabled allow_tf32",
    ),
}
