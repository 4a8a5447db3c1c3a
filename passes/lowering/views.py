"""Ops that only rearrange elements: views, slices, concatenation, padding, lookups."""

from __future__ import annotations

import sys
from collections.abc import Callable

from graphopt import symbolic
from graphopt.ir import Dim, Value
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of

Rule = Callable[[Builder], Value | list[Value]]


def _identity(b: Builder) -> Value:
    return b.tensor("input" if "input" in b.node.attrs else "self")


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
    x = b.tensor()
    axes = list(range(x.rank))
    if x.rank < 2:
        return x
    first, second = axis_of(x, b.arg("dim0", 0)), axis_of(x, b.arg("dim1", 1))
    axes[first], axes[second] = axes[second], axes[first]
    return b.permute(x, axes)


def _expand(b: Builder) -> Value:
    return b.expand(b.tensor(), b.node.output.shape)


def _start(x: Value, axis: int, start: Dim | None) -> Dim:
    if start is None:
        return 0
    if isinstance(start, int) and start < 0:
        return symbolic.maximum((0, symbolic.simplify(x.shape[axis] + start)))
    return start


def _slice(b: Builder) -> Value:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    start = _start(x, axis, b.arg("start"))
    extent = b.node.output.shape[axis]
    if start != 0 and x.shape[axis] == extent and b.arg("step", 1) == 1:
        raise Unsupported("a slice whose start depends on the size")
    end = b.arg("end")
    known = end is None or end == sys.maxsize or isinstance(end, int)
    if not known and symbolic.simplify(end) != symbolic.simplify(start + extent):
        raise Unsupported(f"a slice up to {end}")
    return b.slice(x, axis, start, extent, b.arg("step", 1))


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


def _cat(b: Builder) -> Value:
    parts: list[Value] = [p for p in b.arg("tensors") if not (p.rank == 1 and p.shape[0] == 0)]
    out = b.node.output
    parts = [b.cast(p, out.dtype) for p in parts]
    if len(parts) == 1:
        return parts[0]
    return b.emit("go.cat", parts, out.shape, out.dtype, axis=axis_of(out, b.arg("dim", 0)))


def _stack(b: Builder) -> Value:
    out = b.node.output
    axis = axis_of(out, b.arg("dim", 0))
    shape = (*out.shape[:axis], 1, *out.shape[axis + 1 :])
    parts = [b.reshape(p, shape) for p in b.arg("tensors")]
    return b.emit("go.cat", parts, out.shape, out.dtype, axis=axis)


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
    if any(isinstance(p, int) and p < 0 for p in (*before, *after)):
        raise Unsupported("negative padding")
    if not any(before) and not any(after):
        return x
    value = b.arg("value") or 0.0
    return b.emit(
        "go.pad", [x], b.node.output.shape, x.dtype, before=tuple(before), value=float(value)
    )


def _embedding(b: Builder) -> Value:
    table, indices = b.tensor("weight"), b.tensor("indices")
    return b.emit("go.gather", [table, indices], b.node.output.shape, table.dtype)


def _index_select(b: Builder) -> Value:
    table, indices = b.tensor(), b.tensor("index")
    if axis_of(table, b.arg("dim")) != 0:
        raise Unsupported("index_select along another axis than 0")
    return b.emit("go.gather", [table, indices], b.node.output.shape, table.dtype)


RULES: dict[str, Rule] = {
    "aten.alias": _identity,
    "aten.clone": _identity,
    "aten.contiguous": _identity,
    "aten.detach": _identity,
    "aten.lift_fresh_copy": _identity,
    "aten.dropout": _dropout,
    "aten.feature_dropout": _dropout,
    "aten.view": _reshape,
    "aten.reshape": _reshape,
    "aten._unsafe_view": _reshape,
    "aten.flatten": _reshape,
    "aten.unflatten": _reshape,
    "aten.unsqueeze": _reshape,
    "aten.squeeze": _reshape,
    "aten.permute": _permute,
    "aten.transpose": _transpose,
    "aten.t": _transpose,
    "aten.numpy_T": _transpose,
    "aten.expand": _expand,
    "aten.expand_as": _expand,
    "aten.slice": _slice,
    "aten.narrow": _slice,
    "aten.select": _select,
    "aten.split": _split,
    "aten.split_with_sizes": _split,
    "aten.chunk": _split,
    "aten.unbind": lambda b: [
        b.reshape(p, o.shape) for p, o in zip(_unbind(b), b.node.outputs, strict=True)
    ],
    "aten.cat": _cat,
    "aten.stack": _stack,
    "aten.pad": _pad,
    "aten.constant_pad_nd": _pad,
    "aten.embedding": _embedding,
    "aten.index_select": _index_select,
}


def _unbind(b: Builder) -> list[Value]:
    x = b.tensor()
    axis = axis_of(x, b.arg("dim", 0))
    return [b.slice(x, axis, i, 1) for i in range(len(b.node.outputs))]
