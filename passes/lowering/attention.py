"""Scaled dot-product attention of every rank, with broadcast batches and heads."""

from __future__ import annotations

from graphopt.ir import DType, Shape, Value, scalar, symbolic
from graphopt.ir.ops import Attention
from graphopt.passes.lowering.builder import Builder, Unsupported, broadcast, require_f32
from graphopt.passes.lowering.schema import Rule, rules


def _attention(b: Builder) -> Value:
    given = [b.tensor(name) for name in ("query", "key", "value")]
    mask, scale, out = b.arg("attn_mask"), b.arg("scale"), b.node.output
    require_f32("attention", *given)
    if b.arg("dropout_p", 0.0):
        raise Unsupported("attention with dropout")
    grouped = bool(b.arg("enable_gqa", False))
    if not grouped and max(v.rank for v in given) == 3:  # batches of one head
        given = [_one_head(b, v) for v in given]
        mask = mask if mask is None or mask.rank < 3 else _one_head(b, mask)
    shapes = [v.shape for v in given]
    batch = broadcast(*(shape[:-3] for shape in shapes))
    heads = [shape[-3] if len(shape) > 2 else 1 for shape in shapes]
    alike = broadcast(*((h,) for h in (heads[1:] if grouped else heads)))[0]
    wanted = [heads[0] if grouped else alike, alike, alike]
    if heads[1] == heads[2] == 1:
        wanted = [heads[0], 1, 1]  # one for all heads
    q, k, v = (_four_axes(b, x, batch, h) for x, h in zip(given, wanted, strict=True))
    if scale is None and isinstance(q.shape[-1], int) and q.shape[-1] > 0:
        scale = float(q.shape[-1]) ** -0.5
    if not isinstance(scale, int | float):
        raise Unsupported("attention whose head size varies")
    if mask is not None:
        mask = _additive(
            b, _of_four(b, mask, batch, max(map(len, shapes))), (*q.shape[:3], k.shape[2])
        )
    op = Attention(float(scale), causal=bool(b.arg("is_causal", False)), unseen_zero=True)
    return b.reshape(b.emit(op, q, k, v, mask=mask), out.shape)


def _one_head(b: Builder, x: Value) -> Value:
    """[.., 1, time, size] of [.., time, size]."""
    return b.reshape(x, (*x.shape[:-2], 1, *x.shape[-2:]))


def _four_axes(b: Builder, x: Value, batch: Shape, heads: object) -> Value:
    """[.., heads, time, size] with all batches in one axis; both are repeated as they must be."""
    x = b.reshape(x, (*[1] * (3 - x.rank), *x.shape))
    last = (heads, *x.shape[-2:])
    x = b.expand(x, (*batch, *last))
    return b.reshape(x, (symbolic.product(batch), *last))


def _of_four(b: Builder, mask: Value, batch: Shape, rank: int) -> Value:
    """A mask of the scores of operands of a rank, with all batches in one axis."""
    if mask.rank <= 3 or len(batch) == 1:
        return mask
    if mask.rank > rank:
        raise Unsupported("a mask that does not broadcast to the scores")
    front, last = mask.shape[:-3], mask.shape[-3:]
    if all(e == 1 for e in front):
        return b.reshape(mask, (1, *last))
    return b.reshape(b.expand(mask, (*batch, *last)), (symbolic.product(batch), *last))


def _additive(b: Builder, mask: Value, scores: Shape) -> Value:
    """A mask to be added: 0 where one of bool is true, else -inf."""
    aligned = scores[4 - mask.rank :] if mask.rank <= 4 else ()
    if len(aligned) != mask.rank:
        raise Unsupported("a mask that does not broadcast to the scores")
    extents = zip(mask.shape, aligned, strict=True)
    mask = b.expand(mask, tuple(1 if m == 1 else s for m, s in extents))
    if mask.dtype is not DType.BOOL:
        require_f32("attention with a mask", mask)
        return mask
    hidden = scalar.const(float("-inf"), DType.F32)
    shown = scalar.const(0.0, DType.F32)
    keep = scalar.operand(0, DType.BOOL)
    return b.pointwise(scalar.apply("where", keep, shown, hidden), [mask], mask.shape)


RULES: dict[str, Rule] = {
    **rules(
        _attention,
        "aten::scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, "
        "Tensor? attn_mask=None, float dropout_p=0., bool is_causal=False, *, "
        "float? scale=None, bool enable_gqa=False) -> Tensor",
    ),
}
