"""Elements in another order or several times: flips, rolls, repeats, diagonals, windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.ir import Dim, Shape, Value, scalar
from graphopt.ir.indices import every, inside, minus, place, plus, quotient, remainder, times
from graphopt.ir.ops import Cat
from graphopt.ir.symbolic import floor_div, product, simplify
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.loads import chosen, computed, current, element, here, loaded, number
from graphopt.passes.lowering.operands import Operands
from graphopt.passes.lowering.schema import Lowering, Rule, rules

#: Of a window; a term is written for each.
_MOST_TAPS = 64


def _flipped(b: Builder, x: Value, axes: list[int]) -> Value:
    places = [
        minus(simplify(x.shape[a] - 1), i) if a in axes else i for a, i in enumerate(here(x.shape))
    ]
    return loaded(b, x, places, x.shape) if axes else x


def _flip(b: Builder) -> Value:
    x = b.tensor()
    return _flipped(b, x, [axis_of(x, a) for a in b.arg("dims")])


def _flip_along(axis: int) -> Lowering:
    return lambda b: _flipped(b, b.tensor(), [axis])


def _roll(b: Builder) -> Value:
    """Every shift is less than the extent, counted from the front."""
    x, shifts, dims = b.tensor(), b.arg("shifts"), b.arg("dims", [])
    if not dims:
        flat = b.reshape(x, (product(x.shape),))
        return b.reshape(_rolled(b, flat, {0: shifts[0]}), x.shape)
    along: dict[int, Dim] = {}
    for shift, axis in zip(shifts, dims, strict=True):
        axis = axis_of(x, axis)
        along[axis] = simplify(along.get(axis, 0) + shift)
    return _rolled(b, x, along)


def _rolled(b: Builder, x: Value, along: dict[int, Dim]) -> Value:
    places = here(x.shape)
    for axis, shift in along.items():
        extent = x.shape[axis]
        if extent == 0:
            return x
        shift = simplify(shift - extent * floor_div(shift, extent))
        if shift != 0:
            places[axis] = scalar.wrap(minus(places[axis], shift), extent)
    return loaded(b, x, places, x.shape)


def _rot90(b: Builder) -> Value:
    x, turns = b.tensor(), b.arg("k", 1) % 4
    first, second = (axis_of(x, a) for a in b.arg("dims", [0, 1]))
    if turns == 2:
        return _flipped(b, x, [first, second])
    if turns % 2:
        axes = list(range(x.rank))
        axes[first], axes[second] = second, first
        x = _flipped(b, b.permute(x, axes), [first if turns == 1 else second])
    return x


def _repeat(b: Builder) -> Value:
    """Copies side by side along every axis."""
    x, out = b.tensor(), b.node.output
    given = b.arg("repeats")
    counts = list(b.arg("dims") if given is None else given)
    counts = [1] * (out.rank - len(counts)) + counts
    x = b.reshape(x, (1,) * (out.rank - x.rank) + x.shape)
    return repeated(b, x, counts, behind=False)


def _repeat_interleave(b: Builder) -> Value:
    """Every element several times in a row."""
    x, count, dim = b.tensor(), b.arg("repeats"), b.arg("dim")
    if dim is None or x.rank == 0:
        x = b.reshape(x, (product(x.shape),))
    counts: list[Dim] = [1] * x.rank
    counts[axis_of(x, dim or 0)] = count
    return repeated(b, x, counts, behind=True)


def repeated(b: Builder, x: Value, counts: list[Dim], behind: bool) -> Value:
    """X several times along its axes, in the shape of what is lowered.

    Args:
        b: gets the nodes, which are views.
        x: has as many axes as the result.
        counts: how often, for each axis.
        behind: whether every element comes `count` times in a row, or the whole.
    """
    if 0 in counts:
        raise Unsupported("no copies")
    out, apart, wide = b.node.output, list[Dim](), list[Dim]()
    for count, extent in zip(counts, x.shape, strict=True):
        if count == 1:
            apart, wide = [*apart, extent], [*wide, extent]
        else:
            apart += [extent, 1] if behind else [1, extent]
            wide += [extent, count] if behind else [count, extent]
    return b.reshape(b.expand(b.reshape(x, tuple(apart)), tuple(wide)), out.shape)


def _triangle(lower: bool) -> Lowering:
    def rule(b: Builder) -> Value:
        x, offset = b.tensor(), b.arg("diagonal", 0)
        row, column = here(x.shape)[-2:]
        keeps = scalar.apply("le" if lower else "ge", column, plus(row, offset))
        return computed(b, chosen(keeps, current(0, x), number(0, x.dtype)), [x])

    return rule


def _identity_matrix(b: Builder) -> Value:
    row, column = here(b.node.output.shape)
    return computed(b, scalar.apply("eq", row, column), [])


def _diagonal(b: Builder, x: Value, offset: int, rows: int, columns: int) -> Value:
    """Elements of which column and row differ by an offset, along the last axis."""
    *kept, last = here(b.node.output.shape)
    places = []
    for axis in range(x.rank):
        moved = {rows: max(-offset, 0), columns: max(offset, 0)}
        places.append(plus(last, moved[axis]) if axis in moved else kept.pop(0))
    return loaded(b, x, places, b.node.output.shape)


def _diagonal_of(tensor: str, dims: tuple[int, int]) -> Lowering:
    def rule(b: Builder) -> Value:
        x = b.tensor(tensor)
        rows, columns = (axis_of(x, b.arg(f"dim{n + 1}", dims[n])) for n in range(2))
        return _diagonal(b, x, b.arg("offset", 0), rows, columns)

    return rule


def _on_diagonal(b: Builder, x: Value, offset: int, rows: int, columns: int) -> Value:
    """X along a diagonal of zeros."""
    out = b.node.output
    places = here(out.shape)
    row, column = places[rows], places[columns]
    others = [i for axis, i in enumerate(places) if axis not in (rows, columns)]
    there = element(0, x, [*others, plus(row, min(offset, 0))])
    meets = scalar.apply("eq", column, plus(row, offset))
    if 0 in x.shape:
        return computed(b, number(0, x.dtype), [])
    return computed(b, chosen(meets, there, number(0, x.dtype)), [x])


def _diag_embed(b: Builder) -> Value:
    out = b.node.output
    rows, columns = (axis_of(out, b.arg(f"dim{n}", n - 3)) for n in (1, 2))
    return _on_diagonal(b, b.tensor(), b.arg("offset", 0), rows, columns)


def _diag(b: Builder) -> Value:
    x, offset = b.tensor(), b.arg("diagonal", 0)
    return (_on_diagonal if x.rank == 1 else _diagonal)(b, x, offset, 0, 1)


def _diagflat(b: Builder) -> Value:
    x = b.tensor()
    return _on_diagonal(b, b.reshape(x, (product(x.shape),)), b.arg("offset", 0), 0, 1)


def _unfold(b: Builder) -> Value:
    """Windows along an axis; the elements of a window are the last axis."""
    x, out = b.tensor(), b.node.output
    dimension, step = b.arg("dimension"), b.arg("step")
    *places, within = here(out.shape)
    if x.rank == 0:
        return b.reshape(x, out.shape)
    axis = axis_of(x, dimension)
    places[axis] = plus(times(places[axis], step), within)
    return loaded(b, x, places, out.shape)


def _pair(given: list[int]) -> list[int]:
    return list(given) * 2 if len(given) == 1 else list(given)


@dataclass(frozen=True)
class _Windows:
    """Windows of an image: for both of its axes what the arguments say, and how many there are."""

    kernel: list[int]
    dilation: list[int]
    padding: list[int]
    stride: list[int]
    counts: list[Dim]

    @classmethod
    def of(cls, b: Builder, extents: Sequence[Dim]) -> _Windows:
        """Those of an image of these extents."""
        kernel, dilation, padding, stride = (
            _pair(b.arg(name)) for name in ("kernel_size", "dilation", "padding", "stride")
        )
        counts = [
            simplify(floor_div(simplify(extent + 2 * p - (d * (k - 1) + 1)), step) + 1)
            for extent, k, d, p, step in zip(
                extents, kernel, dilation, padding, stride, strict=True
            )
        ]
        return cls(kernel, dilation, padding, stride, counts)


def _im2col(b: Builder) -> Value:
    """Windows of images: taps with the channels, places of windows as the last axis."""
    x, out = b.tensor(), b.node.output
    if 0 in x.shape:
        raise Unsupported("windows of an image without elements")
    image = x if x.rank == 4 else b.reshape(x, (1, *x.shape))
    windows = _Windows.of(b, image.shape[2:])
    shape: Shape = (*image.shape[:2], *windows.kernel, *windows.counts)
    n, c, *taps, first, second = here(shape)
    places = [
        minus(plus(times(at, s), times(tap, d)), p)
        for at, tap, s, d, p in zip(
            (first, second), taps, windows.stride, windows.dilation, windows.padding, strict=True
        )
    ]
    if not any(windows.padding):
        return b.reshape(loaded(b, image, [n, c, *places], shape), out.shape)
    guards = [inside(i, e) for i, e in zip(places, image.shape[2:], strict=True)]
    expr = chosen(every(guards), element(0, image, [n, c, *places]), number(0, x.dtype))
    return b.reshape(b.pointwise(scalar.cast(expr, x.dtype), [image], shape), out.shape)


def _col2im(b: Builder) -> Value:
    """The sum of the windows over each pixel; windows side by side are only put in order."""
    x, out = b.tensor(), b.node.output
    if 0 in x.shape:
        raise Unsupported("an image of windows without elements")
    channels, *size = out.shape[-3:]
    image: Shape = (x.shape[0] if x.rank == 3 else 1, channels, *size)
    windows = _Windows.of(b, size)
    kernel, stride = windows.kernel, windows.stride
    if product(kernel) > _MOST_TAPS:
        raise Unsupported(f"an image of windows of more than {_MOST_TAPS} pixels")
    parts = b.reshape(x, (*image[:2], *kernel, *windows.counts))
    covered = [simplify(n * s) for n, s in zip(windows.counts, stride, strict=True)]
    if kernel == stride and windows.dilation == [1, 1] and covered == size:
        return b.reshape(b.permute(parts, (0, 1, 4, 2, 5, 3)), out.shape)
    n, c, *at = here(image)
    total = None
    for taps in itertools.product(*map(range, kernel)):
        moved = [
            minus(plus(i, p), d * tap)
            for i, p, d, tap in zip(at, windows.padding, windows.dilation, taps, strict=True)
        ]
        places = [quotient(i, s) for i, s in zip(moved, stride, strict=True)]
        guards = [inside(i, count) for i, count in zip(places, windows.counts, strict=True)]
        guards += [
            scalar.apply("eq", remainder(i, s), place(0))
            for i, s in zip(moved, stride, strict=True)
            if s > 1
        ]
        term = chosen(every(guards), element(0, parts, [n, c, *taps, *places]), number(0, x.dtype))
        total = term if total is None else scalar.apply("add", total, term)
    assert total is not None, "a window has a pixel"
    return b.reshape(b.pointwise(scalar.cast(total, x.dtype), [parts], image), out.shape)


def _pixel_shuffle(b: Builder) -> Value:
    """Channels of a block of pixels become the block."""
    x, r = b.tensor(), b.arg("upscale_factor")
    *batch, channels, height, width = x.shape
    parts = b.reshape(x, (*batch, floor_div(channels, r * r), r, r, height, width))
    k = len(batch)
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    return b.reshape(b.permute(parts, order), b.node.output.shape)


def _pixel_unshuffle(b: Builder) -> Value:
    x, r = b.tensor(), b.arg("downscale_factor")
    *batch, channels, height, width = x.shape
    parts = b.reshape(x, (*batch, channels, floor_div(height, r), r, floor_div(width, r), r))
    k = len(batch)
    order = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    return b.reshape(b.permute(parts, order), b.node.output.shape)


def _channel_shuffle(b: Builder) -> Value:
    x, groups = b.tensor(), b.arg("groups")
    batch, channels, *rest = x.shape
    parts = b.reshape(x, (batch, groups, floor_div(channels, groups), *rest))
    return b.reshape(b.permute(parts, (0, 2, 1, *range(3, parts.rank))), x.shape)


def _meshgrid(b: Builder) -> list[Value]:
    tensors, outputs = b.arg("tensors"), b.node.outputs
    order = list(range(len(tensors)))
    if b.arg("indexing", "ij") == "xy":
        order[:2] = order[:2][::-1]
    grids = []
    for x, out, along in zip(tensors, outputs, order, strict=True):
        row = tuple(product(x.shape) if axis == along else 1 for axis in range(out.rank))
        grids.append(b.expand(b.reshape(x, row), out.shape))
    return grids


def _outer(b: Builder) -> Value:
    operands, left, right = Operands(b), b.tensor(), b.tensor("vec2")
    column = operands.read(b.reshape(left, (left.shape[0], 1)))
    return operands.emit(scalar.apply("mul", column, operands.read(right)))


def _kronecker(b: Builder) -> Value:
    """Every element of one times the whole of the other."""
    x, y, out = b.tensor(), b.tensor("other"), b.node.output
    x, y = (b.cast(v, out.dtype) for v in (x, y))
    x, y = (b.reshape(v, (1,) * (out.rank - v.rank) + v.shape) for v in (x, y))
    apart = tuple(e for pair in zip(x.shape, y.shape, strict=True) for e in pair)
    left, right = (
        tuple(e if axis % 2 == side else 1 for axis, e in enumerate(apart)) for side in (0, 1)
    )
    factors = [b.reshape(x, left), b.reshape(y, right)]
    expr = scalar.apply("mul", *(current(n, v) for n, v in enumerate(factors)))
    if (function := scalar.not_computable(expr)) is not None:
        raise Unsupported(function)
    return b.reshape(b.pointwise(scalar.cast(expr, out.dtype), factors, apart), out.shape)


def _cartesian_product(b: Builder) -> Value:
    tensors, out = b.arg("tensors"), b.node.output
    if len(tensors) == 1:
        return b.reshape(tensors[0], out.shape)
    shape = tuple(x.shape[0] for x in tensors)
    columns = []
    for axis, x in enumerate(tensors):
        row = b.reshape(x, tuple(e if a == axis else 1 for a, e in enumerate(shape)))
        columns.append(b.reshape(b.expand(row, shape), (out.shape[0], 1)))
    if 0 in out.shape:
        raise Unsupported("tensors without elements")
    return b.emit(Cat(1), *columns, shape=out.shape)


_MADE = "ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None"
RULES: dict[str, Rule] = {
    **rules(_flip, "aten::flip(Tensor self, int[] dims) -> Tensor"),
    **rules(_flip_along(1), "aten::fliplr(Tensor self) -> Tensor"),
    **rules(_flip_along(0), "aten::flipud(Tensor self) -> Tensor"),
    **rules(_roll, "aten::roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor"),
    **rules(_rot90, "aten::rot90(Tensor self, int k=1, int[] dims=[0, 1]) -> Tensor"),
    **rules(
        _repeat,
        "aten::repeat(Tensor self, SymInt[] repeats) -> Tensor",
        "aten::tile(Tensor self, SymInt[] dims) -> Tensor",
    ),
    **rules(
        _repeat_interleave,
        "aten::repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, "
        "SymInt? output_size=None) -> Tensor",
        implied="output_size",
    ),
    **rules(_triangle(True), "aten::tril(Tensor self, SymInt diagonal=0) -> Tensor"),
    **rules(_triangle(False), "aten::triu(Tensor self, SymInt diagonal=0) -> Tensor"),
    **rules(
        _identity_matrix,
        f"aten::eye(SymInt n, *, {_MADE}) -> Tensor",
        f"aten::eye.m(SymInt n, SymInt m, *, {_MADE}) -> Tensor",
        implied="n m",
    ),
    **rules(
        _diagonal_of("self", (0, 1)),
        "aten::diagonal(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor",
        "aten::diagonal_copy(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor",
    ),
    **rules(
        _diagonal_of("A", (-2, -1)),
        "aten::linalg_diagonal(Tensor A, *, int offset=0, int dim1=-2, int dim2=-1) -> Tensor",
    ),
    **rules(
        _diag_embed,
        "aten::diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor",
    ),
    **rules(_diag, "aten::diag(Tensor self, int diagonal=0) -> Tensor"),
    **rules(_diagflat, "aten::diagflat(Tensor self, int offset=0) -> Tensor"),
    **rules(
        _unfold,
        "aten::unfold(Tensor self, int dimension, int size, int step) -> Tensor",
        "aten::unfold_copy(Tensor self, int dimension, int size, int step) -> Tensor",
        implied="size",
    ),
    **rules(
        _im2col,
        "aten::im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, "
        "int[2] stride) -> Tensor",
    ),
    **rules(
        _col2im,
        "aten::col2im(Tensor self, SymInt[2] output_size, int[2] kernel_size, int[2] dilation, "
        "int[2] padding, int[2] stride) -> Tensor",
        implied="output_size",
    ),
    **rules(_pixel_shuffle, "aten::pixel_shuffle(Tensor self, int upscale_factor) -> Tensor"),
    **rules(_pixel_unshuffle, "aten::pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor"),
    **rules(_channel_shuffle, "aten::channel_shuffle(Tensor self, SymInt groups) -> Tensor"),
    **rules(
        _meshgrid,
        "aten::meshgrid(Tensor[] tensors) -> Tensor[]",
        "aten::meshgrid.indexing(Tensor[] tensors, *, str indexing) -> Tensor[]",
    ),
    **rules(
        _outer,
        "aten::outer(Tensor self, Tensor vec2) -> Tensor",
        "aten::ger(Tensor self, Tensor vec2) -> Tensor",
    ),
    **rules(_kronecker, "aten::kron(Tensor self, Tensor other) -> Tensor"),
    **rules(_cartesian_product, "aten::cartesian_prod(Tensor[] tensors) -> Tensor"),
}
