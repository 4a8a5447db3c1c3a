"""Arguments of a call: in the order of the model's parameters, as leaves that have names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from graphopt.errors import InputCountError, InputError, InputLayoutError
from graphopt.frontend import nesting

Call = tuple[tuple[Any, ...], dict[str, Any]]


def bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The same call in one form: positional where the signature lets it, keywords in its order.

    Keywords that it does not name keep their order, which the model may ask for.

    Args:
        signature: of the model's `forward`.
        args: positional arguments.
        kwargs: keyword arguments, in any order.

    Raises:
        InputCountError: for arguments that it does not take.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        given = f"{len(args)} positional and {len(kwargs)} keyword arguments ({error})"
        raise InputCountError(str(signature), given) from None
    return bound.args, bound.kwargs


@dataclass(frozen=True)
class Arguments:
    """A call of a model, taken apart.

    Attributes:
        args: positional arguments, as `bind` gives them.
        kwargs: keyword arguments, likewise.
        by_parameter: all of them, in the same order, by parameter or keyword.
        leaves: tensors and plain values, in the same order.
        spec: structure of (args, kwargs).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    by_parameter: dict[str, Any]
    leaves: list[Any]
    spec: pytree.TreeSpec

    @staticmethod
    def of(
        model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> Arguments:
        """The arguments of a call, in whatever order keywords come.

        Args:
            model: what is called.
            args: positional arguments.
            kwargs: keyword arguments.

        Raises:
            InputCountError: for arguments that the model does not take.
        """
        signature = inspect.signature(model.forward)
        args, kwargs = bind(signature, args, kwargs or {})
        leaves, spec = nesting.flatten((args, kwargs))
        named = dict(signature.bind(*args, **kwargs).arguments)
        rest = _rest_of(signature)
        if rest in named and not named[rest].keys() & (named.keys() - {rest}):
            named |= named.pop(rest)
        return Arguments(args, kwargs, named, leaves, spec)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors among the leaves."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor))

    @property
    def constants(self) -> dict[int, Any]:
        """The other leaves, by position."""
        leaves = enumerate(self.leaves)
        return {i: leaf for i, leaf in leaves if not isinstance(leaf, torch.Tensor)}

    @cached_property
    def tensor_names(self) -> list[str]:
        """A readable, unique name for each tensor."""
        names = [
            "_".join([parameter, *re.findall(r"\w+", pytree.keystr(path))])
            for parameter, argument in self.by_parameter.items()
            for path, leaf in nesting.flatten_with_path(argument)[0]
            if isinstance(leaf, torch.Tensor)
        ]
        return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]

    def copied(self) -> Call:
        """The call with containers and tensors of its own, which a model may write to."""
        return copied(self.leaves, self.spec)


def copied(leaves: Iterable[Any], spec: pytree.TreeSpec) -> Call:
    """A call of copies of its tensors, in containers of its own.

    Args:
        leaves: tensors and plain values.
        spec: structure of (args, kwargs).
    """
    copies = [v.detach().clone() if isinstance(v, torch.Tensor) else v for v in leaves]
    args, kwargs = pytree.tree_unflatten(copies, spec)
    return args, kwargs


def rest_name(model: torch.nn.Module) -> str:
    """What `forward` calls the keywords that it does not name; empty if it takes none."""
    return _rest_of(inspect.signature(model.forward))


def _rest_of(signature: inspect.Signature) -> str:
    kind = inspect.Parameter.VAR_KEYWORD
    return next((p.name for p in signature.parameters.values() if p.kind is kind), "")


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What one capture is good for: structure, dtypes, ranks and values that are no tensors.

    The dtype of what torch makes without one is of them.

    Args:
        args: positional arguments, as `bind` gives them.
        kwargs: keyword arguments, likewise.

    Raises:
        InputCountError: for an argument that is neither a tensor nor a plain value.
        InputLayoutError: for a tensor that is not dense, or not on the CPU.
    """
    leaves, spec = nesting.flatten((args, kwargs))
    if not all(map(_is_known, leaves)):
        raise _unknown(args, kwargs)
    described = tuple(
        (leaf.dtype, leaf.dim()) if isinstance(leaf, torch.Tensor) else repr(leaf)
        for leaf in leaves
    )
    return (str(spec), described, torch.get_default_dtype())


def _is_known(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        return leaf.device.type == "cpu" and leaf.layout is torch.strided and not leaf.is_nested
    return isinstance(leaf, nesting.VALUES)


def _unknown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> InputError:
    """The error of the first argument that no capture can take."""
    leaves, _ = nesting.flatten_with_path((args, kwargs))
    path, leaf = next((path, leaf) for path, leaf in leaves if not _is_known(leaf))
    kind_of = "argument" if path[0] == pytree.SequenceKey(0) else "keyword argument"
    where = f"{kind_of}{pytree.keystr(path[1:])}"
    if isinstance(leaf, torch.Tensor):
        kind = "nested" if leaf.is_nested else str(leaf.layout).removeprefix("torch.")
        return InputLayoutError(where, kind, str(leaf.device))
    kind = type(leaf).__name__
    if isinstance(leaf, np.ndarray):
        return InputCountError("torch tensors", "a numpy array: torch.from_numpy makes one")
    return InputCountError(
        "tensors, plain values, and containers of them",
        f"a {kind} as {where}, which may hide tensors or change; pass what is in it, or make a "
        "container of it with torch.utils._pytree.register_pytree_node",
    )
