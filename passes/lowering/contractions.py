"""Ops with inner products or reductions: linear, matmul, convolution, norms, softmax, sums."""

from __future__ import annotations

from typing import Any

from graphopt import scalar, symbolic
from graphopt.ir import DType, Node, Value
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.views import Rule


def _roles(b: Builder, **operands: Value | None) -> tuple[list[Value], tuple[str, ...]]:
    given = {role: value for role, value in operands.items() if value is not None}
    return list(given.values()), tuple(given)


def _linear(b: Builder) -> Value:
    x, weight, out = b.tensor("input"), b.tensor("weight"), b.node.output
    if not weight.is_constant or weight.rank != 2:
        return _matmul_of(b, x, b.permute(weight, (1, 0)))
    if weight.dtype is not DType.F32 or x.dtype is not DType.F32:
        raise Unsupported(f"linear on {x.dtype.value} with {weight.dtype.value} weights")
    inputs, roles = _roles(b, x=x, weight=weight, bias=b.arg("bias"))
    return b.emit("go.linear", inputs, out.shape, out.dtype, roles=roles)


def _addmm(b: Builder) -> Value:
    if b.arg("beta", 1) != 1 or b.arg("alpha", 1) != 1:
        raise Unsupported("addmm with alpha or beta")
    bias, x, mat = b.tensor(), b.tensor("mat1"), b.tensor("mat2")
    if not (mat.is_constant and mat.data is not None and bias.rank == 1):
        raise Unsupported("addmm without constant weights")
    weight = Value(mat.dtype, mat.shape[::-1], mat.name, data=mat.data.T.copy())
    inputs, roles = _roles(b, x=x, weight=weight, bias=bias)
    return b.emit("go.linear", inputs, b.node.output.shape, DType.F32, roles=roles)


def _matmul(b: Builder) -> Value:
    left, right = b.tensor(), b.tensor("other" if "other" in b.node.attrs else "mat2")
    return _matmul_of(b, left, right)


def _matmul_of(b: Builder, left: Value, right: Value) -> Value:
    out = b.node.output
    if left.dtype is not DType.F32 or right.dtype is not DType.F32:
        raise Unsupported(f"matmul of {left.dtype.value} and {right.dtype.value}")
    if left.rank < 2 or right.rank < 2:
        raise Unsupported("matmul with a vector")
    if right.is_constant and right.rank == 2 and right.data is not None:
        weight = Value(right.dtype, right.shape[::-1], right.name, data=right.data.T.copy())
        return b.emit("go.linear", [left, weight], out.shape, out.dtype, roles=("x", "weight"))
    if left.rank != right.rank or left.shape[:-2] != right.shape[:-2]:
        raise Unsupported("matmul that broadcasts its batch axes")
    return b.emit("go.matmul", [left, right], out.shape, out.dtype, roles=("left", "right"))


def _convolution(b: Builder) -> Value:
    x, weight, out = b.tensor("input"), b.tensor("weight"), b.node.output
    if b.arg("transposed"):
        raise Unsupported("transposed convolution")
    if not weight.is_constant:
        raise Unsupported("convolution with weights computed at run time")
    spatial = weight.rank - 2
    if spatial not in (1, 2):
        raise Unsupported(f"{spatial}-D convolution")
    if x.dtype is not DType.F32:
        raise Unsupported(f"convolution on {x.dtype.value}")
    if x.rank != weight.rank:
        raise Unsupported("convolution without a batch axis")
    padding = b.arg("padding", 0)
    if isinstance(padding, str) and padding != "valid":
        raise Unsupported(f"padding {padding!r}")
    inputs, roles = _roles(b, x=x, weight=weight, bias=b.arg("bias"))
    one_d = spatial == 1

    def pair(value: Any, fill: int) -> tuple[int, int]:
        items: list[int] = list(value) if isinstance(value, list | tuple) else [value] * spatial
        items = items * spatial if len(items) == 1 else items
        return (fill, items[0]) if one_d else (items[0], items[1])

    return b.emit(
        "go.conv",
        inputs,
        out.shape,
        out.dtype,
        roles=roles,
        stride=pair(b.arg("stride", 1), 1),
        padding=pair(0 if isinstance(padding, str) else padding, 0),
        dilation=pair(b.arg("dilation", 1), 1),
        groups=b.arg("groups", 1),
    )


def _layer_norm(b: Builder) -> Value:
    x, out = b.tensor("input"), b.node.output
    if x.dtype is not DType.F32:
        raise Unsupported(f"layer norm on {x.dtype.value}")
    count = len(b.arg("normalized_shape"))
    flat = (*x.shape[: x.rank - count], symbolic.product(x.shape[x.rank - count :]))
    size = (flat[-1],)
    weight, bias = b.arg("weight"), b.arg("bias")
    inputs, roles = _roles(
        b,
        x=b.reshape(x, flat),
        weight=None if weight is None else b.reshape(weight, size),
        bias=None if bias is None else b.reshape(bias, size),
    )
    y = b.emit(
        "go.norm", inputs, flat, out.dtype, roles=roles, eps=float(b.arg("eps", 1e-5)), rms=False
    )
    return b.reshape(y, out.shape)


