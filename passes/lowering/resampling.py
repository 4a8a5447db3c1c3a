"""Images at other sizes and other places: interpolation between the elements around a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphopt.ir import Dim, DType, Value, scalar
from graphopt.ir.indices import (
    Place,
    clamped,
    every,
    inside,
    minus,
    place,
    plus,
    remainder,
    smaller,
)
from graphopt.ir.scalar import Scalar, apply
from graphopt.ir.symbolic import simplify
from graphopt.passes.lowering.builder import Builder, NotWidened, Unsupported
from graphopt.passes.lowering.loads import chosen, computed, element, here, loaded
from graphopt.passes.lowering.rearranging import repeated
from graphopt.passes.lowering.schema import Lowering, Rule, rules

#: An element along an axis, and what it counts.
Tap = tuple[Place, Scalar]


class _Real:
    """Arithmetic on places between elements, in f32, or f64 for tensors of that."""

    def __init__(self, x: Value) -> None:
        self.dtype = DType.F64 if x.dtype is DType.F64 else DType.F32

    def of(self, number: Place | float) -> Scalar:
        """A number, a size or an index as a float."""
        if isinstance(number, float):
            return scalar.const(number, self.dtype)
        return scalar.cast(place(number), self.dtype)

    def quotient(self, a: Dim, b: Dim) -> Scalar:
        """A / b of two sizes, rounded once."""
        if isinstance(a, int) and isinstance(b, int):
            kind = self.dtype.numpy.type
            return self.of(float(kind(a) / kind(b)))
        return apply("div", self.of(a), self.of(b))

    def at_least(self, x: Scalar, bound: float) -> Scalar:
        """X, or a number if it is below that; there is no `max` of f64."""
        if self.dtype is DType.F32:
            return apply("max", x, self.of(bound))
        return chosen(apply("lt", x, self.of(bound)), self.of(bound), x)

    def at_most(self, x: Scalar, bound: float) -> Scalar:
        """X, or a number if it is above that."""
        if self.dtype is DType.F32:
            return apply("min", x, self.of(bound))
        return chosen(apply("gt", x, self.of(bound)), self.of(bound), x)

    def whole(self, x: Scalar) -> Scalar:
        """A float without its fraction, as an index."""
        return scalar.cast(x, DType.I64)

    def step(self, size: Dim, out: Dim, corners: bool, factor: float | None) -> Scalar:
        """How far apart in x neighbours of the result are."""
        if corners:
            if out == 1:
                return self.of(0.0)
            between = self.quotient(simplify(size - 1), simplify(out - 1))
            if isinstance(out, int):
                return between
            return chosen(apply("gt", place(out), place(1)), between, self.of(0.0))
        return self.of(1.0 / factor) if factor else self.quotient(size, out)

    def source(self, axis: _Axis) -> Scalar:
        """The place in x of an element of the result, whose index is `index(0)`."""
        at, step = scalar.index(0), self.step(axis.size, axis.out, axis.corners, axis.factor)
        if axis.corners:
            return apply("mul", step, self.of(at))
        half = self.of(0.5)
        middle = apply("sub", apply("mul", step, apply("add", self.of(at), half)), half)
        if not axis.factor or (isinstance(axis.size, int) and isinstance(axis.out, int)):
            return middle
        # Torch leaves an axis alone that keeps its size, whatever the factor.
        return chosen(apply("eq", place(axis.size), place(axis.out)), self.of(at), middle)


def _factors(b: Builder, axes: int) -> list[float | None]:
    """The factor of every axis, None where the sizes say it."""
    if (given := b.arg("scale_factors")) is None:
        names = ["scales"] if axes == 1 else ["scales_d", "scales_h", "scales_w"][-axes:]
        given = [b.arg(name) for name in names]
    if any(not isinstance(f, float | int | None) for f in given):
        raise Unsupported("a scale factor made of sizes")
    return [f if f is not None and f > 0 else None for f in given]


def _image(b: Builder) -> Value:
    x = b.tensor("input") if isinstance(b.arg("input"), Value) else b.tensor()
    if 0 in x.shape:
        raise Unsupported("an image without elements")
    return x


class _Tables:
    """Operands of a loop over the result: a tensor, and what is computed once for all channels.

    Attributes:
        values: the operands; the tensor is the first.
    """

    def __init__(self, b: Builder, x: Value) -> None:
        self.b = b
        self.values = [x]

    def along(self, axis: int, extent: Dim, expr: Scalar) -> Scalar:
        """What depends on the index along one axis, `index(0)` in the expression."""
        table = self.b.pointwise(expr, [], (extent,))
        behind = self.values[0].rank - axis - 1
        return self._operand(self.b.reshape(table, (extent, *[1] * behind)))

    def at_points(self, grid: Value, expr: Scalar) -> Scalar:
        """What depends on a point of a grid [batch, ..., axes], operand 0 in the expression."""
        shape = (grid.shape[0], 1, *grid.shape[1:-1])
        return self._operand(self.b.pointwise(expr, [grid], shape))

    def _operand(self, value: Value) -> Scalar:
        self.values.append(value)
        return scalar.operand(len(self.values) - 1, value.dtype)


def _nearest(exact: bool) -> Lowering:
    def rule(b: Builder) -> Value:
        x, out = _image(b), b.node.output
        factors, real, tables = _factors(b, x.rank - 2), _Real(x), _Tables(b, x)
        sizes = list(zip(x.shape[2:], out.shape[2:], factors, strict=True))
        counts = [_power_of_two(size, wide, factor) for size, wide, factor in sizes]
        if all(counts):
            return repeated(b, x, [1, 1, *(count or 1 for count in counts)], behind=True)
        places: list[Place] = list(here(out.shape))
        for axis, (size, wide, factor) in enumerate(sizes, 2):
            if size == wide:
                continue
            at = scalar.index(0)
            middle = apply("add", real.of(at), real.of(0.5)) if exact else real.of(at)
            step = real.step(size, wide, False, factor)
            nearest = smaller(real.whole(apply("mul", middle, step)), minus(size, 1))
            if factor and not (isinstance(size, int) and isinstance(wide, int)):
                nearest = chosen(apply("eq", place(size), place(wide)), at, nearest)
            places[axis] = tables.along(axis, wide, nearest)
        return loaded(b, x, places, out.shape, *tables.values[1:])

    return rule


def _power_of_two(size: Dim, out: Dim, factor: float | None) -> int | None:
    """How often every element comes in a row, if that is a power of two."""
    if size == out:
        return 1
    for times in (2, 4, 8, 16):
        if simplify(size * times - out) == 0 and factor in (None, times):
            return times
    return None


@dataclass(frozen=True)
class _Axis:
    """An axis of an image that gets another size.

    Attributes:
        axis: its number.
        size: its extent in x.
        out: its extent in the result.
        corners: whether the first and last elements stay where they are.
        factor: how much longer it is said to become.
    """

    axis: int
    size: Dim
    out: Dim
    corners: bool
    factor: float | None


def _linear_taps(real: _Real, tables: _Tables, axis: _Axis) -> list[Tap]:
    source = real.source(axis)
    if not axis.corners:
        source = real.at_least(source, 0.0)
    first = smaller(real.whole(source), minus(axis.size, 1))
    behind = real.at_most(apply("sub", source, real.of(first)), 1.0)
    at, weight = (tables.along(axis.axis, axis.out, expr) for expr in (first, behind))
    second = smaller(plus(at, 1), minus(axis.size, 1))
    return [(at, apply("sub", real.of(1.0), weight)), (second, weight)]


def _cubic_taps(real: _Real, tables: _Tables, axis: _Axis) -> list[Tap]:
    source = real.source(axis)
    below = apply("floor", source)
    first = tables.along(axis.axis, axis.out, real.whole(below))
    weights = [
        tables.along(axis.axis, axis.out, weight)
        for weight in _cubic(real, apply("sub", source, below))
    ]
    return [(clamped(plus(first, n - 1), axis.size), w) for n, w in enumerate(weights)]


def _cubic(real: _Real, t: Scalar) -> list[Scalar]:
    """Weights of the four elements around a point between the second and third (a = -0.75)."""
    a, one = -0.75, real.of(1.0)

    def polynomial(s: Scalar, *coefficients: float) -> Scalar:
        value = real.of(coefficients[0])
        for c in coefficients[1:]:
            value = apply("add", apply("mul", value, s), real.of(c))
        return value

    def near(s: Scalar) -> Scalar:
        return polynomial(s, a + 2, -(a + 3), 0.0, 1.0)

    def far(s: Scalar) -> Scalar:
        return polynomial(s, a, -5 * a, 8 * a, -4 * a)

    rest = apply("sub", one, t)
    return [far(apply("add", t, one)), near(t), near(rest), far(apply("add", rest, one))]


def _weighted(taps: Sequence[Sequence[Tap]], value: Callable[[list[Place]], Scalar]) -> Scalar:
    """The sum of elements at all combinations of taps, axis in axis."""

    def along(axis: int, places: list[Place]) -> Scalar:
        if axis == len(taps):
            return value(places)
        if len(taps[axis]) == 1:
            return along(axis + 1, [*places, taps[axis][0][0]])
        total: Scalar | None = None
        for at, weight in taps[axis]:
            term = apply("mul", weight, along(axis + 1, [*places, at]))
            total = term if total is None else apply("add", total, term)
        assert total is not None, "an axis has taps"
        return total

    return along(0, [])


def _interpolated(of: Callable[[_Real, _Tables, _Axis], list[Tap]], at_once: bool) -> Lowering:
    """Interpolation along all axes at once, or along one after the other."""

    def rule(b: Builder) -> Value:
        x, out = _image(b), b.node.output
        if not x.dtype.is_float:
            raise Unsupported(f"interpolation of {x.dtype.value}")
        corners, factors = bool(b.arg("align_corners")), _factors(b, x.rank - 2)
        axes = [
            _Axis(n, x.shape[n], out.shape[n], corners, factor)
            for n, factor in enumerate(factors, 2)
            if x.shape[n] != out.shape[n]
        ]
        for group in [axes] if at_once else [[axis] for axis in axes]:
            x = _resized(b, x, group, of)
        return b.cast(x, out.dtype)

    return rule


def _resized(
    b: Builder, x: Value, axes: list[_Axis], of: Callable[[_Real, _Tables, _Axis], list[Tap]]
) -> Value:
    """X with other sizes along some axes; 16 bits become f32."""
    real, tables, shape = _Real(x), _Tables(b, x), list(x.shape)
    taps: list[list[Tap]] = [[(scalar.index(n), real.of(1.0))] for n in range(x.rank)]
    for axis in axes:
        taps[axis.axis], shape[axis.axis] = of(real, tables, axis), axis.out
    expr = _weighted(taps, lambda places: element(0, x, places))
    if (function := scalar.not_computable(expr)) is not None:
        raise Unsupported(function)
    return b.pointwise(expr, tables.values, tuple(shape))


_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def _grid_sampler(b: Builder) -> Value:
    """Elements around points, which lie between -1 and 1 along every axis."""
    x, grid, out = b.tensor("input"), b.tensor("grid"), b.node.output
    mode, padding = _MODES[b.arg("interpolation_mode")], _PADDINGS[b.arg("padding_mode")]
    corners = bool(b.arg("align_corners"))
    if x.dtype.is_half or grid.dtype.is_half:
        raise NotWidened(f"places in {grid.dtype.value}")
    if x.dtype is not DType.F32 or grid.dtype is not DType.F32 or 0 in (*x.shape, *grid.shape):
        raise Unsupported(f"a grid of {grid.dtype.value} into {x.dtype.value}")
    real, tables, sizes = _Real(x), _Tables(b, x), x.shape[2:]
    n, c, *at = here(out.shape)

    def bounded(point: Scalar, size: Dim) -> Scalar:
        return _bounded(real, point, size, padding, corners)

    def table(expr: Scalar) -> Scalar:
        return tables.at_points(grid, expr)

    taps: list[list[Tap]] = []
    for axis, size in enumerate(sizes):
        coordinate = element(0, grid, [n, *at, len(sizes) - 1 - axis])
        point = _unnormalized(real, coordinate, size, corners)
        if mode == "nearest":
            taps.append([(table(_rounded(real, bounded(point, size))), real.of(1.0))])
            continue
        point = point if mode == "bicubic" else bounded(point, size)
        below = apply("floor", point)
        behind = apply("sub", point, below)
        if mode == "bicubic":
            places = [bounded(apply("add", below, real.of(float(k - 1))), size) for k in range(4)]
            pairs = zip(map(real.whole, places), _cubic(real, behind), strict=True)
            taps.append([(table(p), table(w)) for p, w in pairs])
        else:
            first, weight = table(real.whole(below)), table(behind)
            taps.append([(first, apply("sub", real.of(1.0), weight)), (plus(first, 1), weight)])

    def value(places: list[Place]) -> Scalar:
        guards = [inside(place(p), size) for p, size in zip(places, sizes, strict=True)]
        return chosen(every(guards), element(0, x, [n, c, *places]), real.of(0.0))

    return computed(b, _weighted(taps, value), tables.values)


def _unnormalized(real: _Real, point: Scalar, size: Dim, corners: bool) -> Scalar:
    shifted, two = apply("add", point, real.of(1.0)), real.of(2.0)
    if corners:
        return apply("mul", apply("div", shifted, two), real.of(simplify(size - 1)))
    spread = apply("mul", shifted, real.of(size))
    return apply("div", apply("sub", spread, real.of(1.0)), two)


def _bounded(real: _Real, point: Scalar, size: Dim, padding: str, corners: bool) -> Scalar:
    """A point moved into the image, but for zeros around it."""
    if padding == "zeros":
        return point
    last = real.of(simplify(size - 1))
    if padding == "reflection":
        point = _reflected(real, point, size, corners)
    return apply("min", last, apply("max", point, real.of(0.0)))


def _reflected(real: _Real, point: Scalar, size: Dim, corners: bool) -> Scalar:
    """A point mirrored at the middle of the outermost elements, or at their outer edges."""
    low = real.of(0.0 if corners else -0.5)
    span = real.of(simplify(size - 1) if corners else size)
    if corners and size == 1:
        return real.of(0.0)
    distance = apply("abs", apply("sub", point, low))
    flips = apply("floor", apply("div", distance, span))
    rest = apply("sub", distance, apply("mul", flips, span))
    odd = apply("eq", remainder(real.whole(flips), 2), place(1))
    inner = apply("add", chosen(odd, apply("sub", span, rest), rest), low)
    if not corners or isinstance(size, int):
        return inner
    return chosen(apply("eq", place(size), place(1)), real.of(0.0), inner)


def _rounded(real: _Real, point: Scalar) -> Scalar:
    """The nearest index; of two, the even one."""
    below = apply("floor", point)
    behind, first = apply("sub", point, below), real.whole(below)
    half = real.of(0.5)
    odd = apply("eq", remainder(first, 2), place(1))
    up = apply("or", apply("gt", behind, half), apply("and", apply("eq", behind, half), odd))
    return plus(first, chosen(up, place(1), place(0)))


def _affine_grid(b: Builder) -> Value:
    """Points of a grid under an affine map."""
    theta, out, corners = b.tensor("theta"), b.node.output, bool(b.arg("align_corners"))
    if theta.dtype is not DType.F32:
        raise Unsupported(f"an affine map in {theta.dtype.value}")
    real = _Real(theta)
    n, *at, row = here(out.shape)
    sizes = out.shape[1:-1]
    total = element(0, theta, [n, row, len(sizes)])
    for column, (i, size) in enumerate(zip(reversed(at), reversed(sizes), strict=True)):
        point = _grid_point(real, i, size, corners)
        total = apply("add", total, apply("mul", point, element(0, theta, [n, row, column])))
    return computed(b, total, [theta])


def _grid_point(real: _Real, at: Scalar, size: Dim, corners: bool) -> Scalar:
    """A number from -1 to 1: from the middle of the first to that of the last, or edge to edge."""
    twice = plus(at, at) if corners else plus(plus(at, at), 1)
    steps = real.of(simplify(size - 1) if corners else size)
    point = apply("sub", apply("div", real.of(twice), steps), real.of(1.0))
    if not corners:
        return point
    if isinstance(size, int):
        return point if size > 1 else real.of(0.0)
    return chosen(apply("gt", place(size), place(1)), point, real.of(0.0))


_SIZE, _FACTORS = "SymInt[]? output_size", "float[]? scale_factors"


def _overloads(op: str, axes: int, corners: bool) -> tuple[str, str]:
    """Schemas with sizes or factors, and with sizes and factors axis by axis."""
    align = "bool align_corners, " if corners else ""
    letters = [""] if axes == 1 else [f"_{name}" for name in "dhw"[-axes:]]
    scales = ", ".join(f"float? scales{letter}=None" for letter in letters)
    return (
        f"aten::{op}{axes}d.vec(Tensor input, {_SIZE}, {align}{_FACTORS}) -> Tensor",
        f"aten::{op}{axes}d(Tensor self, SymInt[{axes}] output_size, {align}{scales}) -> Tensor",
    )


def _upsampling(lower: Lowering, op: str, axes: Sequence[int], corners: bool) -> dict[str, Rule]:
    schemas = [schema for n in axes for schema in _overloads(op, n, corners)]
    return rules(lower, *schemas, implied="output_size")


RULES: dict[str, Rule] = {
    **_upsampling(_nearest(exact=False), "upsample_nearest", (1, 2, 3), False),
    **_upsampling(_nearest(exact=True), "_upsample_nearest_exact", (1, 2, 3), False),
    **_upsampling(_interpolated(_linear_taps, True), "upsample_linear", (1,), True),
    **_upsampling(_interpolated(_linear_taps, True), "upsample_bilinear", (2,), True),
    **_upsampling(_interpolated(_linear_taps, True), "upsample_trilinear", (3,), True),
    **_upsampling(_interpolated(_cubic_taps, False), "upsample_bicubic", (2,), True),
    **{
        overload: rule
        for op in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
        for overload, rule in rules(
            _grid_sampler,
            f"aten::{op}(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, "
            "bool align_corners) -> Tensor",
        ).items()
    },
    **rules(
        _affine_grid,
        "aten::affine_grid_generator(Tensor theta, SymInt[] size, bool align_corners) -> Tensor",
        implied="size",
    ),
}
