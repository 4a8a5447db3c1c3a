"""Ops that look elements up by index tensors: advanced indexing, gather, take, embedding."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import Dim, DType, Value, scalar
from graphopt.ir.indices import place
from graphopt.ir.ops import Gather
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import product
from graphopt.passes.lowering.builder import Builder, Unsupported, axis_of
from graphopt.passes.lowering.loads import computed, here, loaded
from graphopt.passes.lowering.schema import Rule, rules


def is_mask(indices: Value) -> bool:
    """Whether an index tensor says of each element whether it is picked."""
    return indices.dtype in (DType.BOOL, DType.U8)


def whole(indices: Value) -> Value:
    """An index tensor; raises Unsupported for a mask."""
    if indices.dtype.is_float or is_mask(indices):
        raise Unsupported(f"an index tensor of {indices.dtype.value}")
    return indices


def at_hand(number: int, indices: Value, extent: Dim, wraps: bool) -> Scalar:
    """The index that a tensor holds for the current element, checked.

    Args:
        number: of the operand that the index tensor is.
        indices: the index tensor.
        extent: of the axis that is indexed.
        wraps: whether negative ones count from the end.
    """
    position = scalar.cast(scalar.operand(number, indices.dtype), DType.I64)
    if wraps:
        position = scalar.wrap(position, extent)
    return scalar.check(position, extent)


def require_elements(x: Value) -> None:
    """Raises Unsupported for a tensor that certainly has none."""
    if 0 in x.shape:
        raise Unsupported("a lookup in a tensor without elements")


def given_indices(b: Builder, x: Value) -> list[Value | None]:
    """The index tensors of advanced indexing, by axis."""
    found = [None if indices is None else whole(indices) for indices in b.arg("indices")]
    if len(found) > x.rank or not any(found):
        raise Unsupported("advanced indexing without index tensors")
    return [*found, *[None] * (x.rank - len(found))]


def place_of_result(indexed: Sequence[int]) -> int:
    """Where the axes of index tensors are in a result: in place of theirs if these adjoin."""
    adjoin = list(indexed) == list(range(indexed[0], indexed[0] + len(indexed)))
    return indexed[0] if adjoin else 0


def _index(b: Builder) -> Value:
    x, out = b.tensor(), b.node.output
    require_elements(x)
    given = b.arg("indices")
    if any(indices is not None and is_mask(indices) for indices in given):
        x, tensors = _by_mask(b, x, given)
    else:
        tensors = given_indices(b, x)
    indexed = [axis for axis, t in enumerate(tensors) if t is not None]
    first, rank = place_of_result(indexed), max(t.rank for t in tensors if t is not None)
    if indexed == [0] and x.rank > 1:
        return _rows(b, x, tensors[0], wraps=True)
    positions = here(out.shape)
    kept = positions[:first] + positions[first + rank :]
    behind = out.rank - first - rank
    operands: list[Value] = []
    places: list[Scalar] = []
    for axis, tensor in enumerate(tensors):
        if tensor is None:
            places.append(kept.pop(0))
            continue
        operands.append(b.reshape(tensor, (*tensor.shape, *[1] * behind)))
        places.append(at_hand(len(operands), tensor, x.shape[axis], wraps=True))
    return loaded(b, x, places, out.shape, *operands)


def _by_mask(
    b: Builder, x: Value, given: Sequence[Value | None]
) -> tuple[Value, list[Value | None]]:
    """What a mask picks, as advanced indexing by whole numbers: of what, and the index tensors.

    The axes of the mask become one.
    """
    (mask, *others) = [indices for indices in given if indices is not None and is_mask(indices)]
    axis = next(i for i, indices in enumerate(given) if indices is mask)
    if others or mask.rank == 0:
        raise Unsupported("advanced indexing by several masks, or by one without axes")
    behind = axis + mask.rank
    merged = (*x.shape[:axis], product(x.shape[axis:behind]), *x.shape[behind:])
    left = b.reshape(x, merged)
    tensors = [i if i is None or i is mask else whole(i) for i in given]
    tensors += [None] * (left.rank - len(tensors))
    indexed = [a for a, t in enumerate(tensors) if t is not None]
    rank = max([1, *(t.rank for t in tensors if t is not None and t is not mask)])
    size = b.node.output.shape[place_of_result(indexed) + rank - 1]
    tensors[axis] = b.nonzero(mask, mask.shape, size)
    return left, tensors


def _rows(b: Builder, x: Value, indices: Value | None, wraps: bool) -> Value:
    """Whole rows along axis 0, each copied at once."""
    assert indices is not None
    if wraps and (indices.data is None or (indices.data < 0).any()):
        position = scalar.cast(scalar.operand(0, indices.dtype), DType.I64)
        indices = b.pointwise(scalar.wrap(position, x.shape[0]), [indices], indices.shape)
    if indices.dtype not in (DType.I32, DType.I64):
        indices = b.cast(indices, DType.I64)
    return b.emit(Gather(), x, indices, shape=b.node.output.shape)


def _embedding(b: Builder) -> Value:
    return _rows(b, b.tensor("weight"), b.tensor("indices"), wraps=False)


def _index_select(b: Builder) -> Value:
    x, indices, out = b.tensor(), b.tensor("index"), b.node.output
    require_elements(x)
    if x.rank == 0:
        b.arg("dim")
        return loaded(b, x, [], out.shape)
    axis = axis_of(x, b.arg("dim"))
    if axis == 0 and x.rank > 1 and indices.rank == 1:
        return _rows(b, x, indices, wraps=False)
    places = here(out.shape)
    places[axis] = at_hand(1, indices, x.shape[axis], wraps=False)
    aligned = b.reshape(indices, (out.shape[axis], *[1] * (x.rank - axis - 1)))
    return loaded(b, x, places, out.shape, aligned)


def _gather(b: Builder) -> Value:
    x, indices, out = b.tensor(), b.tensor("index"), b.node.output
    require_elements(x)
    if x.rank == 0 or indices.rank == 0:
        raise Unsupported("a gather from or by a tensor without axes")
    axis = axis_of(x, b.arg("dim"))
    places = here(out.shape)
    places[axis] = at_hand(1, indices, x.shape[axis], wraps=False)
    return loaded(b, x, places, out.shape, indices)


def _take(b: Builder) -> Value:
    x, indices, out = b.tensor(), whole(b.tensor("index")), b.node.output
    require_elements(x)
    flat = b.reshape(x, (product(x.shape),))
    return loaded(b, flat, [at_hand(1, indices, flat.shape[0], True)], out.shape, indices)


def _take_along_dim(b: Builder) -> Value:
    x, indices, out = b.tensor(), b.tensor("indices"), b.node.output
    require_elements(x)
    if b.arg("dim") is None:
        flat = b.reshape(x, (product(x.shape),))
        given = b.reshape(indices, out.shape)
        return loaded(b, flat, [at_hand(1, given, flat.shape[0], False)], out.shape, given)
    axis = axis_of(x, b.arg("dim"))
    places = [place(0) if e == 1 else i for e, i in zip(x.shape, here(out.shape), strict=True)]
    places[axis] = at_hand(1, indices, x.shape[axis], wraps=False)
    return loaded(b, x, places, out.shape, indices)


def _one_hot(b: Builder) -> Value:
    x, classes, out = b.tensor(), b.arg("num_classes", -1), b.node.output
    if isinstance(classes, int) and classes < 0:
        raise Unsupported("as many classes as the largest index says")
    column = b.reshape(x, (*x.shape, 1))
    one = scalar.apply("eq", at_hand(0, x, classes, wraps=False), scalar.index(out.rank - 1))
    return computed(b, scalar.cast(one, out.dtype), [column])


RULES: dict[str, Rule] = {
    **rules(_index, "aten::index.Tensor(Tensor self, Tensor?[] indices) -> Tensor"),
    **rules(
        _embedding,
        "aten::embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, "
        "bool scale_grad_by_freq=False, bool sparse=False) -> Tensor",
        implied="padding_idx scale_grad_by_freq sparse",
    ),
    **rules(_index_select, "aten::index_select(Tensor self, int dim, Tensor index) -> Tensor"),
    **rules(
        _gather,
        "aten::gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor",
        implied="sparse_grad",
    ),
    **rules(_take, "aten::take(Tensor self, Tensor index) -> Tensor"),
    **rules(
        _take_along_dim,
        "aten::take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor",
    ),
    **rules(_one_hot, "aten::one_hot(Tensor self, int num_classes=-1) -> Tensor"),
}
