"""How a call of the user's module maps to the tensors of a graph, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree

from graphopt.errors import InputStridesError
from graphopt.runtime import structure


@dataclass(eq=False)
class CallSpec:
    """How a call of the user's module maps to the graph's tensors and back.

    Attributes:
        in_spec: pytree structure of (args, kwargs).
        constants: leaves that are no tensors, by position among the flat arguments.
        out_spec: pytree structure of the result.
        out_leaves: for each leaf of the result, the graph output that it is, or the constant.
        changes_arguments: whether the result holds, beside the model's own, what its arguments'
            containers hold after the call.
        asks_layout: the line where the model asks how a tensor lies in memory, which depends on how
            its arguments do; empty if it does not.
    """

    in_spec: pytree.TreeSpec
    constants: dict[int, Any]
    out_spec: pytree.TreeSpec
    out_leaves: list[Any] = field(default_factory=list)
    changes_arguments: bool = False
    asks_layout: str = ""

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The graph's input tensors of a call with the captured structure.

        Raises:
            InputStridesError: for strides that the model asks for and was not captured with.
        """
        leaves, _ = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for i, leaf in enumerate(leaves) if i not in self.constants]
        if self.asks_layout:
            for tensor in tensors:
                if not tensor.is_contiguous():
                    raise InputStridesError(tuple(tensor.stride()), self.asks_layout)
        return tensors

    def unflatten(
        self, outputs: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The model's own result; containers in the arguments get what the model put there.

        Args:
            outputs: of the graph, in its order.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
        """
        leaves = [
            outputs[leaf.index] if isinstance(leaf, Output) else leaf for leaf in self.out_leaves
        ]
        result = pytree.tree_unflatten(leaves, self.out_spec)
        if not self.changes_arguments:
            return result
        structure.write_back((args, kwargs), result[structure.AFTER])
        return result[structure.RESULT]


@dataclass(frozen=True)
class Output:
    """A leaf of the result that is output `index` of the graph."""

    index: int
