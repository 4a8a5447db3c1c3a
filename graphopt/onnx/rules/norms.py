"""Norms."""

from __future__ import annotations

from typing import Any

from graphopt.ir import DType, Value, scalar, symbolic
from graphopt.ir.ops import Reduce
from graphopt.ir.scalar import Scalar, apply
from graphopt.ir.symbolic import simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.rules.table import Table, merged, since
from graphopt.passes.lowering.builder import Unsupported


def _batch(c: Call) -> Value:
    """By the statistics of training."""
    x, scale, bias, mean, variance = (c.x(i) for i in range(5))
    c.harmless("momentum")
    if c.attr("training_mode", 0) or any(c.wants(i) for i in range(1, 5)):
        raise Unsupported("batch norm in training mode")
    if not c.attr("spatial", 1):
        raise Unsupported("batch norm of every place by itself")
    given: dict[str, Any] = {"input": x, "weight": scale, "bias": bias, "running_mean": mean}
    given |= {"running_var": variance, "momentum": 0.1, "eps": c.attr("epsilon", 1e-5)}
    none = (x.dtype, (0,))
    name = "_native_batch_norm_legit_no_training"
    return c.aten(name, (x.dtype, x.shape), none, none, **given)[0]


def _instance(c: Call) -> Value:
    """Each channel by the statistics of its own elements."""
    x, scale, bias = (c.x(i) for i in range(3))
    given: dict[str, Any] = {"input": x, "weight": scale, "bias": bias, "use_input_stats": True}
    given |= {"eps": c.attr("epsilon", 1e-5)}
    return c.aten("instance_norm", (x.dtype, x.shape), **given)[0]


def _group(per_group: bool) -> Any:
    """Scale and bias of every channel, or, in opset 18, of every group."""

    def rule(c: Call) -> Value:
        x, scale, bias = (c.x(i) for i in range(3))
        groups = c.required("num_groups")
        _harmless_stash(c)
        if x.rank < 3 or not isinstance(x.shape[1], int) or x.shape[1] % groups:
            raise Malformed(f"{groups} groups of a tensor of the shape {x.shape}")
        if per_group:
            each = x.shape[1] // groups
            scale, bias = (
                c.b.reshape(c.b.expand(c.b.reshape(v, (groups, 1)), (groups, each)), (x.shape[1],))
                for v in (scale, bias)
            )
        given: dict[str, Any] = {"input": x, "num_groups": groups, "weight": scale, "bias": bias}
        return c.aten("group_norm", (x.dtype, x.shape), **given, eps=c.attr("epsilon", 1e-5))[0]

    return rule


def _harmless_stash(c: Call) -> None:
    if c.attr("stash_type", 1) not in (1, 11):
        raise Unsupported(f"statistics in the type {c.attr('stash_type')}")


def normalized(
    c: Call, x: Value, axis: int, scale: Value | None, bias: Value | None, eps: float, rms: bool
) -> Value:
    """The norm over all axes from one on; a scale and bias of another shape apart.

    Args:
        c: the node.
        x: the tensor.
        axis: the first one, not negative.
        scale: may be None.
        bias: may be None.
        eps: added to the variance.
        rms: whether the mean stays.
    """
    shape = x.shape[axis:]
    fits = [v is None or v.shape == shape for v in (scale, bias)]
    given: dict[str, Any] = {"input": x, "normalized_shape": list(shape), "eps": eps}
    if all(fits):
        given |= {"weight": scale} | ({} if rms else {"bias": bias})
    name = "rms_norm" if rms else "layer_norm"
    (y,) = c.aten(name, (x.dtype, x.shape), **given)
    if not all(fits):
        y = y if scale is None else c.binary("mul.Tensor", y, scale)
        y = y if bias is None else c.binary("add.Tensor", y, bias)
    elif rms and bias is not None:
        y = c.binary("add.Tensor", y, bias)
    return y


def _layer(c: Call) -> list[Value]:
    x, scale, bias = c.x(0), c.optional(1), c.optional(2)
    axis, eps = c.axis(c.attr("axis", -1), x.rank), c.attr("epsilon", 1e-5)
    _harmless_stash(c)
    results = [normalized(c, x, axis, scale, bias, eps, rms=False)]
    if c.wants(1) or c.wants(2):
        axes = tuple(range(axis, x.rank))
        wide = c.b.cast(x, DType.F32)
        mean = c.b.emit(Reduce("mean", axes), wide)
        squares = c.b.apply(lambda v, m: (v - m) * (v - m), wide, mean)
        spread = c.b.emit(Reduce("mean", axes), squares)
        results += [mean, c.b.apply(lambda s: apply("rsqrt", s + eps), spread)]
    return results


