"""Brings chains of permutes and unit reshapes to one form and moves them behind arithmetic.

    %1 = go.permute(%0, axes=(0, 2, 1))
    %2 = go.permute(%1, axes=(0, 2, 1))    ->    uses of %2 read %0

    %1 = go.permute(%a, axes=P)                  %1 = go.pointwise(%a, %b)
    %2 = go.permute(%b, axes=P)            ->    %3 = go.permute(%1, axes=P)
    %3 = go.pointwise(%1, %2)

The canonical form of a chain is one permute of the axes that matter, then one reshape that adds
extents of 1. A reshape that merges or splits axes ends a chain. Where a permuted one is the result
of a product, whose kernel can do the arithmetic, operands of its shape that are no views are
permuted back. Arithmetic that reads an index of its output, loads, or has another mix of different
views, is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.ir import Graph, Node, Value
from graphopt.ir.ops import Linear, Permute, Pointwise, Reshape
from graphopt.ir.printer import print_graph
from graphopt.passes.base import Pass


@dataclass(frozen=True)
class _View:
    """Output axis i is axis `axes[i]` of `base`, or a new extent of 1 where None."""

    base: Value
    axes: tuple[int | None, ...]


class SimplifyViews(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep; views of views are resolved on the way."""
        self._views: dict[Value, _View] = {}
        self._made: dict[tuple[Value, tuple[int | None, ...]], Value] = {}
        self._products: set[Value] = set()
        mapping: dict[Value, Value] = {}
        before = print_graph(graph)
        nodes: list[Node] = []
        for node in graph.nodes:
            node.replace_operands(mapping)
            if isinstance(node.op, Permute | Reshape):
                view = self._view_of(node)
                if view is not None:
                    mapping[node.output] = self._emit(view, node, nodes)
                    continue
            elif isinstance(node.op, Pointwise):
                sunk = self._sink(node, nodes)
                if sunk is not None:
                    mapping[node.output] = sunk
                    continue
            self._note_product(node)
            nodes.append(node)
        graph.nodes = nodes
        graph.replace(mapping)
        self._drop_unread(graph)
        return print_graph(graph) != before

    def _note_product(self, node: Node) -> None:
        """Remembers what a linear makes, and arithmetic on it."""
        if isinstance(node.op, Linear) or (
            isinstance(node.op, Pointwise) and not self._products.isdisjoint(node.inputs)
        ):
            self._products.update(node.outputs)

    @staticmethod
    def _drop_unread(graph: Graph) -> None:
        read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs)
        for node in reversed(graph.nodes):
            if isinstance(node.op, Permute | Reshape) and node.output not in read:
                graph.nodes.remove(node)
                read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs)

    def _view_of(self, node: Node) -> _View | None:
        x = node.operands["x"]
        inner = self._views.get(x, _View(x, tuple(range(x.rank))))
        if isinstance(node.op, Permute):
            return _View(inner.base, tuple(inner.axes[a] for a in node.op.axes))
        axes = unit_reshape(x.shape, node.output.shape)
        if axes is None:
            return None
        return _View(inner.base, tuple(None if a is None else inner.axes[a] for a in axes))

    def _emit(self, view: _View, node: Node, nodes: list[Node]) -> Value:
        """The value of a view in canonical form, made once."""
        view = _View(
            view.base,
            tuple(None if a is not None and view.base.shape[a] == 1 else a for a in view.axes),
        )
        full = self._with_units(view)
        if full is not None:
            return view.base
        key = (view.base, view.axes)
        if key in self._made:
            return self._made[key]
        kept = [a for a in view.axes if a is not None]
        units = [a for a in range(view.base.rank) if a not in kept]
        value = view.base
        order = tuple(kept + units)
        if order != tuple(range(value.rank)) and kept != sorted(kept):
            nodes.append(Node.of(Permute(order), value, origin=node.origin))
            value = nodes[-1].output
            self._views[value] = _View(view.base, order)
        if value.shape != node.output.shape:
            nodes.append(Node.of(Reshape(node.output.shape), value, origin=node.origin))
            value = nodes[-1].output
        self._views[value] = view
        self._made[key] = value
        return value

    @staticmethod
    def _with_units(view: _View) -> Value | None:
        """The base itself if the view changes neither the order nor the shape."""
        shape = tuple(1 if a is None else view.base.shape[a] for a in view.axes)
        kept = [a for a in view.axes if a is not None]
        return view.base if shape == view.base.shape and kept == sorted(kept) else None

    def _sink(self, node: Node, nodes: list[Node]) -> Value | None:
        """Moves the common view of all operands behind the node."""
        expr, views = node.as_op(Pointwise).expr, [self._views.get(v) for v in node.inputs]
        axes = {v.axes for v in views if v is not None}
        if len(axes) != 1 or any(s.op in ("index", "load") for s in expr.walk()):
            return None
        (common,) = axes
        out = node.output
        if len(common) != out.rank or any(
            v.rank > out.rank or (v.rank < out.rank and not v.is_constant) for v in node.inputs
        ):
            return None
        base_rank = next(v.base.rank for v in views if v is not None)
        if any(v is not None and v.base.rank != base_rank for v in views):
            return None
        if not all(
            v is not None
            or value.is_constant
            or (len(common) == base_rank and self._is_permuted_back(value, node, common))
            for v, value in zip(views, node.inputs, strict=True)
        ):
            return None
        if any(a is None and out.shape[i] != 1 for i, a in enumerate(common)):
            return None
        bases = [
            v.base if v is not None else self._behind(value, common, base_rank, node, nodes)
            for v, value in zip(views, node.inputs, strict=True)
        ]
        shape = [next(v.base.shape[a] for v in views if v is not None) for a in range(base_rank)]
        for i, a in enumerate(common):
            if a is not None:
                shape[a] = out.shape[i]
        sunk = Node.of(Pointwise(expr, tuple(shape)), *bases, origin=node.origin)
        sunk.fused, sunk.reasons = node.fused, node.reasons
        inner = sunk.output
        inner.name = out.name
        self._note_product(sunk)
        nodes.append(sunk)
        return self._emit(_View(inner, common), node, nodes)

    def _is_permuted_back(self, value: Value, node: Node, axes: tuple[int | None, ...]) -> bool:
        """Whether an operand that is no view is to be read by the kernel of a product."""
        bases = {self._views[v].base for v in node.inputs if v in self._views}
        return (
            None not in axes
            and value.shape == node.output.shape
            and value not in self._products
            and not self._products.isdisjoint(bases)
        )

    def _behind(
        self,
        value: Value,
        axes: tuple[int | None, ...],
        rank: int,
        node: Node,
        nodes: list[Node],
    ) -> Value:
        """What is read in place of an operand that is no view."""
        if value.is_constant:
            return _constant_behind(value, axes, rank)
        back = [axes.index(a) for a in range(rank)]
        nodes.append(Node.of(Permute(tuple(back)), value, origin=node.origin))
        permuted = nodes[-1].output
        self._views[permuted] = _View(value, tuple(back))
        return permuted


