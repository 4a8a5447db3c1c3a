"""Ops with inner products or reductions: linear, matmul, norms, softmax, sums."""

from __future__ import annotations

from typing import Any

from graphopt.ir import DType, Node, Shape, Value, scalar
from graphopt.ir.ops import Attention, Check, Linear, Matmul
from graphopt.passes.lowering.builder import Builder, Unsupported, require_f32
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


def _item(b: Builder) -> list[Value]:
    """A size read from a tensor, which the model equates with a size of an input."""
    if b.op.size is None:
        raise Unsupported("a number that the model takes for a size, and that no input has")
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
    **rules(_item, "aten::item(Tensor self) -> Scalar"),
    **rules(
        _attention,
        "aten::scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, "
        "Tensor? attn_mask=None, float dropout_p=0., bool is_causal=False, *, "
        "float? scale=None, bool enable_gqa=False) -> Tensor",
    ),
}
