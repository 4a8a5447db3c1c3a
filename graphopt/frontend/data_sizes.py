"""Sizes that a model reads from tensors and that must be those of inputs.

    steps = torch.arange(lengths.max())[None] < lengths[:, None]      # bool[B, u]
    y = x * steps[:, :, None]                                         # x: f32[B, T, C]

torch.export takes the number for a size `u` of its own and asserts what must hold of it, here that
`u` is `T`, or of a mask that was cut as x was, that one expression of `u` is another of `T`. Where
that holds for `u = T`, the number is `T`, and every call is checked for it. Of other numbers
nothing is known before torch has read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import sympy

Sizes = dict[sympy.Symbol, sympy.Symbol]


def sizes_of_inputs(asserts: Iterable[sympy.Basic], hints: Mapping[sympy.Symbol, int]) -> Sizes:
    """Which numbers read from tensors must be sizes of inputs.

    Args:
        asserts: what torch asserts of them.
        hints: the sizes of the inputs in the example.
    """
    found: Sizes = {}
    for equality in asserts:
        unknown = equality.free_symbols - set(hints) - set(found)
        if not isinstance(equality, sympy.Eq) or len(unknown) != 1:
            continue
        (number,) = unknown
        for size in sorted(equality.free_symbols & set(hints), key=str):
            replaced = equality.xreplace({**found, number: size})
            if _holds(replaced, hints):
                found[number] = size
                break
    return found


def _holds(condition: sympy.Basic, hints: Mapping[sympy.Symbol, int]) -> bool:
    return all(condition.xreplace(sizes) == sympy.true for sizes in _tried(hints))


def _tried(hints: Mapping[sympy.Symbol, int]) -> Iterator[dict[sympy.Symbol, sympy.Integer]]:
    """Sizes from those of the example on: several periods of quotients by strides."""
    for step in range(48):
        yield {
            symbol: sympy.Integer(hint + (step if number % 2 == 0 else step * 5 % 7))
            for number, (symbol, hint) in enumerate(hints.items())
        }
