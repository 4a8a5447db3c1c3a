"""Ops that give axes another order or other extents, and tensors side by side."""

from __future__ import annotations

from graphopt.ir import Value
from graphopt.ir.ops import Cat
from graphopt.ir.symbolic import product
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _identity(b: Builder) -> Value:
    return b.tensor()


def _dropout(b: Builder) -> Value:
    if b.arg("train"):
        raise Unsupported("dropout in training mode")
    return b.tensor("input")


def _reshape(b: Builder) -> Value:
    return b.reshape(b.tensor(), b.node.output.shape)


def _permute(b: Builder) -> Value:
    x = b.tensor()
    return b.permute(x, [axis_of(x, a) for a in b.arg("dims")])


def _transpose(b: Builder) -> Value:
    x, dims = b.tensor(), (b.arg("dim0", 0), b.arg("dim1", 1))
    if x.rank < 2:
        return x
    axes = list(range(x.rank))
    first, second = (axis_of(x, d) for d in dims)
    axes[first], axes[second] = axes[second], axes[first]
    return b.permute(x, axes)


def _swapped(first: str, second: str) -> Lowering:
    """Two axes that arguments name."""
    return lambda b: _exchanged(b, b.arg(first), b.arg(second))


def _matrix_transpose(b: Builder) -> Value:
    """The last two axes of numbers that are their own conjugates."""
    return _exchanged(b, -2, -1) if b.tensor().rank > 1 else b.tensor()


def _exchanged(b: Builder, first: int, second: int) -> Value:
    x = b.tensor()
    if x.rank == 0:
        return x
    axes = list(range(x.rank))
    one, other = axis_of(x, first), axis_of(x, second)
    axes[one], axes[other] = axes[other], axes[one]
    return b.permute(x, axes)


def _moved(b: Builder) -> Value:
    """Axes at other places, the rest in order around them."""
    x = b.tensor()
    source, destination = (
        [axis_of(x, a) for a in (given if isinstance(given, list) else [given])]
        for given in (b.arg("source"), b.arg("destination"))
    )
    rest = iter([a for a in range(x.rank) if a not in source])
    there = dict(zip(destination, source, strict=True))
    return b.permute(x, [there[a] if a in there else next(rest) for a in range(x.rank)])


def _reversed_axes(b: Builder) -> Value:
    x = b.tensor()
    return b.permute(x, range(x.rank)[::-1])


def _expand(b: Builder) -> Value:
    return b.expand(b.tensor(), b.node.output.shape)


def _broadcast(b: Builder) -> list[Value]:
    pairs = zip(b.arg("tensors"), b.node.outputs, strict=True)
    return [b.expand(x, out.shape) for x, out in pairs]


def _each_reshaped(b: Builder) -> list[Value]:
    pairs = zip(b.arg("tensors"), b.node.outputs, strict=True)
    return [b.reshape(x, out.shape) for x, out in pairs]


def _joined(b: Builder, parts: list[Value], axis: int) -> Value:
    """Parts of any types side by side; those without elements are left out."""
    out = b.node.output
    given = [b.cast(p, out.dtype) for p in parts if p.shape[axis] != 0]
    if not given:
        raise Unsupported("tensors without elements")
    return given[0] if len(given) == 1 else b.emit(Cat(axis), *given, shape=out.shape)


def _cat(b: Builder) -> Value:
    """A part `[0]` fits beside any other: torch lets it pass."""
    parts: list[Value] = [p for p in b.arg("tensors") if p.shape != (0,)]
    return _joined(b, parts, axis_of(b.node.output, b.arg("dim", 0)))


def _stack(b: Builder) -> Value:
    out = b.node.output
    axis = axis_of(out, b.arg("dim", 0))
    shape = (*out.shape[:axis], 1, *out.shape[axis + 1 :])
    return _joined(b, [b.reshape(p, shape) for p in b.arg("tensors")], axis)


def _side_by_side(axis: int) -> Lowering:
    """Tensors with as many axes as the result along one of these."""

    def rule(b: Builder) -> Value:
        rank = b.node.output.rank
        return _joined(b, [_with_axes(b, x, rank) for x in b.arg("tensors")], axis)

    return rule


def _with_axes(b: Builder, x: Value, rank: int) -> Value:
    """X with as many axes at least, as `atleast_1d`, `atleast_2d` and `atleast_3d` add them."""
    if x.rank >= rank:
        return x
    shape = x.shape if x.rank == 2 else (1,) * (min(rank, 2) - x.rank) + x.shape
    return b.reshape(x, (*shape, *[1] * (rank - len(shape))))


def _hstack(b: Builder) -> Value | list[Value]:
    return _side_by_side(min(1, b.node.output.rank - 1))(b)


def _column_stack(b: Builder) -> Value:
    tensors = b.arg("tensors")
    return _joined(
        b, [b.reshape(x, (product(x.shape), 1)) if x.rank < 2 else x for x in tensors], 1
    )


