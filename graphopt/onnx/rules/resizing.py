"""Resize and Upsample, grid samples.

What torch has too (nearest by floor, linear, cubic) goes by the rules of its ops, for any sizes.
Other modes are, along each axis of a known size, the product with a matrix of what each element of
the result takes of each of x.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from graphopt.ir import Dim, DType, Value, constant
from graphopt.ir.scalar import apply
from graphopt.ir.symbolic import simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Array
from graphopt.onnx.rules.products import matmul
from graphopt.onnx.rules.table import Table, merged, since
from graphopt.passes.lowering.builder import Unsupported

_MOST_EXTENT = 4096
"""Of an axis whose resize is a matrix."""


@dataclass(frozen=True)
class _Mode:
    """How an image gets another size.

    Attributes:
        kind: nearest, linear or cubic.
        place: coordinate_transformation_mode.
        rounding: of nearest.
        coefficient: of cubic.
        antialias: whether windows widen where an image gets smaller.
        exclude_outside: whether elements outside count nothing, in place of those at the edge.
        extrapolation: value outside, of `tf_crop_and_resize`.
    """

    kind: str
    place: str
    rounding: str
    coefficient: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float


def _upsample_by_attribute(c: Call) -> Value:
    return _scaled(c, c.required("scales"), _early_mode(c))


def _upsample(c: Call) -> Value:
    return _scaled(c, _scales(c, 1), _early_mode(c))


def _early_mode(c: Call) -> _Mode:
    """Before opset 11."""
    return _Mode(_kind(c), "asymmetric", "floor", -0.75, False, False, 0.0)


def _kind(c: Call) -> str:
    kind = c.attr("mode", "nearest")
    if kind not in ("nearest", "linear", "cubic"):
        raise Malformed(f"the mode {kind}")
    return str(kind)


def _scales(c: Call, place: int) -> list[float]:
    numbers = c.numbers(place, "scales")
    if numbers is None:
        raise Malformed("it lacks scales")
    return [float(n) for n in numbers.reshape(-1)]


def _scaled(c: Call, scales: Sequence[float], mode: _Mode) -> Value:
    x = c.x()
    if len(scales) != x.rank or any(not s > 0 for s in scales):
        raise Malformed(f"scales {list(scales)} of {x.rank} axes")
    sizes = [_scaled_size(e, s) for e, s in zip(x.shape, scales, strict=True)]
    return _resized(c, x, sizes, list(scales), mode, {})


def _scaled_size(extent: Dim, scale: float) -> Dim:
    """floor(extent * scale)."""
    if isinstance(extent, int):
        return math.floor(extent * np.float32(scale))
    exact = sympy.nsimplify(scale, rational=True)
    return simplify(sympy.floor(extent * exact))


def _resize_10(c: Call) -> Value:
    return _scaled(c, _scales(c, 1), _early_mode(c))


def _resize(c: Call) -> Value:
    x = c.x()
    mode = _Mode(
        _kind(c),
        c.attr("coordinate_transformation_mode", "half_pixel"),
        c.attr("nearest_mode", "round_prefer_floor"),
        c.attr("cubic_coeff_a", -0.75),
        bool(c.attr("antialias", 0)),
        bool(c.attr("exclude_outside", 0)),
        c.attr("extrapolation_value", 0.0),
    )
    axes = c.axes(c.attr("axes") or range(x.rank), x.rank)
    roi = c.given(1)
    region: dict[int, tuple[float, float]] = {}
    if mode.place == "tf_crop_and_resize" and roi is not None:
        numbers = c.numbers(1, "a region")
        assert numbers is not None
        half = len(numbers) // 2
        region = {a: (float(numbers[i]), float(numbers[half + i])) for i, a in enumerate(axes)}
    scales, wanted = c.given(2), c.given(3)
    factors: list[float | None] = [1.0] * x.rank
    sizes: list[Dim] = list(x.shape)
    if wanted is not None and wanted.shape != (0,):
        given = c.dims(3, "sizes")
        assert given is not None
        given = _kept_ratio(c, x, axes, given)
        for axis, size in zip(axes, given, strict=True):
            same = size == x.shape[axis]
            sizes[axis], factors[axis] = size, 1.0 if same else None
        if scales is not None and scales.shape != (0,):
            raise Malformed("it has both scales and sizes")
    else:
        for axis, scale in zip(axes, _scales(c, 2), strict=True):
            start, end = region.get(axis, (0.0, 1.0))
            extent = x.shape[axis]
            sizes[axis], factors[axis] = _scaled_size(extent, scale * (end - start)), scale
    c.harmless("keep_aspect_ratio_policy")
    return _resized(c, x, sizes, factors, mode, region)


def _kept_ratio(c: Call, x: Value, axes: Sequence[int], sizes: Sequence[Dim]) -> list[Dim]:
    policy = c.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(sizes)
    extents = [x.shape[a] for a in axes]
    if not all(isinstance(n, int) for n in (*extents, *sizes)):
        raise Unsupported(f"{policy} of sizes that vary")
    ratios = [n / e for n, e in zip(sizes, extents, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [math.floor(scale * e + 0.5) for e in extents]


def _resized(
    c: Call,
    x: Value,
    sizes: Sequence[Dim],
    factors: Sequence[float | None],
    mode: _Mode,
    region: dict[int, tuple[float, float]],
) -> Value:
    changed = [a for a, (e, n) in enumerate(zip(x.shape, sizes, strict=True)) if e != n]
    changed = changed if mode.place != "tf_crop_and_resize" else list(range(x.rank))
    changed = [a for a in range(x.rank) if a in changed or factors[a] not in (None, 1.0)]
    if not changed:
        return x
    if (y := _by_torch(c, x, sizes, factors, mode, changed)) is not None:
        return y
    whole = (0.0, 1.0)
    resizes = [_Resize.of(x, a, sizes[a], factors[a], mode, region.get(a, whole)) for a in changed]
    if mode.kind == "nearest":
        return functools.reduce(lambda y, resize: _nearest(c, y, resize), resizes, x)
    wide = c.b.cast(x, DType.F32)
    for resize in resizes:
        wide = _by_matrix(c, wide, resize)
    if not x.dtype.is_float:
        wide = c.b.apply(lambda v: apply("round", v), wide)
    return c.b.cast(wide, x.dtype)


_TORCH = {"linear": ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")}
_TORCH["nearest"] = ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
_TORCH["cubic"] = ("", "upsample_bicubic2d", "")


def _by_torch(
    c: Call,
    x: Value,
    sizes: Sequence[Dim],
    factors: Sequence[float | None],
    mode: _Mode,
    changed: Sequence[int],
) -> Value | None:
    """What torch has an op for: the axes behind batch and channels, at places that it knows."""
    axes = x.rank - 2
    corners = mode.place == "align_corners"
    places = {"nearest": ("asymmetric",)}.get(mode.kind, ("half_pixel", "align_corners"))
    if mode.place == "pytorch_half_pixel":
        places = (*places, "pytorch_half_pixel")
    if not 1 <= axes <= 3 or min(changed) < 2 or mode.place not in places or mode.antialias:
        return None
    if mode.kind == "nearest" and mode.rounding != "floor":
        return None
    if mode.kind == "cubic" and (mode.coefficient != -0.75 or mode.exclude_outside):
        return None
    if mode.place == "pytorch_half_pixel" and 1 in sizes[2:]:
        return None
    if not _TORCH[mode.kind][axes - 1] or x.dtype not in (DType.F32, DType.F16, DType.BF16):
        return None
    known = [f for f in factors[2:] if f is not None]
    if len(known) not in (0, axes):
        return None
    pairs = zip(sizes[2:], x.shape[2:], known or [1.0] * axes, strict=True)
    said = not known or all(isinstance(n, int) and n == e * f for n, e, f in pairs)
    if not said and corners:
        return None
    scales = None if said else list(known)  # a factor that the sizes do not say
    given: dict[str, Any] = {"input": x, "output_size": list(sizes[2:]), "scale_factors": scales}
    if mode.kind != "nearest":
        given["align_corners"] = corners
    name = f"{_TORCH[mode.kind][axes - 1]}.vec"
    return c.aten(name, (x.dtype, (*x.shape[:2], *sizes[2:])), **given)[0]


@dataclass(frozen=True)
class _Resize:
    """What becomes of one axis.

    Attributes:
        axis: number of the axis.
        extent: elements of x.
        size: elements of the result.
        scale: elements of the result for one of x, as the node says it.
        mode: how.
        region: start and end, of 1, of what `tf_crop_and_resize` takes.
    """

    axis: int
    extent: int
    size: int
    scale: float
    mode: _Mode
    region: tuple[float, float]

    @classmethod
    def of(
        cls,
        x: Value,
        axis: int,
        size: Dim,
        factor: float | None,
        mode: _Mode,
        region: tuple[float, float],
    ) -> _Resize:
        """Of an axis of a known size; without a factor, the sizes say it."""
        extent = x.shape[axis]
        if not (isinstance(extent, int) and isinstance(size, int)):
            what = f"{mode.kind} at {mode.place} along axis {axis}"
            raise Unsupported(f"{what} of a size that varies")
        if extent < 1 or size < 0:
            raise Malformed(f"a resize of {extent} elements to {size}")
        scale = factor if factor is not None else size / extent
        return cls(axis, extent, size, scale, mode, region)

    def places(self) -> list[float]:
        """Where in x each element of the result is."""
        places = [self._place(i) for i in range(self.size)]
        last = self.extent - 1
        if self.mode.place == "tf_crop_and_resize" and any(not 0 <= p <= last for p in places):
            raise Unsupported("a region beyond the image")
        return places

    def _place(self, i: int) -> float:
        place, scale, length = self.mode.place, self.scale, self.scale * self.extent
        if place == "half_pixel" or (place == "pytorch_half_pixel" and self.size > 1):
            return (i + 0.5) / scale - 0.5
        if place == "pytorch_half_pixel":
            return 0.0
        if place == "half_pixel_symmetric":
            adjustment = self.size / length
            return self.extent / 2 * (1 - adjustment) + (i + 0.5) / scale - 0.5
        if place == "asymmetric":
            return i / scale
        if place == "align_corners":
            return 0.0 if length == 1 else i * (self.extent - 1) / (length - 1)
        if place == "tf_crop_and_resize":
            (start, end), last = self.region, self.extent - 1
            if self.size == 1:
                return 0.5 * (start + end) * last
            return start * last + i * (end - start) * last / (self.size - 1)
        raise Unsupported(f"the places {place}")


_ROUNDS: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda v: math.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: math.floor(v + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def _nearest(c: Call, x: Value, resize: _Resize) -> Value:
    rounding, axis = resize.mode.rounding, resize.axis
    if rounding not in _ROUNDS:
        raise Malformed(f"the nearest_mode {rounding}")
    at = np.clip([_ROUNDS[rounding](p) for p in resize.places()], 0, resize.extent - 1)
    shape = (*x.shape[:axis], resize.size, *x.shape[axis + 1 :])
    given = {"self": x, "dim": axis, "index": constant(at.astype(np.int64))}
    return c.aten("index_select", (x.dtype, shape), **given)[0]


def _by_matrix(c: Call, x: Value, resize: _Resize) -> Value:
    if max(resize.extent, resize.size) > _MOST_EXTENT:
        raise Unsupported(f"{resize.mode.kind} of an axis of more than {_MOST_EXTENT} elements")
    matrix = np.zeros((resize.size, resize.extent))
    for row, place in zip(matrix, resize.places(), strict=True):
        _take(row, place, resize.scale, resize.mode)
    weight = constant(matrix.T.astype(np.float32))
    axes = [a for a in range(x.rank) if a != resize.axis] + [resize.axis]
    y = matmul(c, c.b.permute(x, axes), weight)
    return c.b.permute(y, [axes.index(a) for a in range(x.rank)])


def _take(row: Array, place: float, scale: float, mode: _Mode) -> None:
    """What an element of the result takes of each element of x."""
    extent = len(row)
    narrow = min(scale, 1.0) if mode.antialias else 1.0
    reach = (1 if mode.kind == "linear" else 2) / narrow
    first = math.floor(place - reach) + 1
    places = np.arange(first, math.floor(place + reach) + 1)
    distance = np.abs(places - place) * narrow
    weights = _linear(distance) if mode.kind == "linear" else _cubic(distance, mode.coefficient)
    if mode.exclude_outside:
        weights = np.where((places >= 0) & (places < extent), weights, 0)
    weights = weights / weights.sum()
    np.add.at(row, np.clip(places, 0, extent - 1), weights)


def _linear(distance: Array) -> Array:
    weights: Array = np.maximum(1 - distance, 0)
    return weights


def _cubic(distance: Array, a: float) -> Array:
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


_GRID_MODES = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
_GRID_PADS = {"zeros": 0, "border": 1, "reflection": 2}


def _grid_sample(c: Call) -> Value:
    x, grid = c.x(0), c.x(1)
    mode, pad = c.attr("mode", "linear"), c.attr("padding_mode", "zeros")
    if mode not in _GRID_MODES or pad not in _GRID_PADS:
        raise Malformed(f"the mode {mode} with {pad}")
    if x.rank not in (4, 5) or grid.rank != x.rank:
        raise Unsupported(f"samples of a tensor of {x.rank} axes")
    given = {"input": x, "grid": grid, "interpolation_mode": _GRID_MODES[mode]}
    given |= {"padding_mode": _GRID_PADS[pad], "align_corners": bool(c.attr("align_corners", 0))}
    shape = (*x.shape[:2], *grid.shape[1:-1])
    return c.aten(f"grid_sampler_{x.rank - 2}d", (x.dtype, shape), **given)[0]


RULES: Table = merged(
    since(7, Upsample=_upsample_by_attribute),
    since(9, Upsample=_upsample),
    since(10, Resize=_resize_10),
    since(11, Resize=_resize),
    since(16, GridSample=_grid_sample),
)
