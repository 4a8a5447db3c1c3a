"""What picks the elements that are not zero: as many as data decide, or a known number."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import DType, Shape, Value, scalar
from graphopt.ir.indices import quotient, remainder
from graphopt.ir.ops import Cat
from graphopt.ir.symbolic import contiguous_strides, product
from graphopt.passes.lowering.builder import Builder, Unsupported, broadcast
from graphopt.passes.lowering.indexing import at_hand
from graphopt.passes.lowering.loads import chosen, loaded, number
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def places(b: Builder, found: Value, shape: Shape) -> list[Value]:
    """Row-major indices as one along each axis.

    Args:
        b: gets the nodes.
        found: i64[n].
        shape: of what they are indices of.
    """
    if len(shape) == 1:
        return [found]
    flat = scalar.operand(0, DType.I64)
    at = [quotient(flat, step) for step in contiguous_strides(shape)]
    at[1:] = [remainder(p, extent) for p, extent in zip(at[1:], shape[1:], strict=True)]
    return [b.pointwise(place, [found], found.shape) for place in at]


def _columns(b: Builder, columns: Sequence[Value], shape: Shape) -> Value:
    """Places side by side: i64[n, axes]."""
    if not columns:
        raise Unsupported("indices of a tensor without axes")
    rows = [b.reshape(column, (column.shape[0], 1)) for column in columns]
    return rows[0] if len(rows) == 1 else b.emit(Cat(1), *rows, shape=shape)


def _nonzero(b: Builder) -> Value:
    x, out = b.tensor(), b.node.output
    found = b.nonzero(x, x.shape, out.shape[0])
    return _columns(b, places(b, found, x.shape) if x.rank else [], out.shape)


def _by_axis(name: str) -> Lowering:
    """The places along each axis of what an argument holds, of which one without axes has one."""

    def rule(b: Builder) -> list[Value]:
        x = b.tensor(name)
        shape = x.shape or (1,)
        return places(b, b.nonzero(x, shape, b.node.outputs[0].shape[0]), shape)

    return rule


def _nonzero_static(b: Builder) -> Value:
    """Rows behind the last one are filled."""
    x, out, fill = b.tensor(), b.node.output, b.arg("fill_value", -1)
    found = b.first_nonzero(x, x.shape, b.arg("size"))
    here = scalar.operand(1, DType.I64) >= 0
    columns = [
        b.pointwise(
            chosen(here, scalar.operand(0, DType.I64), number(fill, DType.I64)),
            [column, found],
            found.shape,
        )
        for column in (places(b, found, x.shape) if x.rank else [])
    ]
    return _columns(b, columns, out.shape)


def _masked_select(b: Builder) -> Value:
    x, mask, out = b.tensor(), b.tensor("mask"), b.node.output
    shape = broadcast(x.shape, mask.shape)
    found = b.nonzero(mask, shape, out.shape[0])
    flat = b.reshape(b.expand(x, shape), (product(shape),))
    return loaded(b, flat, [at_hand(1, found, flat.shape[0], wraps=False)], out.shape, found)


RULES: dict[str, Rule] = {
    **rules(_nonzero, "aten::nonzero(Tensor self) -> Tensor"),
    **rules(_by_axis("self"), "aten::nonzero_numpy(Tensor self) -> Tensor[]"),
    **rules(_by_axis("condition"), "aten::where(Tensor condition) -> Tensor[]"),
    **rules(
        _nonzero_static,
        "aten::nonzero_static(Tensor self, *, SymInt size, int fill_value=-1) -> Tensor",
    ),
    **rules(_masked_select, "aten::masked_select(Tensor self, Tensor mask) -> Tensor"),
}
