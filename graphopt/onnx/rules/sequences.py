"""Sequences whose length is known: lists of tensors, of which nothing is left in the graph."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import DType, Value
from graphopt.ir.symbolic import simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Tensor
from graphopt.onnx.rules.loops import stacked
from graphopt.onnx.rules.table import Table, merged, since
from graphopt.passes.lowering.builder import Builder, Unsupported


class Items(Tensor):
    """A sequence in the place of a tensor.

    Args:
        items: its tensors.
    """

    def __init__(self, items: Sequence[Tensor]) -> None:
        super().__init__(DType.BOOL, ())
        self.items = list(items)

    def value(self, b: Builder) -> Value:
        """Raises Unsupported: it is no tensor."""
        raise Unsupported("a sequence in the place of a tensor")


def _items(c: Call) -> list[Tensor]:
    given = c.tensor()
    if not isinstance(given, Items):
        raise Malformed("a tensor in the place of a sequence")
    return given.items


def _place(c: Call, number: int, end: int) -> int | None:
    """A position that may count from the end, below `end`; None if it is not given."""
    place = c.number(number, "a position")
    if place is None:
        return None
    if not -end <= place < end:
        raise Malformed(f"position {place} of {end}")
    return int(place) % end


def _empty(c: Call) -> Tensor:
    c.harmless("dtype")
    return Items([])


def _construct(c: Call) -> Tensor:
    return Items([c.tensor(i) for i in range(c.count)])


def _insert(c: Call) -> Tensor:
    items, item = _items(c), c.tensor(1)
    place = c.number(2, "a position")
    at = len(items) if place is None else int(place)
    if not -len(items) <= at <= len(items):
        raise Malformed(f"position {at} of {len(items)}")
    at = at + len(items) if at < 0 else at
    return Items([*items[:at], item, *items[at:]])


def _erase(c: Call) -> Tensor:
    items = _items(c)
    place = _place(c, 1, len(items))
    at = len(items) - 1 if place is None else place
    return Items([*items[:at], *items[at + 1 :]])


def _at(c: Call) -> Tensor:
    items = _items(c)
    place = _place(c, 1, len(items))
    if place is None:
        raise Malformed("it lacks a position")
    return items[place]


def _length(c: Call) -> Tensor:
    return Tensor.known(len(_items(c)), DType.I64)


def _concat(c: Call) -> Tensor:
    items, axis = _items(c), c.required("axis")
    if c.attr("new_axis", 0):
        return stacked(c, items, axis)
    if not items:
        raise Unsupported("the elements of an empty sequence")
    values = [item.value(c.b) for item in items]
    first = values[0]
    at = c.axis(axis, first.rank)
    for value in values[1:]:
        if value.dtype is not first.dtype or value.rank != first.rank:
            raise Malformed("elements of a sequence that do not fit")
        for a, (mine, its) in enumerate(zip(first.shape, value.shape, strict=True)):
            if a != at:
                c.require_equal(mine, its, "elements of a sequence")
    total = simplify(sum(v.shape[at] for v in values))
    shape = (*first.shape[:at], total, *first.shape[at + 1 :])
    return Tensor.of(c.aten("cat", (first.dtype, shape), tensors=values, dim=at)[0])


def _split(c: Call) -> Tensor:
    x, keep = c.x(), c.attr("keepdims", 1)
    axis = c.axis(c.attr("axis", 0), x.rank)
    extent, given = x.shape[axis], c.numbers(1, "lengths")
    if not isinstance(extent, int):
        raise Unsupported(f"a sequence of {extent} elements")
    if given is None or given.ndim == 0:
        step = 1 if given is None else int(given)
        if step < 1:
            raise Malformed(f"parts of {step}")
        lengths = [min(step, extent - at) for at in range(0, extent, step)]
    else:
        lengths = [int(n) for n in given]
    if sum(lengths) != extent or min(lengths, default=0) < 0:
        raise Malformed(f"parts of {lengths} of {extent} elements")
    items, at = [], 0
    for length in lengths:
        part = c.b.slice(x, axis, at, length)
        if given is None and not keep:
            part = c.b.reshape(part, (*x.shape[:axis], *x.shape[axis + 1 :]))
        items.append(Tensor.of(part))
        at += length
    return Items(items)


RULES: Table = merged(
    since(
        11,
        SequenceEmpty=_empty,
        SequenceConstruct=_construct,
        SequenceInsert=_insert,
        SequenceErase=_erase,
        SequenceAt=_at,
        SequenceLength=_length,
        ConcatFromSequence=_concat,
        SplitToSequence=_split,
    )
)
