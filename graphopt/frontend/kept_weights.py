"""Weights while a model's Python runs: copied before something writes to them, put back afterwards.

Most calls write to no weight, and a copy of all of them would take as much memory as the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

Named = list[tuple[str, torch.Tensor]]


class KeptWeights(TorchDispatchMode):
    """While it is active, what ops of torch write to weights is noted.

    Args:
        weights: by name.
    """

    def __init__(self, weights: Named) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = [(name, weight, weight.detach()) for name, weight in weights]
        self._memory = {place for _, weight in weights for place in _places(weight)}
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func._schema.is_mutable:
            for tensor in _written(func._schema, args, kwargs or {}):
                for storage in _storages(tensor):
                    place = storage.data_ptr()
                    if place in self._memory and place not in self._before:
                        before = storage.clone()  # type: ignore[no-untyped-call]
                        self._before[place] = storage, before
        return func(*args, **(kwargs or {}))

    def put_back(self) -> list[str]:
        """Makes all weights as they were; returns the names of those that had changed."""
        names: list[str] = []
        with torch.no_grad():
            for name, weight, own in self._weights:
                moved = _places(weight) != _places(own) or weight.shape != own.shape
                if moved or weight.dtype is not own.dtype:
                    weight.data = own
                    names.append(name)
                elif any(place in self._before for place in _places(own)):
                    names.append(name)
            for storage, before in self._before.values():
                storage.copy_(before)
        self._before.clear()
        return names


def _storages(tensor: torch.Tensor) -> Iterator[torch.UntypedStorage]:
    """The memory of a tensor; of one that is made of others, as quantized ones are, of each."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _storages(getattr(tensor, name))
    else:
        yield tensor.untyped_storage()


def _places(tensor: torch.Tensor) -> list[int]:
    """Where the memory of a tensor is; 0 for what has none."""
    return [storage.data_ptr() for storage in _storages(tensor)]


def _written(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an op writes to."""
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[position] if position < len(args) else kwargs.get(argument.name)
        for tensor in given if isinstance(given, list | tuple) else [given]:
            if isinstance(tensor, torch.Tensor):
                yield tensor
