"""Calls of tensors alone, as most calls are, without taking arguments apart anew each time.

What `arguments.bind` and `arguments.call_key` make of a call depends, if all arguments are plain
tensors, on how many are positional, on the names of the others, on dtypes and ranks, and on the
default dtype of torch. So it is found out once for each of those; finding out takes several times
as long as a small model.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from graphopt.frontend import nesting
from graphopt.frontend.arguments import bind, call_key
from graphopt.hosts.torch_ops import is_watched

_Key = tuple[Any, ...]


class TensorCalls:
    """The keys of calls of tensors alone.

    Args:
        signature: of the model's `forward`.
    """

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        self._known: dict[_Key, tuple[_Key, list[int]]] = {}

    def find(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[_Key, list[torch.Tensor]] | None:
        """The `call_key` of a call, and its tensors in the order of `nesting.flatten`.

        Args:
            args: positional arguments, as the caller gives them.
            kwargs: keyword arguments, likewise.

        Returns:
            None for a call of anything but dense tensors on the CPU, or that torch watches.

        Raises:
            InputCountError: for arguments that the model does not take.
        """
        if is_watched():
            return None
        tensors = [*args, *kwargs.values()]
        for tensor in tensors:
            if type(tensor) is not torch.Tensor or not tensor.is_cpu:
                return None
            if tensor.layout is not torch.strided or tensor.is_nested:
                return None
        kinds = [(tensor.dtype, tensor.ndim) for tensor in tensors]
        form = (torch.get_default_dtype(), len(args), *kwargs, *kinds)
        known = self._known.get(form)
        if known is None:
            known = self._known[form] = self._order(args, kwargs)
        key, order = known
        return key, [tensors[i] for i in order]

    def _order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Key, list[int]]:
        """The `call_key` of a call, and which of its arguments each leaf is."""
        places = range(len(args) + len(kwargs))
        named = dict(zip(kwargs, places[len(args) :], strict=True))
        order, _ = nesting.flatten(bind(self._signature, tuple(places[: len(args)]), named))
        return call_key(*bind(self._signature, args, kwargs)), order
