"""Turns elements that are read at plain indices into views, and drops checks that cannot fail.

    %0 = go.pointwise(expr=i0)                                    # i64[B]
    %1 = go.pointwise(%mask, %0, expr=x0[check(x1, B), i1])  ->   uses of %1 read %mask

1. An index that a tensor holds is computed in place of being read where it is arithmetic on indices
   and sizes: a range, behind views, or a constant that counts in equal steps.
2. Wraps of what is not negative and checks of what is inside for every size are left out.
3. A load whose indices are steps along different axes, inside for every size, is a slice with its
   axes in another order.
4. Rows of a table that follow each other are a slice of it.
Left alone: indices from data; steps backwards, or along two axes at once.
"""

from __future__ import annotations

import numpy as np

from graphopt.ir import Dim, DType, Graph, Node, Origin, Value, scalar
from graphopt.ir.indices import affine, bounds, place, plus, times
from graphopt.ir.op import Op
from graphopt.ir.ops import Expand, Gather, Permute, Pointwise, Reshape, Slice
from graphopt.ir.scalar import Scalar, rebuild, substitute
from graphopt.ir.symbolic import is_non_negative, simplify
from graphopt.passes.base import Pass
from graphopt.passes.simplify_views import unit_reshape

_MOST_COST = 8
_LARGEST = 1 << 20  # elements of a constant that is looked at


