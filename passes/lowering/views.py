"""Ops that only rearrange elements: views, slices, concatenation, padding, lookups."""

from __future__ import annotations

import sys

from graphopt.ir import Dim, DType, Value, scalar, symbolic
from graphopt.ir.ops import Cat, Gather, Pad
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.schema import Rule, rules


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


def _reversed_axes(b: Builder) -> Value:
    x = b.tensor()
    return b.permute(x, range(x.rank)[::-1])


def _expand(b: Builder) -> Value:
    return b.expand(b.tensor(), b.node.output.shape)


def _start(x: Value, axis: int, start: Dim | None) -> Dim:
    """Where a slice begins, counted from the front; raises Unsupported if its sign is unknown."""
    if start is None:
        return 0
    if isinstance(start, int):
        return (
            start if start >= 0 else symbolic.maximum((0, symbolic.simplify(x.shape[axis] + start)))
        )
    if not symbolic.is_non_negative(start):
        raise Unsupported(f"a slice from {start}, which may be negative")
    return start


def _slice(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    start, step, end = _start(x, axis, b.arg("start")), b.arg("step", 1), b.arg("end")
    extent = b.node.output.shape[axis]
    if extent == 0:
        return b.slice(x, axis, 0, 0)
    if start != 0 and x.shape[axis] == extent and step == 1:
        raise Unsupported("a slice whose start depends on the size")
    known = end is None or end == sys.maxsize or isinstance(end, int)
    if not known and symbolic.simplify(end) != symbolic.simplify(start + extent):
        raise Unsupported(f"a slice up to {end}")
    return b.slice(x, axis, start, extent, step)


def _narrow(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim"))
    return b.slice(x, axis, _start(x, axis, b.arg("start")), b.node.output.shape[axis])


def _select(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim"))
    part = b.slice(x, axis, _start(x, axis, b.arg("index")), 1)
    return b.reshape(part, b.node.output.shape)


def _split(b: Builder) -> list[Value]:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    parts: list[Value] = []
    start: Dim = 0
    for output in b.node.outputs:
        parts.append(b.slice(x, axis, start, output.shape[axis]))
        start = symbolic.simplify(start + output.shape[axis])
    return parts


def _unbind(b: Builder) -> list[Value]:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    parts = [b.slice(x, axis, i, 1) for i in range(len(b.node.outputs))]
    return [b.reshape(p, o.shape) for p, o in zip(parts, b.node.outputs, strict=True)]


def _slice_scatter(b: Builder) -> Value:
    x, part, step = b.tensor(), b.tensor("src"), b.arg("step", 1)
    axis = axis_of(x, b.arg("dim", 0))
    whole, start = x.shape[axis], symbolic.minimum(x.shape[axis], _start(x, axis, b.arg("start")))
    if step == 1:
        return _between(b, x, part, axis, start)
    if not (isinstance(whole, int) and isinstance(start, int) and start < step):
        raise Unsupported("a write to every n-th element of an axis whose size varies")
    if whole % step or part.shape[axis] != whole // step:
        raise Unsupported("a write to every n-th element of a part of an axis")
    # One axis of the steps, one of what lies in a step.
    shape = (*x.shape[:axis], whole // step, step, *x.shape[axis + 1 :])
    row = (*shape[: axis + 1], 1, *shape[axis + 2 :])
    y = _between(b, b.reshape(x, shape), b.reshape(part, row), axis + 1, start)
    return b.reshape(y, x.shape)


def _select_scatter(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim"))
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    part = b.reshape(b.tensor("src"), shape)
    return _between(b, x, part, axis, _start(x, axis, b.arg("index")))


def _between(b: Builder, x: Value, part: Value, axis: int, start: Dim) -> Value:
    """X with `part` in place of its elements from `start` along an axis."""
    if x.shape[axis] == 0:
        return x
    part = b.cast(part, x.dtype)
    end = symbolic.simplify(start + part.shape[axis])
    around = [(0, start), (end, symbolic.simplify(x.shape[axis] - end))]
    before, after = ([] if n == 0 else [b.slice(x, axis, at, n)] for at, n in around)
    parts = [*before, *([part] if part.shape[axis] != 0 else []), *after]
    return parts[0] if len(parts) == 1 else b.emit(Cat(axis), *parts, shape=x.shape)


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


def _pad(b: Builder) -> Value:
    mode = b.arg("mode", "constant")
    if mode != "constant":
        raise Unsupported(f"padding mode {mode}")
    x = b.tensor()
    pairs = b.arg("pad")
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i in range(len(pairs) // 2):
        before[x.rank - 1 - i], after[x.rank - 1 - i] = pairs[2 * i], pairs[2 * i + 1]
    if not all(symbolic.is_non_negative(p) for p in (*before, *after)):
        raise Unsupported("negative padding")
    value = b.arg("value") or 0
    if not isinstance(value, int | float):
        raise Unsupported(f"padding with {value}")
    if not any(before) and not any(after):
        return x
    held = DType.F32 if x.dtype.is_half else x.dtype
    number = scalar.const(value, held).value
    assert number is not None, "a constant has a value"
    return b.emit(Pad(tuple(before), number, b.node.output.shape), x)


def _embedding(b: Builder) -> Value:
    table, indices = b.tensor("weight"), b.tensor("indices")
    return b.emit(Gather(), table, indices, shape=b.node.output.shape)


def _index_select(b: Builder) -> Value:
    table, indices = b.tensor(), b.tensor("index")
    if axis_of(table, b.arg("dim")) != 0:
        raise Unsupported("index_select along another axis than 0")
    return b.emit(Gather(), table, indices, shape=b.node.output.shape)


RULES: dict[str, Rule] = {
    **rules(
        _identity,
        "aten::alias(Tensor self) -> Tensor",
        "aten::clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor",
        "aten::contiguous(Tensor self, *, MemoryFormat memory_format=0) -> Tensor",
        "aten::detach(Tensor self) -> Tensor",
        "aten::lift_fresh_copy(Tensor self) -> Tensor",
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
        implied="size shape start_dim end_dim dim sizes",
    ),
    **rules(_permute, "aten::permute(Tensor self, int[] dims) -> Tensor"),
    **rules(
        _transpose,
        "aten::transpose.int(Tensor self, int dim0, int dim1) -> Tensor",
        "aten::t(Tensor self) -> Tensor",
    ),
    **rules(_reversed_axes, "aten::numpy_T(Tensor self) -> Tensor"),
    **rules(
        _expand,
        "aten::expand(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor",
        "aten::expand_as(Tensor self, Tensor other) -> Tensor",
        implied="size implicit other",
    ),
    **rules(
        _slice,
        "aten::slice.Tensor(Tensor self, int dim=0, SymInt? start=None, SymInt? end=None, "
        "SymInt step=1) -> Tensor",
    ),
    **rules(
        _narrow,
        "aten::narrow(Tensor self, int dim, SymInt start, SymInt length) -> Tensor",
        implied="length",
    ),
    **rules(_select, "aten::select.int(Tensor self, int dim, SymInt index) -> Tensor"),
    **rules(
        _slice_scatter,
        "aten::slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, "
        "SymInt? end=None, SymInt step=1) -> Tensor",
        implied="end",
    ),
    **rules(
        _select_scatter,
        "aten::select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor",
    ),
    **rules(
        _split,
        "aten::split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]",
        "aten::split.sizes(Tensor self, SymInt[] split_size, int dim=0) -> Tensor[]",
        "aten::split_with_sizes(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]",
        "aten::chunk(Tensor self, int chunks, int dim=0) -> Tensor[]",
        implied="split_size split_sizes chunks",
    ),
    **rules(_unbind, "aten::unbind.int(Tensor self, int dim=0) -> Tensor[]"),
    **rules(_cat, "aten::cat(Tensor[] tensors, int dim=0) -> Tensor"),
    **rules(_stack, "aten::stack(Tensor[] tensors, int dim=0) -> Tensor"),
    **rules(
        _pad,
        'aten::pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor',
        "aten::constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor",
    ),
    **rules(
        _embedding,
        "aten::embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, "
        "bool scale_grad_by_freq=False, bool sparse=False) -> Tensor",
        implied="padding_idx scale_grad_by_freq sparse",
    ),
    **rules(_index_select, "aten::index_select(Tensor self, int dim, Tensor index) -> Tensor"),
}
