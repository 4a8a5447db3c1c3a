"""Sizes that a model reads from tensors and that must be those of inputs.

    steps = torch.arange(lengths.max())[None] < lengths[:, None]      # bool[B, u]
    y = x * steps[:, :, None]                                         # x: f32[B, T, C]

torch.export takes the number for a size `u` of its own and asserts what must hold of it, here that
`u` is `T`, or of a mask that was cut as x was, that one expression of `u` is another of `T`. Where
all of that holds for `u = T`, the number is `T`, and every call is checked for it; so it is for an
expression, such as `T // 2`, that the number itself is asserted to be. Of other numbers nothing is
known before torch has read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import sympy

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