class SimplifyLoads(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep in topological order; views are inserted before their reader."""
        self._makers = graph.producers()
        mapping: dict[Value, Value] = {}
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            node.replace_operands(mapping)
            op, before = node.op, len(nodes)
            if isinstance(op, Gather) and op.format is None:
                found = self._rows(node, nodes)
            elif isinstance(op, Pointwise) and _has_indices(op.expr):
                found = self._pointwise(node, op, nodes)
                modified |= node.op != op
            else:
                found = None
            modified |= len(nodes) != before
            if found is not None:
                mapping[node.output] = found
            else:
                nodes.append(node)
        graph.nodes = nodes
        graph.replace(mapping)
        return modified or bool(mapping)

    def _pointwise(self, node: Node, op: Pointwise, nodes: list[Node]) -> Value | None:
        """Simplifies a node; returns the view that it is, if it is one."""
        inputs = list(node.inputs)
        expr = self._simplified(op, inputs)
        expr = self._with_views(expr, op, inputs, nodes, node.origin)
        if expr.op == "operand":
            return _expanded(inputs[expr.value], node, nodes)  # type: ignore[index]
        numbers = [i for i in range(len(inputs)) if any(_reads(s, i) for s in expr.walk())]
        read = list(dict.fromkeys(inputs[i] for i in numbers))

        def renumbered(s: Scalar) -> Scalar:
            if s.op not in ("operand", "load"):
                return s
            return Scalar(s.op, s.dtype, s.args, read.index(inputs[s.value]))  # type: ignore[index]

        node.op = Pointwise(substitute(expr, renumbered), op.shape)
        node.operands = {f"x{i}": v for i, v in enumerate(read)}
        return None

    def _rows(self, node: Node, nodes: list[Node]) -> Value | None:
        """The view that a lookup is, if its rows follow each other."""
        table, indices = node.operands["table"], node.operands["indices"]
        shape = node.output.shape
        at = [scalar.index(a) for a in range(len(shape))]
        row = scalar.check(scalar.cast(scalar.operand(1, indices.dtype), DType.I64), table.shape[0])
        op = Pointwise(scalar.load(0, table.dtype, (row, *at[indices.rank :])), shape)
        inputs, made = [table, indices], list[Node]()
        known = self._element(indices, at[: indices.rank])
        if known is None:
            return None
        replaced = substitute(op.expr, lambda s: known if _reads(s, 1) else s)
        expr = self._simplified(Pointwise(replaced, shape), inputs)
        expr = self._with_views(expr, op, inputs, made, node.origin)
        if expr.op != "operand":
            return None
        nodes += made
        return _expanded(inputs[expr.value], node, nodes)  # type: ignore[index]

    def _simplified(self, op: Pointwise, inputs: list[Value]) -> Scalar:
        """The expression with indices computed where they are known, without useless checks."""

        def known(s: Scalar) -> Scalar:
            if s.op != "operand":
                return s
            value = inputs[s.value]  # type: ignore[index]
            shift = len(op.shape) - value.rank
            at = [
                place(0) if e == 1 else scalar.index(a + shift) for a, e in enumerate(value.shape)
            ]
            return self._element(value, at) or s

        def plain(s: Scalar) -> Scalar:
            if s.op == "load":
                return Scalar(s.op, s.dtype, tuple(substitute(a, known) for a in s.args), s.value)
            return s

        def unchecked(s: Scalar) -> Scalar:
            if s.op == "index" and op.shape[s.value] == 1:  # type: ignore[index]
                return place(0)
            if s.op not in ("wrap", "check"):
                return s
            found = bounds(s.args[0], op.shape)
            below = found is not None and is_non_negative(found[0])
            if found is None or not below:
                return s
            rest = simplify(s.value - 1 - found[1])  # type: ignore[operator]
            return s.args[0] if s.op == "wrap" or is_non_negative(rest) else s

        return rebuild(substitute(op.expr, plain), unchecked)

    def _element(self, value: Value, at: list[Scalar]) -> Scalar | None:
        """The element of a tensor at some indices, if it is arithmetic on indices and sizes."""
        if value.dtype.is_float or value.dtype is DType.BOOL:
            return None
        if value.data is not None:
            return _counted(value, at)
        node = self._makers.get(value)
        if node is None:
            return None
        op, x = node.op, node.inputs[0] if node.inputs else None
        if isinstance(op, Pointwise):
            return self._computed(op, node.inputs, at)
        if x is None:
            return None
        moved = _behind(op, x, at)
        return None if moved is None else self._element(x, moved)

    def _computed(self, op: Pointwise, inputs: list[Value], at: list[Scalar]) -> Scalar | None:
        if op.expr.cost > _MOST_COST or any(s.op == "check" for s in op.expr.walk()):
            return None
        unknown = False

        def leaf(s: Scalar) -> Scalar:
            nonlocal unknown
            if s.op == "index":
                return at[s.value]  # type: ignore[index]
            if s.op not in ("operand", "load"):
                return s
            value = inputs[s.value]  # type: ignore[index]
            own = at[len(at) - value.rank :]
            here = [place(0) if e == 1 else i for e, i in zip(value.shape, own, strict=True)]
            element = self._element(value, list(s.args) if s.op == "load" else here)
            unknown |= element is None
            return element or s

        expr = substitute(op.expr, leaf)
        return None if unknown else expr

    @staticmethod
    def _with_views(
        expr: Scalar, op: Pointwise, inputs: list[Value], nodes: list[Node], origin: Origin
    ) -> Scalar:
        """The expression with loads at plain indices as operands, which are views."""
        made: dict[Scalar, int] = {}

        def read(s: Scalar) -> Scalar:
            if s.op != "load":
                return s
            if s not in made:
                view = _view(inputs[s.value], s.args, op, origin)  # type: ignore[index]
                if view is None:
                    return s
                value, steps = view
                nodes.extend(steps)
                inputs.append(value)
                made[s] = len(inputs) - 1
            return scalar.operand(made[s], s.dtype)

        return substitute(expr, read)


def _has_indices(expr: Scalar) -> bool:
    return any(s.op in ("load", "wrap", "check") for s in expr.walk())


def _reads(s: Scalar, number: int) -> bool:
    return s.op in ("operand", "load") and s.value == number


def _counted(value: Value, at: list[Scalar]) -> Scalar | None:
    """An element of a constant that counts in equal steps along one axis."""
    data = value.data
    if data is None or not 0 < data.size <= _LARGEST:
        return None
    first = int(data.reshape(-1)[0])
    steps = {axis: np.diff(data.astype(np.int64), axis=axis) for axis in range(data.ndim)}
    moving = {axis: step for axis, step in steps.items() if step.any()}
    expr = place(first)
    if len(moving) > 1:
        return None
    for axis, step in moving.items():
        if (step != step.reshape(-1)[0]).any():
            return None
        expr = plus(times(at[axis], int(step.reshape(-1)[0])), first)
    return scalar.cast(expr, value.dtype)


def _behind(op: Op, x: Value, at: list[Scalar]) -> list[Scalar] | None:
    """Where in x the element of a view of it lies."""
    if isinstance(op, Permute):
        moved = [place(0)] * x.rank
        for axis, index in zip(op.axes, at, strict=True):
            moved[axis] = index
        return moved
    if isinstance(op, Slice):
        moved = list(at)
        moved[op.axis] = plus(times(at[op.axis], op.step), op.start)
        return moved
    if isinstance(op, Expand):
        own = at[len(at) - x.rank :]
        return [place(0) if e == 1 else i for e, i in zip(x.shape, own, strict=True)]
    if isinstance(op, Reshape):
        kept = unit_reshape(x.shape, op.shape)
        if kept is None:
            return None
        moved = [place(0)] * x.rank
        for source, index in zip(kept, at, strict=True):
            if source is not None:
                moved[source] = index
        return moved
    return None


def _view(
    x: Value, indices: tuple[Scalar, ...], op: Pointwise, origin: Origin
) -> tuple[Value, list[Node]] | None:
    """What a load reads, as a view that broadcasts to the result; None where it is none."""
    nodes: list[Node] = []
    shape = op.shape
    along: dict[int, int] = {}

    def emit(made: Op, source: Value) -> Value:
        nodes.append(Node.of(made, source, origin=origin))
        return nodes[-1].output

    for axis, index in enumerate(indices):
        found = affine(index)
        if found is None or len(found.steps) > 1 or not is_non_negative(found.start):
            return None
        extent: Dim = 1
        step = 1
        for walked, stride in found.steps.items():
            if not isinstance(stride, int) or stride < 1 or walked in along:
                return None
            along[walked], extent, step = axis, shape[walked], stride
        last = simplify(found.start + step * (extent - 1))
        if not is_non_negative(simplify(x.shape[axis] - 1 - last)):  # a guard is around the load
            return None
        if found.start != 0 or step != 1 or x.shape[axis] != extent:
            x = emit(Slice(axis, found.start, extent, step), x)
    order = [along[walked] for walked in sorted(along)]
    order += [axis for axis in range(x.rank) if axis not in order]
    if order != sorted(order):
        x = emit(Permute(tuple(order)), x)
    units = tuple(shape[a] if a in along else 1 for a in range(len(shape)))
    return (x if x.shape == units else emit(Reshape(units), x)), nodes


def _expanded(value: Value, node: Node, nodes: list[Node]) -> Value:
    """A value in the shape of a node's result, to which it broadcasts."""
    if value.shape == node.output.shape:
        return value
    nodes.append(Node.of(Expand(node.output.shape), value, origin=node.origin))
    return nodes[-1].output
