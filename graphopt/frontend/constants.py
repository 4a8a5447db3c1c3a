"""What depends on constants alone, computed by torch while a program is imported.

    w = aten._weight_norm(v, g)
    y = aten.linear(x, w)             ->      y = aten.linear(x, constant)

So the weight of a linear or a convolution is a constant, however the model makes it. What a rule
makes of nothing, such as `arange` and `zeros`, and broadcasts, which cost memory as constants and
nothing as code, stay in the graph where something that is not constant reads them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
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
        number: what a size of torch is, where that is known by now, else None.
    """

    def __init__(self, number: Callable[[sympy.Expr], sympy.Expr | None]) -> None:
        self._number = number
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

    def _is_small(self, node: torch.fx.Node, given: Any) -> bool:
        """Whether results have known sizes, and not more bytes than is worth keeping."""
        made = [t for t in _flat(node.meta.get("val")) if isinstance(t, torch.Tensor)]
        sizes = [self._bytes(tensor) for tensor in made]
        if any(size is None for size in sizes):
            return False
        source = sum(t.nbytes for t in _flat(given) if isinstance(t, torch.Tensor))
        return sum(size or 0 for size in sizes) <= max(_LARGEST, source)

    def _bytes(self, tensor: torch.Tensor) -> int | None:
        total: Any = tensor.element_size()
        for extent in tensor.shape:
            number = extent if isinstance(extent, int) else self._number(extent.node.expr)
            if number is None:
                return None
            total *= int(number)
        return int(total)


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


def _flat(tree: Any) -> list[Any]:
    leaves: list[Any] = torch.utils._pytree.tree_leaves(tree)
    return leaves
