"""Tensors amid a constant, or their own elements: mirrored, repeated or from the other end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphopt.ir import Dim, Shape, Value, scalar
from graphopt.ir.indices import clamped, every, inside, larger, minus, place, smaller
from graphopt.ir.ops import Cat, Pad
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import is_non_negative, maximum, simplify
from graphopt.passes.lowering.builder import Builder, Unsupported, filled
from graphopt.passes.lowering.loads import chosen, computed, element, here, loaded, number
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _before(pairs: list[Dim], rank: int) -> list[Dim]:
    """What lies in front of every axis; pairs begin with the last one."""
    before: list[Dim] = [0] * rank
    for i in range(len(pairs) // 2):
        before[rank - 1 - i] = pairs[2 * i]
    return before


def _pad(b: Builder) -> Value:
    mode = b.arg("mode", "constant")
    if mode != "constant":
        b.arg("value")  # 0 or nothing, which it does not read
        return _from_itself(b, _MODES[mode])
    value = b.arg("value") or 0
    if not isinstance(value, int | float):
        raise Unsupported(f"padding with {value}")
    return _with(b, b.tensor(), b.arg("pad"), value)


def _with(b: Builder, x: Value, pairs: list[Dim], value: float | int | bool) -> Value:
    """Elements of one value on both sides; a negative count cuts."""
    out, before = b.node.output, _before(pairs, x.rank)
    if 0 in x.shape:
        return filled(out.shape, value, x.dtype, b)
    after = [simplify(o - e - p) for o, e, p in zip(out.shape, x.shape, before, strict=True)]
    signs = [_sign(count) for count in (*before, *after)]
    if None in signs:
        places = [minus(i, p) for i, p in zip(here(out.shape), before, strict=True)]
        is_inside = every([inside(i, e) for i, e in zip(places, x.shape, strict=True)])
        outside = number(value, x.dtype)
        return computed(b, chosen(is_inside, element(0, x, places), outside), [x])
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):
        cut = [maximum((0, simplify(-count))) for count in (first, last)]
        x = b.slice(x, axis, cut[0], simplify(x.shape[axis] - cut[0] - cut[1]))
    return _filled_up(b, x, [maximum((0, count)) for count in before], out.shape, value)


def _filled_up(
    b: Builder, x: Value, before: Sequence[Dim], shape: Shape, value: float | int | bool
) -> Value:
    """X in a larger shape."""
    if x.shape == shape:
        return x
    held = number(value, x.dtype).value
    assert isinstance(held, float | int), "a constant is a number"
    return b.emit(Pad(tuple(before), held, shape), x)


def _sign(count: Dim) -> int | None:
    """1 for a number that is never negative, -1 for one that is never positive, else None."""
    if is_non_negative(count):
        return 1
    return -1 if is_non_negative(simplify(-count)) else None


def _mirrored(position: Scalar, extent: Dim) -> Scalar:
    """The first and last element are not repeated."""
    from_start = larger(position, minus(0, position))
    return smaller(from_start, minus(2 * (extent - 1), from_start))


def _from_other_end(position: Scalar, extent: Dim) -> Scalar:
    beyond = scalar.apply("ge", position, place(extent))
    return scalar.wrap(chosen(beyond, minus(position, extent), position), extent)


_MODES: dict[str, Callable[[Scalar, Dim], Scalar]] = {
    "reflect": _mirrored,
    "replicate": clamped,
    "circular": _from_other_end,
}


def _from_itself(b: Builder, of: Callable[[Scalar, Dim], Scalar], pairs: str = "pad") -> Value:
    """Elements of x on both sides of it."""
    x, out = b.tensor(), b.node.output
    if 0 in x.shape:
        raise Unsupported("padding of a tensor without elements by its own")
    places = here(out.shape)
    for axis, (count, extent) in enumerate(
        zip(_before(b.arg(pairs), x.rank), x.shape, strict=True)
    ):
        if count != 0 or extent != out.shape[axis]:
            places[axis] = of(minus(places[axis], count), extent)
    return loaded(b, x, places, out.shape)


def _padding(mode: str, pairs: str = "padding") -> Lowering:
    return lambda b: _from_itself(b, _MODES[mode], pairs)


def _pad_sequence(b: Builder) -> Value:
    """Tensors of different lengths side by side, filled up to the longest."""
    out, side = b.node.output, b.arg("padding_side", "right")
    given, value = b.arg("sequences"), b.arg("padding_value", 0.0)
    batch = 0 if b.arg("batch_first", False) else 1
    length = out.shape[1 - batch]
    if side != "right":
        raise Unsupported(f"padding_side {side}")
    rows: list[Value] = []
    for x in given:
        shape = (length, *x.shape[1:])
        x = _filled_up(b, x, (0,) * x.rank, shape, value)
        x = b.reshape(x, (*shape[:batch], 1, *shape[batch:]))
        rows.append(b.cast(x, out.dtype))
    return rows[0] if len(rows) == 1 else b.emit(Cat(batch), *rows, shape=out.shape)


def _block_diagonal(b: Builder) -> Value:
    """Matrices along a diagonal; vectors are rows, numbers are matrices of one."""
    out = b.node.output
    left: Dim = 0
    rows: list[Value] = []
    for x in b.arg("tensors"):
        matrix = b.reshape(x, (1,) * (2 - x.rank) + x.shape)
        height, width = matrix.shape
        if height != 0:
            row = _filled_up(b, matrix, (0, left), (height, out.shape[1]), 0)
            rows.append(b.cast(row, out.dtype))
        left = simplify(left + width)
    if 0 in out.shape:
        raise Unsupported("tensors without elements")
    return rows[0] if len(rows) == 1 else b.emit(Cat(0), *rows, shape=out.shape)


def _fixed(mode: str, op: str) -> dict[str, Rule]:
    made: dict[str, Rule] = {}
    for axes in (1, 2, 3):
        made |= rules(
            _padding(mode),
            f"aten::{op}_pad{axes}d(Tensor self, SymInt[{2 * axes}] padding) -> Tensor",
        )
    return made


RULES: dict[str, Rule] = {
    **rules(
        _pad,
        'aten::pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor',
        "aten::constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor",
    ),
    **_fixed("reflect", "reflection"),
    **_fixed("replicate", "replication"),
    **rules(
        _padding("circular", "pad"), "aten::_pad_circular(Tensor self, SymInt[] pad) -> Tensor"
    ),
    **rules(
        _pad_sequence,
        "aten::pad_sequence(Tensor[] sequences, bool batch_first=False, float padding_value=0., "
        'str padding_side="right") -> Tensor',
    ),
    **rules(_block_diagonal, "aten::block_diag(Tensor[] tensors) -> Tensor"),
}
