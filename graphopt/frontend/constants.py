"""What depends on constants alone, computed by torch while a program is imported.

    w = aten._weight_norm(v, g)
    y = aten.linear(x, w)             ->      y = aten.linear(x, constant)

So the weight of a linear or a convolution is a constant, however the model makes it. What a rule
makes of nothing, such as `arange` and `zeros`, and broadcasts, which cost memory as constants and
nothing as code, stay in the graph where something that is not constant reads them.
"""

from __future__ import annotations

import operator
from typing import Any

import sympy
import torch

_LARGEST = 64 << 20
"""Bytes of a result that is larger than what it is made of."""

#: Namespaces whose ops have no effects but those that their schemas say.
_PURE = {"aten", "prims", "quantized_decomposed"}
_UNDEFINED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty"}
#: Ops that generated code runs at no cost.
_FREE = {
    *("arange", "expand", "expand_as", "full", "full_like", "ones", "ones_like", "new_ones"),
    *("scalar_tensor", "zeros", "zeros_like", "new_zeros", "new_full"),
}


class Constants:
    """The results of nodes of a program that depend on constants alone.

    Args:
        aliases: what sizes of torch are; receives those that constants decide.
    """

    def __init__(self, aliases: dict[sympy.Symbol, sympy.Expr]) -> None:
        self._aliases = aliases
        self._results: dict[torch.fx.Node, Any] = {}

    def __contains__(self, node: object) -> bool:
        return node in self._results

    def __getitem__(self, node: torch.fx.Node) -> Any:
        return self._results[node]

    def hold(self, node: torch.fx.Node, tensor: torch.Tensor) -> None:
        """Takes a weight or a buffer of the program."""
        self._results[node] = tensor.detach()

    def compute(self, node: torch.fx.Node) -> bool:
        """Computes a call if it depends on constants alone.

        Returns:
            Whether nothing else has to be made of the node: it was computed, and is no op that
            generated code runs at no cost.
        """
        if node.target is operator.getitem:
            source, position = node.args
            if source in self._results:
                self._results[node] = self._results[source][position]  # type: ignore[index]
            return node in self._results
        op = node.target
        if not isinstance(op, torch._ops.OpOverload) or not _is_pure(op):
            return False
        try:
            args, kwargs = (self._known(given) for given in (node.args, node.kwargs))
        except _NotConstantError:
            return False
        if not self._is_small(node, (args, kwargs)):
            return False
        try:
            with torch.no_grad():
                self._results[node] = op(*args, **kwargs)
        except Exception:  # which the call at run time reports
            return False
        self._learn(node.meta.get("val"), self._results[node])
        return _name(op) not in _FREE

    def _known(self, given: Any) -> Any:
        """Arguments with tensors and numbers in the place of nodes."""
        if isinstance(given, list | tuple):
            return type(given)(self._known(item) for item in given)
        if isinstance(given, dict):
            return {name: self._known(item) for name, item in given.items()}
        if not isinstance(given, torch.fx.Node):
            return given
        if given in self._results:
            return self._results[given]
        value = given.meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymFloat):
            number = self._number(value.node.expr)
            if number is not None:
                return int(number) if isinstance(value, torch.SymInt) else float(number)
        raise _NotConstantError

    def _number(self, expr: sympy.Expr) -> sympy.Expr | None:
        """What a size or a number of torch is, if that is known."""
        known = expr.xreplace(self._aliases)
        return known if known.is_number else None

    def _is_small(self, node: torch.fx.Node, given: Any) -> bool:
        """Whether results have not more bytes than is worth keeping, as far as they are known."""
        source = sum(t.nbytes for t in _tensors(given))
        return sum(map(self._bytes, _tensors(node.meta.get("val")))) <= max(_LARGEST, source)

    def _bytes(self, tensor: torch.Tensor) -> int:
        total = tensor.element_size()
        for extent in tensor.shape:
            number = extent if isinstance(extent, int) else self._number(extent.node.expr)
            total *= 1 if number is None else int(number)
        return total

    def _learn(self, stand_in: Any, result: Any) -> None:
        """What torch took for sizes and numbers of their own, and constants decide."""
        numbers = zip(_flat(stand_in), _flat(result), strict=True)
        for symbolic, known in numbers:
            pairs = [(symbolic, known)]
            if isinstance(symbolic, torch.Tensor):
                pairs = list(zip(symbolic.shape, known.shape, strict=True))
            for size, number in pairs:
                if isinstance(size, torch.SymInt | torch.SymFloat) and size.node.expr.is_Symbol:
                    self._aliases.setdefault(size.node.expr, sympy.sympify(number))


class _NotConstantError(Exception):
    """An argument is known at run time alone."""


def _name(op: torch._ops.OpOverload) -> str:
    return str(op._schema.name).partition("::")[2]


def _is_pure(op: torch._ops.OpOverload) -> bool:
    """Whether a call gives the same for the same arguments, and writes to nothing."""
    return (
        op.namespace in _PURE
        and not op._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in op.tags
        and _name(op) not in _UNDEFINED
    )


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in _flat(tree) if isinstance(leaf, torch.Tensor)]


def _flat(tree: Any) -> list[Any]:
    leaves: list[Any] = torch.utils._pytree.tree_leaves(tree)
    return leaves
