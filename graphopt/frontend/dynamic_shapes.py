"""Which axes of the arguments vary: `dynamic_shapes` in the format of torch.export, checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.export import Dim as ExportDim

from graphopt.errors import CaptureError, OptionError
from graphopt.ir import Graph


def dims_of_tensors(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: tuple[torch.Tensor, ...],
    dynamic_shapes: Any,
) -> list[Any]:
    """torch.export's dynamic_shapes of each flat tensor.

    Args:
        model: what is captured.
        args: its positional arguments.
        kwargs: its keyword arguments.
        tensors: of these arguments, in order.
        dynamic_shapes: as of `graphopt.optimize`.
    """
    if dynamic_shapes is None:
        specs = [
            {
                a: ExportDim.AUTO if a == 0 or e != 1 else ExportDim.STATIC
                for a, e in enumerate(t.shape)
            }
            for t in tensors
        ]
    else:
        specs = []
        if isinstance(dynamic_shapes, dict):
            tree: Any = by_parameter(model, args, kwargs)
        else:
            tree = tuple(args) + tuple(kwargs.values())
        _collect_specs(tree, dynamic_shapes, specs, "dynamic_shapes")
    return specs


def _collect_specs(tree: Any, spec: Any, out: list[Any], where: str) -> None:
    if isinstance(tree, torch.Tensor):
        _check_spec(tree, spec, where)
        out.append(spec)
    elif isinstance(tree, dict):
        _refuse_unknown_keys(tree, spec, where)
        for key, item in tree.items():
            _collect_specs(item, None if spec is None else spec.get(key), out, f"{where}[{key!r}]")
    elif isinstance(tree, list | tuple):
        if spec is not None and not isinstance(spec, list | tuple):
            raise OptionError("dynamic_shapes", spec, f"{where} takes a tuple, one entry each")
        if spec is not None and len(spec) != len(tree):
            raise CaptureError(
                where, None, f"it has {len(spec)} entries for {len(tree)} arguments: give one each"
            )
        for i, item in enumerate(tree):
            _collect_specs(item, None if spec is None else spec[i], out, f"{where}[{i}]")


#: What torch.export takes for an axis.
_WAYS = (ExportDim, type(ExportDim.AUTO), int, type(None))


def _check_spec(tensor: torch.Tensor, spec: Any, where: str) -> None:
    """Raises OptionError for what does not say how axes of a tensor vary."""
    rank = tensor.dim()
    if spec is None:
        return
    each = isinstance(spec, list | tuple) and len(spec) == rank
    if not each and not isinstance(spec, dict):
        raise OptionError(where, spec, f"give a dict by axis, or an entry for each of {rank} axes")
    for axis, varies in enumerate(spec) if each else spec.items():
        if axis not in range(rank):
            raise OptionError(where, axis, f"the tensor has no such axis, but 0 to {rank - 1}")
        if not isinstance(varies, _WAYS):
            how = "give a torch.export.Dim, Dim.DYNAMIC, Dim.AUTO, Dim.STATIC, its size, or None"
            raise OptionError(f"{where}[{axis}]", varies, how)
        size, (low, high) = tensor.shape[axis], _range_of(varies)
        if not low <= size <= high:
            how = f"the example has size {size} there, and this allows {low} to {high}"
            raise OptionError(f"{where}[{axis}]", varies, how)


def _refuse_unknown_keys(tree: dict[str, Any], spec: Any, where: str) -> None:
    if spec is None:
        return
    if not isinstance(spec, dict):
        raise OptionError("dynamic_shapes", spec, f"{where} takes a dict by {', '.join(tree)}")
    unknown = [key for key in spec if key not in tree]
    if unknown:
        raise OptionError(
            where, unknown[0], f"no such argument in the example; there are {', '.join(tree)}"
        )


def by_parameter(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments by the names of the parameters of `forward`.

    Args:
        model: the module.
        args: positional arguments of a call.
        kwargs: keyword arguments of the same call.
    """
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def declared_ranges(graph: Graph, dims: Sequence[Any]) -> Iterator[sympy.Basic]:
    """The ranges in `dynamic_shapes`, by which torch.export answers what a model asks of sizes."""
    for value, spec in zip(graph.inputs, dims, strict=False):
        each = spec.items() if isinstance(spec, dict) else enumerate(spec or ())
        for axis, varies in each:
            size, (low, high) = value.shape[axis], _range_of(varies)
            if isinstance(size, sympy.Expr):
                yield from ([sympy.Ge(size, low)] if low > 1 else [])
                yield from ([sympy.Le(size, high)] if high < math.inf else [])


def _range_of(varies: Any) -> tuple[int, float]:
    """The smallest and the largest size of a `Dim`, or whatever else says how an axis varies."""
    if isinstance(varies, int):
        return varies, varies
    low, high = (getattr(varies, name, None) for name in ("min", "max"))
    return low or 0, high if isinstance(high, int) else math.inf
