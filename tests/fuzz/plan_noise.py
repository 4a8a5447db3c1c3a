"""How far compiled code may be from its plan in numpy, where that rounds to few bits.

Both round the same numbers in the same way, but sum them in different orders, so that a last bit of
f32 differs here and there, and with it the side to which a number close to a tie is rounded. That
is a step of int8 or a bit of bf16 in single elements, not in all of them as the loss of the
precision is. What it makes of a result is measured: the plan runs again while all that its nodes
read is off by many times a last bit, so that many more numbers fall to the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from unittest.mock import patch

import numpy as np
import torch
from reference import difference

from graphopt.ir import Node
from graphopt.ir.interpret import run_node
from graphopt.ir.op import Array, Sizes

#: By how much operands are off, of each element: 2**9 roundings of f32, for a few of a long sum. Of
#: the numbers in a row of int8, one in sixty falls to the other side then.
OFF = 2.0**-15


def deviations(run: Callable[[], list[torch.Tensor]], runs: int) -> Iterator[list[float]]:
    """The largest differences so far of what runs with noise give: before the first, after each.

    Args:
        run: interprets plans; results are compared with those without noise.
        runs: how many.
    """
    exact = run()
    largest = [0.0] * len(exact)
    yield largest
    for seed in range(runs):
        with patch("graphopt.ir.interpret.run_node", _Noisy(seed)):
            noisy = run()
        largest = [max(m, difference(b, a)) for m, a, b in zip(largest, exact, noisy, strict=True)]
        yield largest


class _Noisy:
    """`run_node` of operands that are off, but for constants and for rows that are quantized."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def __call__(self, node: Node, arrays: Sequence[Array], sizes: Sizes) -> list[Array]:
        given = zip(node.inputs, arrays, strict=True)
        return run_node(
            node, [a if v.is_constant or v.packed else self._off(a) for v, a in given], sizes
        )

    def _off(self, array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        factors = 1 + OFF * self.random.uniform(-1, 1, array.shape)
        return np.asarray(array * factors, array.dtype)