RULES: dict[str, Rule] = {
    **rules(
        _identity,
        "aten::alias(Tensor self) -> Tensor",
        "aten::clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor",
        "aten::contiguous(Tensor self, *, MemoryFormat memory_format=0) -> Tensor",
        "aten::detach(Tensor self) -> Tensor",
        "aten::lift_fresh_copy(Tensor self) -> Tensor",
        "aten::alias_copy(Tensor self) -> Tensor",
        "aten::detach_copy(Tensor self) -> Tensor",
    ),
    **rules(
        _dropout,
        "aten::dropout(Tensor input, float p, bool train) -> Tensor",
        "aten::feature_dropout(Tensor input, float p, bool train) -> Tensor",
        implied="p",
    ),
    **rules(
        _reshape,
        "aten::view(Tensor self, SymInt[] size) -> Tensor",
        "aten::reshape(Tensor self, SymInt[] shape) -> Tensor",
        "aten::_unsafe_view(Tensor self, SymInt[] size) -> Tensor",
        "aten::flatten.using_ints(Tensor self, int start_dim=0, int end_dim=-1) -> Tensor",
        "aten::unflatten.int(Tensor self, int dim, SymInt[] sizes) -> Tensor",
        "aten::unsqueeze(Tensor self, int dim) -> Tensor",
        "aten::squeeze(Tensor self) -> Tensor",
        "aten::squeeze.dim(Tensor self, int dim) -> Tensor",
        "aten::squeeze.dims(Tensor self, int[] dim) -> Tensor",
        "aten::view_as(Tensor self, Tensor other) -> Tensor",
        "aten::reshape_as(Tensor self, Tensor other) -> Tensor",
        "aten::ravel(Tensor self) -> Tensor",
        "aten::view_copy(Tensor self, SymInt[] size) -> Tensor",
        "aten::squeeze_copy(Tensor self) -> Tensor",
        "aten::squeeze_copy.dim(Tensor self, int dim) -> Tensor",
        "aten::squeeze_copy.dims(Tensor self, int[] dim) -> Tensor",
        "aten::unsqueeze_copy(Tensor self, int dim) -> Tensor",
        "aten::atleast_1d(Tensor self) -> Tensor",
        "aten::atleast_2d(Tensor self) -> Tensor",
        "aten::atleast_3d(Tensor self) -> Tensor",
        implied="size shape start_dim end_dim dim sizes other",
    ),
    **rules(
        _each_reshaped,
        "aten::atleast_1d.Sequence(Tensor[] tensors) -> Tensor[]",
        "aten::atleast_2d.Sequence(Tensor[] tensors) -> Tensor[]",
        "aten::atleast_3d.Sequence(Tensor[] tensors) -> Tensor[]",
    ),
    **rules(
        _permute,
        "aten::permute(Tensor self, int[] dims) -> Tensor",
        "aten::permute_copy(Tensor self, int[] dims) -> Tensor",
    ),
    **rules(
        _transpose,
        "aten::transpose.int(Tensor self, int dim0, int dim1) -> Tensor",
        "aten::t(Tensor self) -> Tensor",
        "aten::transpose_copy.int(Tensor self, int dim0, int dim1) -> Tensor",
        "aten::t_copy(Tensor self) -> Tensor",
    ),
    **rules(
        _swapped("axis0", "axis1"), "aten::swapaxes(Tensor self, int axis0, int axis1) -> Tensor"
    ),
    **rules(_swapped("dim0", "dim1"), "aten::swapdims(Tensor self, int dim0, int dim1) -> Tensor"),
    **rules(
        _matrix_transpose,
        "aten::mT(Tensor self) -> Tensor",
        "aten::mH(Tensor self) -> Tensor",
        "aten::adjoint(Tensor self) -> Tensor",
        "aten::matrix_H(Tensor self) -> Tensor",
    ),
    **rules(
        _moved,
        *(
            f"aten::{op}.{kind}(Tensor self, {axes} source, {axes} destination) -> Tensor"
            for op in ("movedim", "moveaxis")
            for kind, axes in (("int", "int"), ("intlist", "int[]"))
        ),
    ),
    **rules(_reversed_axes, "aten::numpy_T(Tensor self) -> Tensor"),
    **rules(
        _expand,
        "aten::expand(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor",
        "aten::expand_as(Tensor self, Tensor other) -> Tensor",
        "aten::expand_copy(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor",
        "aten::broadcast_to(Tensor self, SymInt[] size) -> Tensor",
        implied="size implicit other",
    ),
    **rules(_broadcast, "aten::broadcast_tensors(Tensor[] tensors) -> Tensor[]"),
    **rules(
        _cat,
        "aten::cat(Tensor[] tensors, int dim=0) -> Tensor",
        "aten::concat(Tensor[] tensors, int dim=0) -> Tensor",
        "aten::concatenate(Tensor[] tensors, int dim=0) -> Tensor",
    ),
    **rules(_hstack, "aten::hstack(Tensor[] tensors) -> Tensor"),
    **rules(
        _side_by_side(0),
        "aten::vstack(Tensor[] tensors) -> Tensor",
        "aten::row_stack(Tensor[] tensors) -> Tensor",
    ),
    **rules(_side_by_side(2), "aten::dstack(Tensor[] tensors) -> Tensor"),
    **rules(_column_stack, "aten::column_stack(Tensor[] tensors) -> Tensor"),
    **rules(_stack, "aten::stack(Tensor[] tensors, int dim=0) -> Tensor"),
}