def unit_reshape(
    before: tuple[object, ...], after: tuple[object, ...]
) -> tuple[int | None, ...] | None:
    """For each extent of `after` its axis in `before`, if they differ in extents of 1 only."""
    kept = [i for i, e in enumerate(before) if e != 1]
    if [before[i] for i in kept] != [e for e in after if e != 1]:
        return None
    rest = iter(kept)
    return tuple(None if e == 1 else next(rest) for e in after)


def _is_number(value: Value) -> bool:
    return value.data is not None and value.data.size == 1


def _constant_behind(value: Value, axes: tuple[int | None, ...], rank: int) -> Value:
    """The constant as it broadcasts against the base instead of the view."""
    if value.data is None:
        return value
    if _is_number(value):
        if value.rank <= rank:
            return value
        return Value(value.dtype, (1,) * rank, value.name, data=value.data.reshape((1,) * rank))
    order = [a for a in axes if a is not None]
    padded = (1,) * (len(axes) - value.rank) + value.shape
    squeezed = value.data.reshape([e for e, a in zip(padded, axes, strict=True) if a is not None])
    shape = [1] * rank
    for extent, a in zip(squeezed.shape, order, strict=True):
        shape[a] = extent
    data = np.array(squeezed.transpose(np.argsort(order)).reshape(shape), order="C")
    return Value(value.dtype, data.shape, value.name, data=data)
