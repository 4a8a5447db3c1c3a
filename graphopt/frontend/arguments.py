"""Arguments of a call as tensors and plain values: what one capture is good for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from graphopt.errors import InputCountError, InputError, InputLayoutError
from graphopt.frontend import nesting


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What one capture is good for: structure, dtypes, ranks and values that are no tensors.

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
    return (str(spec), described)


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
