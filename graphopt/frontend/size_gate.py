"""Whether the sizes of a call are those that a graph was captured for.

torch traces the same checks when it compiles a caller, so they are plain functions of sizes: no
sympy is left in them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sympy

from graphopt.errors import EmptyInputError, InputConditionError, InputError, InputShapeError
from graphopt.ir import Graph
from graphopt.ir.ops.elements import evaluate_scalar
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import ratio

_FUNCTIONS = {
    "Eq": operator.eq,
    "Ne": operator.ne,
    "Mod": operator.mod,
    "Max": max,
    "Min": min,
    "floor_div": operator.floordiv,
    "ceil_div": lambda a, b: -(-a // b),
}


class SizeGate:
    """The extents and conditions of a graph's inputs.

    Args:
        graph: its computed dims are of no concern here.
    """

    def __init__(self, graph: Graph) -> None:
        given = [info for info in graph.dims.values() if info.sources]
        dims = [info.symbol for info in given]
        self._names = [value.name for value in graph.inputs]
        self._shapes = [value.shape for value in graph.inputs]
        self._sources = [info.sources[0] for info in given]
        self._expected = [_function(dims, value.shape) for value in graph.inputs]
        conditions = filter(graph.known_at_entry, graph.conditions)
        self._conditions = [(c, _function(dims, [c])) for c in conditions]

    def misfit(self, shapes: Sequence[Sequence[Any]]) -> InputError | None:
        """The first thing that is wrong with the shapes of the inputs, which have the right ranks.

        A size that varies is not 0: torch.export does not note what a model asked about that.
        """
        if empty := self._empty(shapes):
            return empty
        try:
            return self._misfit(shapes)
        except ZeroDivisionError:
            return InputConditionError("the model divides by zero at these sizes")

    def _misfit(self, shapes: Sequence[Sequence[Any]]) -> InputError | None:
        sizes = [shapes[number][axis] for number, axis in self._sources]
        for condition in self._broken(sizes):
            text = f"the sizes do not satisfy {condition}"
            return InputConditionError(text, self._names, self._shapes)
        for name, expected, got in zip(self._names, self._expected, shapes, strict=True):
            for axis, size in enumerate(expected(*sizes)):
                if got[axis] != size:
                    return InputShapeError(name, axis, size, got[axis])
        return None

    def broken(self, shapes: Sequence[Sequence[Any]]) -> list[sympy.Basic]:
        """The conditions that the shapes do not satisfy."""
        return self._broken([shapes[number][axis] for number, axis in self._sources])

    def _broken(self, sizes: Sequence[Any]) -> list[sympy.Basic]:
        return [condition for condition, holds in self._conditions if not holds(*sizes)[0]]

    def _empty(self, shapes: Sequence[Sequence[Any]]) -> InputError | None:
        for number, axis in self._sources:
            if shapes[number][axis] == 0:
                return EmptyInputError(self._names[number], axis)
        return None


class SizeOf:
    """A number, or a condition, that follows from the sizes of a graph's inputs.

    Args:
        graph: whose dims it is made of.
        number: over those that inputs have.
    """

    def __init__(self, graph: Graph, number: sympy.Basic | Scalar) -> None:
        given = [info for info in graph.dims.values() if info.sources]
        self._dims = [info.symbol for info in given]
        self._sources = [info.sources[0] for info in given]
        self._number = number
        self._compute = None if isinstance(number, Scalar) else _function(self._dims, [number])

    def __call__(self, shapes: Sequence[Sequence[Any]]) -> Any:
        """What it is for inputs of these shapes."""
        sizes = [shapes[number][axis] for number, axis in self._sources]
        if self._compute is not None:
            return self._compute(*sizes)[0]
        return float(
            evaluate_scalar(self._number, [], (), dict(zip(self._dims, sizes, strict=True)))
        )

    def __str__(self) -> str:
        return str(self._number)


def _function(dims: Sequence[sympy.Symbol], exprs: Iterable[Any]) -> Callable[..., Any]:
    """A function of the dims that gives what the expressions are; nothing divides by zero there."""
    text = "".join(f"{_whole(sympy.sympify(expr))}, " for expr in exprs)
    names = ", ".join(map(str, dims))
    compute: Callable[..., Any] = eval(f"lambda {names}: ({text})", dict(_FUNCTIONS))
    return compute


def _whole(expr: sympy.Basic) -> sympy.Basic:
    """The expression with whole numbers and functions of them alone."""
    if isinstance(expr, sympy.floor | sympy.ceiling):
        name = "floor_div" if isinstance(expr, sympy.floor) else "ceil_div"
        return _quotient(name, *ratio(expr.args[0]))
    if isinstance(expr, sympy.Expr) and (parts := ratio(expr))[1] != 1:
        return _quotient("floor_div", *parts)
    return expr.func(*map(_whole, expr.args)) if expr.args else expr


def _quotient(name: str, numerator: sympy.Expr, denominator: sympy.Expr) -> sympy.Basic:
    return sympy.Function(name)(_whole(numerator), _whole(denominator))
