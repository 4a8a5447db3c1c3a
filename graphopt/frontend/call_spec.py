"""How a call of the user's module maps to the tensors of a graph, and back.

Arguments are those that `arguments.bind` gives, so that the order of keywords does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.utils._pytree as pytree

from graphopt.errors import InputOverlapError, InputStridesError
from graphopt.frontend import nesting
from graphopt.frontend.size_gate import SizeOf
from graphopt.runtime import structure


@dataclass(frozen=True)
class Output:
    """A leaf of the result that is output `index` of the graph."""

    index: int


@dataclass(frozen=True)
class State:
    """A buffer (or another tensor that a module holds) that is an input of the graph.

    Attributes:
        name: its path in the model.
        owner: the module that holds it.
    """

    name: str
    owner: torch.nn.Module

    @property
    def tensor(self) -> torch.Tensor:
        """What it is now."""
        found: torch.Tensor = getattr(self.owner, self.name.rpartition(".")[2])
        return found


@dataclass(frozen=True)
class Write:
    """Output `output` of the graph, which is the new content of its input `target`."""

    output: int
    target: int


@dataclass(eq=False)
class CallSpec:
    """How a call of the user's module maps to the graph's tensors and back.

    Attributes:
        in_spec: structure of (args, kwargs), as `nesting.flatten` gives it.
        constants: leaves that are no tensors, by position among the flat arguments.
        out_spec: structure of the result.
        out_leaves: for each leaf of the result, the graph output that it is, how it follows from
            sizes, which object of the arguments it is, or the constant.
        changes_arguments: whether the result holds, beside the model's own, what its arguments'
            containers hold after the call.
        asks_layout: the line where the model asks how a tensor lies in memory, which depends on how
            its arguments do; empty if it does not.
        states: tensors of the model that are further inputs, behind those of the call.
        writes: what the model writes to arguments and states in place.
    """

    in_spec: pytree.TreeSpec
    constants: dict[int, Any]
    out_spec: pytree.TreeSpec
    out_leaves: list[Any] = field(default_factory=list)
    changes_arguments: bool = False
    asks_layout: str = ""
    states: tuple[State, ...] = ()
    writes: tuple[Write, ...] = ()

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The graph's input tensors of a call with the captured structure.

        Raises:
            InputStridesError: for strides that the model asks for and was not captured with.
            InputOverlapError: if the model writes to a tensor that shares memory with another one.
        """
        leaves, _ = nesting.flatten((args, kwargs))
        tensors = [leaf for i, leaf in enumerate(leaves) if i not in self.constants]
        if self.asks_layout:
            for tensor in tensors:
                if not tensor.is_contiguous():
                    raise InputStridesError(tuple(tensor.stride()), self.asks_layout)
        tensors += [state.tensor for state in self.states]
        if self.writes and not torch.compiler.is_compiling():
            _check_apart([tensors[write.target] for write in self.writes], tensors)
        return tensors

    def unflatten(
        self, outputs: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The model's own result; tensors and containers of the call get what the model put there.

        Args:
            outputs: of the graph, in its order.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
        """
        tensors = self.flatten(args, kwargs) if self._needs_tensors else []
        with torch.no_grad():
            for write in self.writes:
                tensors[write.target].copy_(outputs[write.output])
        shapes = [tensor.shape for tensor in tensors]
        leaves = [self._leaf(leaf, outputs, shapes) for leaf in self.out_leaves]
        result = pytree.tree_unflatten(leaves, self.out_spec)
        if self.changes_arguments:
            structure.write_back((args, kwargs), result[structure.AFTER])
        if any(isinstance(leaf, nesting.Given) for leaf in leaves):
            objects = nesting.objects((args, kwargs))
            own = [objects[x.number] if isinstance(x, nesting.Given) else x for x in leaves]
            result = pytree.tree_unflatten(own, self.out_spec)
        return result[structure.RESULT] if self.changes_arguments else result

    @cached_property
    def is_plain(self) -> bool:
        """Whether a call is its tensors and gives outputs and constants, and does nothing else."""
        special = self.constants or self.asks_layout or self.states or self.writes
        leaves = any(isinstance(leaf, SizeOf | nesting.Given) for leaf in self.out_leaves)
        return not (special or leaves or self.changes_arguments)

    def result_of(self, outputs: Sequence[torch.Tensor]) -> Any:
        """The model's own result, if the call `is_plain`."""
        leaves = [self._leaf(leaf, outputs, ()) for leaf in self.out_leaves]
        return leaves[0] if self.out_spec.is_leaf() else self.out_spec.unflatten(leaves)

    @property
    def _needs_tensors(self) -> bool:
        return bool(self.writes) or any(isinstance(leaf, SizeOf) for leaf in self.out_leaves)

    def _leaf(self, leaf: Any, outputs: Sequence[torch.Tensor], shapes: Sequence[Any]) -> Any:
        if isinstance(leaf, Output):
            return outputs[leaf.index]
        return leaf(shapes) if isinstance(leaf, SizeOf) else leaf


def _check_apart(written: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> None:
    """Raises InputOverlapError if what is written shares memory with another tensor."""
    for one in written:
        storage = one.untyped_storage().data_ptr()
        shared = [t for t in tensors if t.untyped_storage().data_ptr() == storage and t.numel()]
        if len(shared) > 1:
            raise InputOverlapError(tuple(one.shape))
