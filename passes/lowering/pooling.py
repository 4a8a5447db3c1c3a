"""Pooling of every form: windows of one size, with padding and dilation, and adaptive ones."""

from __future__ import annotations

import math
from typing import Any

import sympy

from graphopt.ir import Dim, Shape, Value
from graphopt.ir.ops import Pool, Reduce
from graphopt.passes.lowering.builder import Builder, Unsupported
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _each_axis(value: Any, spatial: int) -> tuple[Dim, ...]:
    """A number for each spatial axis of one for all of them, or of a list."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, int | sympy.Expr) for item in items):
        raise Unsupported(f"windows of {value}")
    return tuple(items * spatial if len(items) == 1 else items)


def _pooled(b: Builder, spatial: int, kinds: tuple[str, ...], **windows: Any) -> list[Value]:
    """Pooling of x [channels, spatial axes], with a batch axis in front or without."""
    x = b.tensor()
    if x.dtype.is_half:
        raise Unsupported(f"pooling of {x.dtype.value}")
    front: Shape = () if x.rank == spatial + 2 else (1,)
    x = b.reshape(x, (*front, *x.shape))
    made = []
    for kind, out in zip(kinds, b.node.outputs, strict=True):
        op = Pool(kind, (*front, *out.shape), **windows)
        if op.kind == "mean" and not x.dtype.is_float:
            raise Unsupported(f"means of {x.dtype.value}")
        made.append(b.reshape(b.emit(op, x), out.shape))
    return made


def _max_pool(spatial: int, *kinds: str) -> Lowering:
    def rule(b: Builder) -> list[Value]:
        window = _each_axis(b.arg("kernel_size"), spatial)
        dilation = _each_axis(b.arg("dilation", 1), spatial)
        if not all(isinstance(step, int) for step in dilation):
            raise Unsupported("dilation that varies")
        return _pooled(
            b,
            spatial,
            kinds,
            window=window,
            stride=_each_axis(b.arg("stride") or list(window), spatial),
            padding=_each_axis(b.arg("padding", 0), spatial),
            dilation=dilation,
        )

    return rule


def _avg_pool(spatial: int) -> Lowering:
    def rule(b: Builder) -> list[Value]:
        window = _each_axis(b.arg("kernel_size"), spatial)
        return _pooled(
            b,
            spatial,
            ("mean",),
            window=window,
            stride=_each_axis(b.arg("stride") or list(window), spatial),
            padding=_each_axis(b.arg("padding", 0), spatial),
            dilation=(1,) * spatial,
            padding_counts=bool(b.arg("count_include_pad", True)),
            divisor=b.arg("divisor_override") or 0,
        )

    return rule


def _adaptive_pool(spatial: int, *kinds: str) -> Lowering:
    """Of one window it is a reduction."""

    def rule(b: Builder) -> list[Value]:
        x, out = b.tensor(), b.node.outputs[0]
        whole = math.prod(e == 1 for e in out.shape[x.rank - spatial :])
        if whole and kinds == ("mean",) and x.dtype.is_float and not x.dtype.is_half:
            return [b.emit(Reduce("mean", tuple(range(x.rank - spatial, x.rank))), x)]
        return _pooled(b, spatial, kinds)

    return rule


def _of_rank(n: int) -> dict[str, Rule]:
    """The rules for n spatial axes."""
    padding, dilation = ("[0]", "[1]") if n == 1 else ("0", "1")
    window = f"Tensor self, int[{n}] kernel_size, int[{n}] stride=[], int[{n}] padding={padding}"
    largest = f"({window}, int[{n}] dilation={dilation}, bool ceil_mode=False) ->"
    override = "" if n == 1 else ", int? divisor_override=None"
    size = "int[1]" if n == 1 else f"SymInt[{n}]"
    means = [f"aten::adaptive_avg_pool{n}d(Tensor self, {size} output_size) -> Tensor"]
    if n > 1:
        means.append(f"aten::_adaptive_avg_pool{n}d(Tensor self, {size} output_size) -> Tensor")
    return {
        **rules(_max_pool(n, "max"), f"aten::max_pool{n}d{largest} Tensor", implied="ceil_mode"),
        **rules(
            _max_pool(n, "max", "argmax"),
            f"aten::max_pool{n}d_with_indices{largest} (Tensor, Tensor)",
            implied="ceil_mode",
        ),
        **rules(
            _avg_pool(n),
            f"aten::avg_pool{n}d({window}, bool ceil_mode=False, bool count_include_pad=True"
            f"{override}) -> Tensor",
            implied="ceil_mode",
        ),
        **rules(_adaptive_pool(n, "mean"), *means, implied="output_size"),
        **rules(
            _adaptive_pool(n, "max", "argmax"),
            f"aten::adaptive_max_pool{n}d(Tensor self, int[{n}] output_size) -> (Tensor, Tensor)",
            implied="output_size",
        ),
    }


RULES: dict[str, Rule] = {**_of_rank(1), **_of_rank(2), **_of_rank(3)}
