"""Sizes that a model reads from tensors and that must be those of inputs.

    steps = torch.arange(lengths.max())[None] < lengths[:, None]      # bool[B, u]
    y = x * steps[:, :, None]                                         # x: f32[B, T, C]

torch.export takes the number for a size `u` of its own and asserts what must hold of it, here that
`u` is `T`, or of a mask that was cut as x was, that one expression of `u` is another of `T`. Where
all of that holds for `u = T`, the number is `T`, and every call is checked for it; so it is for an
expression, such as `T // 2`, that the number itself is asserted to be. Of other numbers at most
a bound is known: of parts of a tensor, whose sizes are asserted to add up to `T`, none is larger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import sympy

from graphopt.ir import Dim, Graph
from graphopt.ir.ops import Aten
from graphopt.ir.scalar import symbols_in
from graphopt.ir.symbolic import maximum, simplify

Sizes = dict[sympy.Symbol, sympy.Expr]


def sizes_of_inputs(asserts: Iterable[sympy.Basic], hints: Mapping[sympy.Symbol, int]) -> Sizes:
    """Which numbers read from tensors must be sizes of inputs.

    Args:
        asserts: what torch asserts of them.
        hints: the sizes of the inputs in the example.
    """
    equalities = [a for a in asserts if isinstance(a, sympy.Eq)]
    found: Sizes = {}
    for equality in equalities:
        unknown = equality.free_symbols - set(hints) - set(found)
        if len(unknown) != 1:
            continue
        (number,) = unknown
        known = {*hints, *found, number}
        of_number = [e for e in equalities if number in e.free_symbols <= known]
        known_of = [e.xreplace(found) for e in of_number]
        size = _size_of(number, known_of, hints) or _other_side(number, known_of)
        if size is not None:
            found[number] = size
    return found


def bound_read_sizes(graph: Graph) -> None:
    """Notes of numbers that nodes read from data, and that are sizes, how large these can be.

    Args:
        graph: of `aten.*` nodes, with what is asserted of sizes as its conditions.
    """
    known = {info.symbol for info in graph.dims.values() if info.sources}
    for node in graph.nodes:
        if node.op.computes and node.op.name == "aten.item":
            number, op = graph.dims[node.op.computes].symbol, node.as_op(Aten)
            op.bound = largest(number, graph.conditions, known)
            if op.bound is None:
                op.bound = _longest(number, graph, known)
                op.is_cut = op.bound is not None
        known |= symbols_in([value.shape for value in node.outputs])


def largest(
    number: sympy.Symbol, conditions: Iterable[sympy.Basic], known: Collection[sympy.Symbol]
) -> Dim | None:
    """The largest that a size can be by what holds of it; None if nothing says it.

    `a + b == T` bounds both, because neither is negative, and `Min(a, T) == a` bounds a.

    Args:
        number: the size.
        conditions: which hold.
        known: sizes that a bound may be made of.
    """
    for condition in conditions:
        for room in _not_negative(condition):
            taken = -room.coeff(number)
            left = sympy.expand(room + taken * number).replace(
                lambda part: isinstance(part, sympy.Min) and number in part.args,
                lambda part: _without(number, part),
            )
            if number in left.free_symbols or not (taken.is_Integer and taken > 0):
                continue
            terms = sympy.Add.make_args(sympy.expand(left))
            bound = sympy.Add(*(term for term in terms if not term.is_nonpositive))
            if bound.free_symbols and bound.free_symbols <= set(known):
                return simplify(sympy.floor(bound / taken))
    return None


def _without(number: sympy.Symbol, smallest: sympy.Expr) -> sympy.Expr:
    """The smallest of the others."""
    return sympy.Min(*(arg for arg in smallest.args if arg != number))


def _longest(number: sympy.Symbol, graph: Graph, known: Collection[sympy.Symbol]) -> Dim | None:
    """The longest axis that a number cuts; None if it is something else as well.

    Of `x[:, :n]` the extent is `Min(n, T)`: n may be taken for T if it is more.
    """
    axes: set[sympy.Expr] = set()

    def only_cuts(part: Any) -> bool:
        if number not in symbols_in(part):
            return True
        if isinstance(part, sympy.Min) and number in part.args:
            axes.add(_without(number, part))
            return True
        return isinstance(part, sympy.Basic) and part != number and all(map(only_cuts, part.args))

    for node in graph.nodes:
        if node.op.computes == number.name:
            continue
        given = dict(node.as_op(Aten).arguments)
        if node.op.name == "aten.slice":
            del given["start"], given["end"]
        extents = [extent for value in node.outputs for extent in value.shape]
        if not all(map(only_cuts, [*given.values(), *extents])):
            return None
    symbols = {symbol for axis in axes for symbol in axis.free_symbols}
    if not axes or not all(map(only_cuts, graph.conditions)) or not symbols <= set(known):
        return None
    return maximum(simplify(axis) for axis in axes)


def _not_negative(condition: sympy.Basic) -> list[sympy.Expr]:
    """Differences that are not negative where a condition holds."""
    if not isinstance(condition, sympy.core.relational.Relational):
        return []
    difference = sympy.expand(condition.lhs - condition.rhs)
    if isinstance(condition, sympy.Eq):
        return [difference, -difference]
    if isinstance(condition, sympy.GreaterThan | sympy.StrictGreaterThan):
        return [difference]
    return [-difference] if isinstance(condition, sympy.LessThan | sympy.StrictLessThan) else []


def _size_of(
    number: sympy.Symbol, equalities: list[sympy.Basic], hints: Mapping[sympy.Symbol, int]
) -> sympy.Symbol | None:
    """The size that a number must be for all equalities to hold, whatever the sizes are.

    If there is none, the only one for which they do in the example: then they are conditions.
    """
    sizes = {size for equality in equalities for size in equality.free_symbols & set(hints)}
    in_order = sorted(sizes, key=str)
    replaced = {s: [e.xreplace({number: s}) for e in equalities] for s in in_order}
    always = [s for s in in_order if all(_holds(e, hints) for e in replaced[s])]
    here = [s for s in in_order if all(e.xreplace(dict(hints)) == sympy.true for e in replaced[s])]
    return always[0] if always else here[0] if len(here) == 1 else None


def _other_side(number: sympy.Symbol, equalities: list[sympy.Basic]) -> sympy.Expr | None:
    """What is asserted to be the number itself, made of sizes."""
    for equality in equalities:
        for side, other in (equality.args, equality.args[::-1]):
            if side == number and number not in other.free_symbols:
                return other
    return None


def _holds(condition: sympy.Basic, hints: Mapping[sympy.Symbol, int]) -> bool:
    return all(condition.xreplace(sizes) == sympy.true for sizes in _tried(hints))


def _tried(hints: Mapping[sympy.Symbol, int]) -> Iterator[dict[sympy.Symbol, sympy.Integer]]:
    """Sizes from those of the example on: several periods of quotients by strides."""
    for step in range(48):
        yield {
            symbol: sympy.Integer(hint + (step if number % 2 == 0 else step * 5 % 7))
            for number, (symbol, hint) in enumerate(hints.items())
        }