def _rms(c: Call) -> Value:
    x, scale = c.x(0), c.optional(1)
    axis, eps = c.axis(c.attr("axis", -1), x.rank), c.attr("epsilon", 1e-5)
    _harmless_stash(c)
    return normalized(c, x, axis, scale, None, eps, rms=True)


def _skip_layer(rms: bool) -> Any:
    """Of a sum, which is the fourth result."""

    def rule(c: Call) -> list[Value]:
        x, skip, scale = c.x(0), c.x(1), c.x(2)
        bias = None if rms else c.optional(3)
        added = c.optional(3 if rms else 4)
        total = c.binary("add.Tensor", x, skip)
        total = total if added is None else c.binary("add.Tensor", total, added)
        if c.wants(1) or c.wants(2):
            raise Unsupported("statistics of the norm")
        eps = c.attr("epsilon", 1e-12)
        y = normalized(c, total, total.rank - 1, scale, bias, eps, rms)
        return [y, y, y, total][: max(1, c.results)]

    return rule


def _lp(c: Call) -> Value:
    """Lines divided by their length; lines of zeros stay."""
    x, p = c.x(), c.attr("p", 2)
    axis = c.axis(c.attr("axis", -1), x.rank)
    if p not in (1, 2):
        raise Malformed(f"the norm of order {p}")
    wide = c.b.cast(x, DType.F32) if x.dtype.is_half else x
    parts = c.unary("abs", wide) if p == 1 else c.b.apply(lambda v: v * v, wide)
    length = c.b.emit(Reduce("sum", (axis,)), parts)
    if p == 2:
        length = c.b.apply(lambda v: apply("sqrt", v), length)

    def divided(v: Scalar, n: Scalar) -> Scalar:
        zero = scalar.const(0, n.dtype)
        return apply("where", apply("eq", n, zero), scalar.const(0, v.dtype), v / n)

    return c.b.cast(c.b.apply(divided, wide, length), x.dtype)


def _local_response(c: Call) -> Value:
    """Divided by a power of the sum of squares of channels around each."""
    x, size = c.x(), c.required("size")
    alpha, beta, bias = c.attr("alpha", 1e-4), c.attr("beta", 0.75), c.attr("bias", 1.0)
    if x.rank < 3 or x.dtype is not DType.F32:
        raise Unsupported(f"a local response norm of {x.dtype.value} with {x.rank} axes")
    flat = (x.shape[0], x.shape[1], symbolic.product(x.shape[2:]))
    squares = c.b.reshape(c.b.apply(lambda v: v * v, x), flat)
    pairs = [0, 0, (size - 1) // 2, size // 2]
    wide = (flat[0], simplify(flat[1] + size - 1), flat[2])
    (around,) = c.aten("pad", (x.dtype, wide), self=squares, pad=pairs)
    total: Value | None = None
    for place in range(size):
        part = c.b.slice(around, 1, place, flat[1])
        total = part if total is None else c.b.apply(lambda v, w: v + w, total, part)
    assert total is not None
    total = c.b.reshape(total, x.shape)

    def divided(v: Scalar, t: Scalar) -> Scalar:
        return v / apply("pow", t * (alpha / size) + bias, scalar.const(beta, v.dtype))

    return c.b.apply(divided, x, total)


RULES: Table = merged(
    since(7, BatchNormalization=_batch),
    since(6, InstanceNormalization=_instance),
    since(18, GroupNormalization=_group(per_group=True)),
    since(21, GroupNormalization=_group(per_group=False)),
    since(1, LayerNormalization=_layer, SimplifiedLayerNormalization=_rms),
    since(23, RMSNormalization=_rms),
    since(1, LpNormalization=_lp, LRN=_local_response),
    since(
        1,
        "com.microsoft",
        SkipLayerNormalization=_skip_layer(rms=False),
        SkipSimplifiedLayerNormalization=_skip_layer(rms=True),
    ),
)
