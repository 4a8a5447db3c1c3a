"""Ops with inner products or reductions: linear, matmul, norms, softmax, sums."""

from __future__ import annotations

from typing import Any

from graphopt.ir import DType, Node, Shape, Value, scalar, symbolic
from graphopt.ir.ops import Attention, Check, Linear, Matmul, Norm, Reduce, Softmax
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of, require_f32
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _linear(b: Builder) -> Value:
    x, weight, bias, out = b.tensor("input"), b.tensor("weight"), b.arg("bias"), b.node.output
    require_f32("linear", x, weight, bias)
    if weight.rank != 2:
        raise Unsupported(f"linear with weights of {weight.rank} axes")
    if weight.is_constant:
        _require_size(bias, weight.shape[0])
        return b.emit(Linear(), x, weight, bias=bias, shape=out.shape)
    y = _matmul_of(b, x, b.permute(weight, (1, 0)))
    if bias is None:
        return y
    added = scalar.apply("add", *(scalar.operand(i, DType.F32) for i in range(2)))
    return b.pointwise(added, [y, bias], out.shape)


def _require_size(bias: Value | None, size: Any) -> None:
    if bias is not None and bias.shape != (size,):
        raise Unsupported("a bias that is not one number for each output")


def _addmm(b: Builder) -> Value:
    if b.arg("beta", 1) != 1 or b.arg("alpha", 1) != 1:
        raise Unsupported("addmm with alpha or beta")
    bias, x, mat, out = b.tensor(), b.tensor("mat1"), b.tensor("mat2"), b.node.output
    require_f32("addmm", bias, x, mat)
    if mat.data is None:
        raise Unsupported("addmm without constant weights")
    _require_size(bias, mat.shape[1])
    weight = Value(mat.dtype, mat.shape[::-1], mat.name, data=mat.data.T.copy())
    return b.emit(Linear(), x, weight, bias=bias, shape=out.shape)


def _matmul(other: str) -> Lowering:
    return lambda b: _matmul_of(b, b.tensor(), b.tensor(other))


def _matmul_of(b: Builder, left: Value, right: Value) -> Value:
    out = b.node.output
    require_f32("matmul", left, right)
    if left.rank < 2 or right.rank < 2:
        raise Unsupported("matmul with a vector")
    if right.is_constant and right.rank == 2 and right.data is not None:
        weight = Value(right.dtype, right.shape[::-1], right.name, data=right.data.T.copy())
        return b.emit(Linear(), left, weight, shape=out.shape)
    if left.rank != right.rank or left.shape[:-2] != right.shape[:-2]:
        raise Unsupported("matmul that broadcasts its batch axes")
    return b.emit(Matmul(), left, right, shape=out.shape)


def _layer_norm(b: Builder) -> Value:
    x, out = b.tensor("input"), b.node.output
    weight, bias = b.arg("weight"), b.arg("bias")
    require_f32("layer norm", x, weight, bias)
    count = len(b.arg("normalized_shape"))
    flat = (*x.shape[: x.rank - count], symbolic.product(x.shape[x.rank - count :]))
    size = (flat[-1],)
    y = b.emit(
        Norm(float(b.arg("eps", 1e-5)), rms=False),
        b.reshape(x, flat),
        weight=None if weight is None else b.reshape(weight, size),
        bias=None if bias is None else b.reshape(bias, size),
    )
    return b.reshape(y, out.shape)


def _rms_norm(b: Builder) -> Value:
    x, weight, out = b.tensor("input"), b.arg("weight"), b.node.output
    require_f32("rms norm", x, weight)
    if len(b.arg("normalized_shape")) != 1:
        raise Unsupported("rms norm over several axes")
    eps = b.arg("eps")
    op = Norm(1.1920928955078125e-07 if eps is None else float(eps), rms=True)
    return b.emit(op, x, weight=weight, shape=out.shape)


def _softmax(log: bool) -> Lowering:
    def rule(b: Builder) -> Value:
        x, out = b.tensor(), b.node.output
        if x.dtype is not DType.F32 or out.dtype is not DType.F32:
            raise Unsupported(f"softmax from {x.dtype.value} to {out.dtype.value}")
        axis = axis_of(x, b.arg("dim"))
        axes = [a for a in range(x.rank) if a != axis] + [axis]
        moved = b.permute(x, axes)
        y = b.emit(Softmax(log), moved)
        return b.permute(y, [axes.index(a) for a in range(x.rank)])

    return rule


def _reduce(kind: str) -> Lowering:
    def rule(b: Builder) -> Value:
        x, out = b.tensor(), b.node.output
        axes = b.arg("dim")
        if axes is None or axes == [] or x.rank == 0:
            axes = list(range(x.rank))
        axes = [axes] if isinstance(axes, int) else axes
        reduced = tuple(sorted(axis_of(x, a) for a in axes))
        if kind in ("sum", "mean") and out.dtype is DType.BOOL:
            raise Unsupported(f"{kind} as bool")
        x = b.cast(x, out.dtype) if kind in ("sum", "mean") else x
        x = b.cast(x, DType.F32) if x.dtype.is_half else x
        if kind == "any":
            x, kind_ = b.cast(x, DType.BOOL), "max"
        elif kind == "all":
            x, kind_ = b.cast(x, DType.BOOL), "min"
        else:
            kind_ = kind
        y = b.emit(Reduce(kind_, reduced), x)
        return b.cast(b.reshape(y, out.shape), out.dtype)

    return rule