def _rms_norm(b: Builder) -> Value:
    x, out = b.tensor("input"), b.node.output
    if x.dtype is not DType.F32 or len(b.arg("normalized_shape")) != 1:
        raise Unsupported("rms norm over several axes or on other types than f32")
    inputs, roles = _roles(b, x=x, weight=b.arg("weight"))
    eps = b.arg("eps")
    return b.emit(
        "go.norm",
        inputs,
        out.shape,
        out.dtype,
        roles=roles,
        eps=1.1920928955078125e-07 if eps is None else float(eps),
        rms=True,
    )


def _softmax(log: bool) -> Rule:
    def rule(b: Builder) -> Value:
        x, out = b.tensor(), b.node.output
        if x.dtype is not DType.F32 or out.dtype is not DType.F32:
            raise Unsupported(f"softmax from {x.dtype.value} to {out.dtype.value}")
        axis = axis_of(x, b.arg("dim"))
        axes = [a for a in range(x.rank) if a != axis] + [axis]
        moved = b.permute(x, axes)
        y = b.emit("go.softmax", [moved], moved.shape, out.dtype, log=log)
        return b.permute(y, [axes.index(a) for a in range(x.rank)])

    return rule


def _reduce(kind: str) -> Rule:
    def rule(b: Builder) -> Value:
        x, out = b.tensor(), b.node.outputs[0]
        if len(b.node.outputs) > 1:
            raise Unsupported(f"{kind} that also returns indices")
        axes = b.arg("dim")
        if axes is None or axes == []:
            axes = list(range(x.rank))
        axes = [axes] if isinstance(axes, int) else axes
        reduced = tuple(sorted(axis_of(x, a) for a in axes))
        x = b.cast(x, out.dtype) if kind in ("sum", "mean") else x
        x = b.cast(x, DType.F32) if x.dtype is DType.BF16 else x
        if kind == "any":
            x, kind_ = b.cast(x, DType.BOOL), "max"
        elif kind == "all":
            x, kind_ = b.cast(x, DType.BOOL), "min"
        else:
            kind_ = kind
        kept = tuple(1 if a in reduced else e for a, e in enumerate(x.shape))
        made = DType.F32 if out.dtype is DType.BF16 else out.dtype
        y = b.emit("go.reduce", [x], kept, made, kind=kind_, axes=reduced)
        return b.cast(b.reshape(y, out.shape), out.dtype)

    return rule


def _item(b: Builder) -> list[Value]:
    """A size read from a tensor, which the model equates with a size of an input."""
    size = {"size": b.arg("size")}
    b.nodes.append(Node("go.check", [b.tensor()], [], size, b.node.origin))
    return []


def _attention(b: Builder) -> Value:
    q, k, v, out = b.tensor("query"), b.tensor("key"), b.tensor("value"), b.node.output
    if q.rank != 4 or q.dtype is not DType.F32:
        raise Unsupported("attention that is not 4-D f32")
    if b.arg("dropout_p", 0.0):
        raise Unsupported("attention with dropout")
    mask = b.arg("attn_mask")
    if mask is not None and mask.dtype is DType.BOOL:
        hidden = scalar.const(float("-inf"), DType.F32)
        shown = scalar.const(0.0, DType.F32)
        keep = scalar.operand(0, DType.BOOL)
        mask = b.pointwise(scalar.apply("where", keep, shown, hidden), [mask], mask.shape)
    inputs, roles = _roles(b, q=q, k=k, v=v, mask=mask)
    scale = b.arg("scale")
    if scale is None and not isinstance(q.shape[-1], int):
        raise Unsupported("attention whose head size varies")
    return b.emit(
        "go.attention",
        inputs,
        out.shape,
        out.dtype,
        roles=roles,
        scale=float(scale) if scale is not None else float(q.shape[-1]) ** -0.5,
        causal=bool(b.arg("is_causal", False)),
    )


RULES: dict[str, Rule] = {
    "aten.linear": _linear,
    "aten.addmm": _addmm,
    "aten.matmul": _matmul,
    "aten.bmm": _matmul,
    "aten.mm": _matmul,
    "aten.conv1d": _convolution,
    "aten.conv2d": _convolution,
    "aten.convolution": _convolution,
    "aten.layer_norm": _layer_norm,
    "aten.rms_norm": _rms_norm,
    "aten.softmax": _softmax(log=False),
    "aten._softmax": _softmax(log=False),
    "aten.log_softmax": _softmax(log=True),
    "aten._log_softmax": _softmax(log=True),
    **{f"aten.{k}": _reduce(k) for k in ("sum", "mean", "any", "all")},
    **{f"aten.{a}": _reduce(k) for a, k in (("amax", "max"), ("amin", "min"), ("max", "max"))},
    "aten.min": _reduce("min"),
    "aten.item": _item,
    "aten.scaled_dot_product_attention": _attention,
}
