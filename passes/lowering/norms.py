"""Norms over groups of elements, and softmax."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import Dim, DType, Shape, Value, symbolic
from graphopt.ir.ops import Norm, Reduce, Softmax
from graphopt.ir.scalar import Scalar, apply
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of, filled, require_f32
from graphopt.passes.lowering.operands import Operands, compute_type
from graphopt.passes.lowering.reductions import variance
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _normal_rows(b: Builder, x: Value, eps: float, rms: bool = False, **given: Value) -> Value:
    """Rows of x with mean 0 and variance 1, times a weight and plus a bias if there are any."""
    if x.dtype is DType.F32 and all(v.dtype is DType.F32 for v in given.values()):
        weight, bias = given.get("weight"), given.get("bias")
        return b.emit(Norm(eps, rms=rms), x, weight=weight, bias=bias)
    if x.dtype is not DType.F64 or rms:
        require_f32("a norm", x, *given.values())
    spread, mean = variance(b, x, (x.rank - 1,), 0)

    def normal(v: Scalar, m: Scalar, s: Scalar) -> Scalar:
        return (v - m) * apply("rsqrt", s + eps)

    y = b.apply(normal, x, mean, spread)
    if "weight" in given:
        y = b.apply(lambda v, w: v * w, y, given["weight"])
    return b.apply(lambda v, w: v + w, y, given["bias"]) if "bias" in given else y


def _statistics(b: Builder, x: Value, eps: float, shapes: Sequence[Shape]) -> list[Value]:
    """Mean of rows and 1 over their spread, which gradients need."""
    if not shapes:
        return []
    spread, mean = variance(b, x, (x.rank - 1,), 0)
    scale = b.apply(lambda s: apply("rsqrt", s + eps), spread)
    return [b.reshape(v, shape) for v, shape in zip((mean, scale), shapes, strict=True)]


def _layer_norm(rms: bool = False) -> Lowering:
    """Over the last axes, as many as `normalized_shape` has."""

    def rule(b: Builder) -> list[Value]:
        x, (out, *others) = b.tensor("input"), b.node.outputs
        count = len(b.arg("normalized_shape"))
        flat = (*x.shape[: x.rank - count], symbolic.product(x.shape[x.rank - count :]))
        parts = {k: v for k in ("weight", "bias") if isinstance(v := b.arg(k), Value)}
        given = {k: b.reshape(v, (flat[-1],)) for k, v in parts.items()}
        eps = b.arg("eps", 1e-5 if not rms else None)
        if eps is None:
            eps = _SMALLEST[x.dtype]
        rows = b.reshape(x, flat)
        y = _normal_rows(b, rows, float(eps), rms, **given)
        statistics = _statistics(b, rows, float(eps), [v.shape for v in others])
        return [b.reshape(y, out.shape), *statistics]

    return rule


#: The distance of 1 to the next number, torch's default for rms norm.
_SMALLEST = {DType.F32: 2.0**-23, DType.F64: 2.0**-52, DType.BF16: 2.0**-7, DType.F16: 2.0**-10}


def _scaled(b: Builder, y: Value, shape: Shape) -> Value:
    """Channels times a weight and plus a bias, if there are any."""
    column = (shape[1], *[1] * (len(shape) - 2))
    for name, op in (("weight", "mul"), ("bias", "add")):
        part = b.arg(name)
        if part is not None:
            y = b.apply(lambda v, w, op=op: apply(op, v, w), y, b.reshape(part, column))
    return y


def _group_norm(b: Builder, groups: Dim) -> list[Value]:
    """Over the channels of a group and all that lies behind them."""
    x, (out, *others) = b.tensor("input"), b.node.outputs
    if any(not isinstance(e, int) for e in (x.shape[1], groups)):
        raise Unsupported("groups of channels whose number varies")
    size = symbolic.product((x.shape[1] // groups, *x.shape[2:]))
    eps = float(b.arg("eps", 1e-5))
    rows = b.reshape(x, (x.shape[0], groups, size))
    y = b.reshape(_normal_rows(b, rows, eps), x.shape)
    statistics = _statistics(b, rows, eps, [v.shape for v in others])
    return [b.reshape(_scaled(b, y, x.shape), out.shape), *statistics]


def _instance_norm(b: Builder) -> list[Value]:
    """A group norm of one channel each, or a batch norm by running statistics."""
    running = [b.arg(name) for name in ("running_mean", "running_var")]
    if not b.arg("use_input_stats"):
        return [_by_running_statistics(b)]
    if any(v is not None for v in running):
        raise Unsupported("running statistics in training mode")
    return _group_norm(b, b.tensor("input").shape[1])


def _by_running_statistics(b: Builder) -> Value:
    x = b.tensor("input")
    parts = {k: b.arg(k) for k in ("weight", "bias", "running_mean", "running_var")}
    if x.rank < 2 or parts["running_mean"] is None or parts["running_var"] is None:
        raise Unsupported("batch norm without channels or statistics")
    shape = (x.shape[1], *[1] * (x.rank - 2))
    operands, dtype = Operands(b), compute_type(b)
    leaf = {k: operands.leaf(b.reshape(v, shape), dtype) for k, v in parts.items() if v is not None}
    y = operands.leaf(x, dtype) - leaf["running_mean"]
    y = y * apply("rsqrt", leaf["running_var"] + b.arg("eps"))
    if "weight" in leaf:
        y = y * leaf["weight"]
    if "bias" in leaf:
        y = y + leaf["bias"]
    return operands.emit(y)


def _batch_norm(b: Builder) -> list[Value]:
    """By running statistics, or by those of the batch where a model keeps none."""
    if not b.arg("training", False):
        empty = [filled((0,), 0.0, v.dtype, b) for v in b.node.outputs[1:]]
        return [_by_running_statistics(b), *empty]
    if any(b.arg(name) is not None for name in ("running_mean", "running_var")):
        raise Unsupported("batch norm in training mode")
    x, (out, *others) = b.tensor("input"), b.node.outputs
    if x.dtype not in (DType.F32, DType.F64) or x.rank < 2:
        raise Unsupported(f"batch norm of {x.dtype.value} with {x.rank} axes")
    eps = float(b.arg("eps"))
    axes = (0, *range(2, x.rank))
    spread, mean = variance(b, x, axes, 0)
    y = b.apply(lambda v, m, s: (v - m) * apply("rsqrt", s + eps), x, mean, spread)
    scale = b.apply(lambda s: apply("rsqrt", s + eps), spread)
    statistics = [b.reshape(v, o.shape) for v, o in zip((mean, scale), others, strict=False)]
    return [b.reshape(_scaled(b, y, x.shape), out.shape), *statistics]


def _batch_norm_of_inference(b: Builder) -> list[Value]:
    """The result, and the statistics of a batch that was not looked at."""
    statistics = [filled(v.shape, 0.0, v.dtype, b) for v in b.node.outputs[1:]]
    return [_by_running_statistics(b), *statistics]


def _softmax(log: bool) -> Lowering:
    """Of the type of the result; along another axis than the last behind a permute."""

    def rule(b: Builder) -> Value:
        x, out = b.cast(b.tensor(), b.node.output.dtype), b.node.output
        if x.dtype not in (DType.F32, DType.F64):
            raise Unsupported(f"softmax as {x.dtype.value}")
        line = x if x.rank else b.reshape(x, (1,))
        axis = axis_of(line, b.arg("dim"))
        if 0 in x.shape:
            return x
        if x.dtype is DType.F64:
            return b.reshape(_wide_softmax(b, line, axis, log), out.shape)
        axes = [a for a in range(line.rank) if a != axis] + [axis]
        y = b.emit(Softmax(log), b.permute(line, axes))
        y = b.permute(y, [axes.index(a) for a in range(line.rank)])
        return b.reshape(y, out.shape)

    return rule


def _wide_softmax(b: Builder, x: Value, axis: int, log: bool) -> Value:
    shifted = b.apply(lambda v, m: v - m, x, b.emit(Reduce("max", (axis,)), x))
    powers = b.apply(lambda v: apply("exp", v), shifted)
    total = b.emit(Reduce("sum", (axis,)), powers)
    if log:
        return b.apply(lambda v, t: v - apply("log", t), shifted, total)
    return b.apply(lambda v, t: v / t, powers, total)


_FOUR = "Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var"
RULES: dict[str, Rule] = {
    **rules(
        _layer_norm(),
        "aten::layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, "
        "Tensor? bias=None, float eps=1.0000000000000001e-05, bool cudnn_enable=True) -> Tensor",
        "aten::native_layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight, "
        "Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
        implied="cudnn_enable",
    ),
    **rules(
        _layer_norm(rms=True),
        "aten::rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, "
        "float? eps=None) -> Tensor",
    ),
    **rules(
        lambda b: _group_norm(b, b.arg("num_groups")),
        "aten::group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, "
        "float eps=1.0000000000000001e-05, bool cudnn_enabled=True) -> Tensor",
        implied="cudnn_enabled",
    ),
    **rules(
        lambda b: _group_norm(b, b.arg("group")),
        "aten::native_group_norm(Tensor input, Tensor? weight, Tensor? bias, SymInt N, SymInt C, "
        "SymInt HxW, int group, float eps) -> (Tensor, Tensor, Tensor)",
        implied="N C HxW",
    ),
    **rules(
        _instance_norm,
        f"aten::instance_norm(Tensor input, {_FOUR}, bool use_input_stats, float momentum, "
        "float eps, bool cudnn_enabled) -> Tensor",
        implied="momentum cudnn_enabled",
    ),
    **rules(
        _batch_norm,
        f"aten::batch_norm(Tensor input, {_FOUR}, bool training, float momentum, float eps, "
        "bool cudnn_enabled) -> Tensor",
        f"aten::native_batch_norm(Tensor input, {_FOUR}, bool training, float momentum, "
        "float eps) -> (Tensor, Tensor, Tensor)",
        "aten::_native_batch_norm_legit.no_stats(Tensor input, Tensor? weight, Tensor? bias, "
        "bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
        implied="momentum cudnn_enabled",
    ),
    **rules(
        _batch_norm_of_inference,
        "aten::_native_batch_norm_legit_no_training(Tensor input, Tensor? weight, Tensor? bias, "
        "Tensor running_mean, Tensor running_var, float momentum, float eps) "
        "-> (Tensor, Tensor, Tensor)",
        implied="momentum",
    ),
    **rules(
        _softmax(log=False),
        "aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor",
        "aten::_softmax(Tensor self, int dim, bool half_to_float) -> Tensor",
        implied="half_to_float",
    ),
    **rules(
        _softmax(log=True),
        "aten::log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor",
        "aten::_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor",
        implied="half_to_float",
    ),
}