def _item(b: Builder) -> list[Value]:
    """A size read from a tensor, which the model equates with a size of an input."""
    b.nodes.append(Node.of(Check(b.op.size), b.tensor(), origin=b.node.origin))
    return []


def _attention(b: Builder) -> Value:
    q, k, v, out = b.tensor("query"), b.tensor("key"), b.tensor("value"), b.node.output
    mask, scale = b.arg("attn_mask"), b.arg("scale")
    require_f32("attention", q, k, v)
    if (q.rank, k.rank, v.rank) != (4, 4, 4):
        raise Unsupported("attention that is not 4-D")
    if b.arg("dropout_p", 0.0):
        raise Unsupported("attention with dropout")
    if not q.shape[0] == k.shape[0] == v.shape[0] or k.shape[1] != v.shape[1]:
        raise Unsupported("attention that broadcasts keys or values")
    if q.shape[1] != k.shape[1] and not b.arg("enable_gqa"):
        raise Unsupported("attention that broadcasts its heads")
    b.arg("enable_gqa")
    if scale is None and isinstance(q.shape[-1], int) and q.shape[-1] > 0:
        scale = float(q.shape[-1]) ** -0.5
    if not isinstance(scale, int | float):
        raise Unsupported("attention whose head size varies")
    if mask is not None:
        mask = _additive(b, mask, (*q.shape[:3], k.shape[2]))
    op = Attention(float(scale), causal=bool(b.arg("is_causal", False)), unseen_zero=True)
    return b.emit(op, q, k, v, mask=mask, shape=out.shape)


def _additive(b: Builder, mask: Value, scores: Shape) -> Value:
    """A mask to be added: 0 where one of bool is true, else -inf."""
    aligned = scores[4 - mask.rank :] if mask.rank <= 4 else ()
    if len(aligned) != mask.rank or any(
        m not in (1, s) for m, s in zip(mask.shape, aligned, strict=True)
    ):
        raise Unsupported("a mask that does not broadcast to the scores")
    if mask.dtype is not DType.BOOL:
        require_f32("attention with a mask", mask)
        return mask
    hidden = scalar.const(float("-inf"), DType.F32)
    shown = scalar.const(0.0, DType.F32)
    keep = scalar.operand(0, DType.BOOL)
    return b.pointwise(scalar.apply("where", keep, shown, hidden), [mask], mask.shape)


_SUM = "(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"


def _reductions(kinds: str, *schemas: str) -> dict[str, Rule]:
    """Rules for reductions whose schemas differ in `{kind}` alone."""
    return {
        overload: rule
        for kind in kinds.split()
        for overload, rule in rules(
            _reduce(kind), *(s.format(kind=kind) for s in schemas), implied="keepdim"
        ).items()
    }


RULES: dict[str, Rule] = {
    **rules(_linear, "aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"),
    **rules(
        _addmm,
        "aten::addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) "
        "-> Tensor",
    ),
    **rules(_matmul("other"), "aten::matmul(Tensor self, Tensor other) -> Tensor"),
    **rules(
        _matmul("mat2"),
        "aten::bmm(Tensor self, Tensor mat2) -> Tensor",
        "aten::mm(Tensor self, Tensor mat2) -> Tensor",
    ),
    **rules(
        _layer_norm,
        "aten::layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, "
        "Tensor? bias=None, float eps=1.0000000000000001e-05, bool cudnn_enable=True) -> Tensor",
        implied="cudnn_enable",
    ),
    **rules(
        _rms_norm,
        "aten::rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, "
        "float? eps=None) -> Tensor",
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
    **_reductions("sum mean", "aten::{kind}(Tensor self, *, ScalarType? dtype=None) -> Tensor"),
    **_reductions("sum", "aten::{kind}.dim_IntList" + _SUM),
    **_reductions("mean", "aten::{kind}.dim" + _SUM),
    **_reductions(
        "any all",
        "aten::{kind}(Tensor self) -> Tensor",
        "aten::{kind}.dim(Tensor self, int dim, bool keepdim=False) -> Tensor",
        "aten::{kind}.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor",
    ),
    **_reductions(
        "max min",
        "aten::{kind}(Tensor self) -> Tensor",
        "aten::a{kind}(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
    ),
    **rules(_item, "aten::item(Tensor self) -> Scalar"),
    **rules(
        _attention,
        "aten::scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, "
        "Tensor? attn_mask=None, float dropout_p=0., bool is_causal=False, *, "
        "float? scale=None, bool enable_gqa=False) -> Tensor",
    ),
}
