"""Weights while a model's Python runs: copied before something writes to them, put back afterwards.

Most calls write to no weight, and a copy of all of them would take as much memory as the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Named = list[tuple[str, torch.Tensor]]


class KeptWeights(TorchDispatchMode):
    """While it is active, what ops of torch write to weights is noted.

    Args:
        weights: by name.
    """

    def __init__(self, weights: Named) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = [(name, weight, weight.detach()) for name, weight in weights]
        self._memory = {_place(weight) for _, weight in weights}
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func._schema.is_mutable:
            for tensor in _written(func._schema, args, kwargs or {}):
                place = _place(tensor)
                if place in self._memory and place not in self._before:
                    storage = tensor.untyped_storage()
                    self._before[place] = storage, storage.clone()  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))

    def put_back(self) -> list[str]:
        """Makes all weights as they were; returns the names of those that had changed."""
        names: list[str] = []
        with torch.no_grad():
            for name, weight, own in self._weights:
                moved = _place(weight) != _place(own) or weight.shape != own.shape
                if moved or weight.dtype is not own.dtype:
                    weight.data = own
                    names.append(name)
                elif _place(own) in self._before:
                    names.append(name)
            for storage, before in self._before.values():
                storage.copy_(before)
        self._before.clear()
        return names


def _place(tensor: torch.Tensor) -> int:
    """Where the memory of a tensor is; 0 for one that has none."""
    return tensor.untyped_storage().data_ptr()


def _written(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an op writes to."""
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[position] if position < len(args) else kwargs.get(argument.name)
        for tensor in given if isinstance(given, list | tuple) else [given]:
            if isinstance(tensor, torch.Tensor):
                yield tensor
