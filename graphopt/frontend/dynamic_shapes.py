"""Which axes of the arguments vary: `dynamic_shapes` in the format of torch.export, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.export import Dim as ExportDim

from graphopt.errors import CaptureError, OptionError
from graphopt.frontend import nesting
from graphopt.frontend.arguments import Arguments
from graphopt.ir import Graph


def dims_of_tensors(call: Arguments, rest: str, dynamic_shapes: Any) -> list[Any]:
    """torch.export's dynamic_shapes of each tensor of a call.

    Args:
        call: of the model that is captured.
        rest: the parameter that takes the keywords which no other does; empty without one.
        dynamic_shapes: as of `graphopt.optimize`.

    Raises:
        OptionError: for what fits no argument, by its place.
    """
    if dynamic_shapes is None:
        return [
            {
                a: ExportDim.AUTO if a == 0 or e != 1 else ExportDim.STATIC
                for a, e in enumerate(t.shape)
            }
            for t in call.tensors
        ]
    tree: Any = (*call.args, *call.kwargs.values())
    if isinstance(dynamic_shapes, dict):
        tree, of_rest = call.by_parameter, dynamic_shapes.get(rest)
        if rest not in tree and isinstance(of_rest, dict):  # torch.export has those in a dict
            others = {key: spec for key, spec in dynamic_shapes.items() if key != rest}
            dynamic_shapes = {**others, **of_rest}
    specs: list[Any] = []
    _collect_specs(tree, dynamic_shapes, specs, "dynamic_shapes")
    return specs


def _collect_specs(tree: Any, spec: Any, out: list[Any], where: str) -> None:
    if isinstance(tree, torch.Tensor):
        _check_spec(tree, spec, where)
        out.append(spec)
        return
    parts = nesting.parts(tree)
    if isinstance(spec, list | tuple) and parts and not isinstance(tree, dict):
        if len(spec) != len(parts):
            raise CaptureError(
                where, None, f"it has {len(spec)} entries for {len(parts)} arguments: give one each"
            )
        spec = dict(zip(parts, spec, strict=True))
    if not parts and spec:
        raise OptionError(where, spec, f"a {type(tree).__name__} there has no axes: give None")
    _refuse_unknown_keys(tree, parts, spec, where)
    for key, item in parts.items():
        _collect_specs(item, None if spec is None else spec.get(key), out, f"{where}[{key!r}]")


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


def _refuse_unknown_keys(tree: Any, parts: dict[Any, Any], spec: Any, where: str) -> None:
    if spec is None:
        return
    if not isinstance(spec, dict):
        is_list = isinstance(tree, list | tuple)
        how = "a tuple, one entry each" if is_list else f"a dict by {_listed(parts)}"
        raise OptionError("dynamic_shapes", spec, f"{where} takes {how}")
    unknown = [key for key in spec if key not in parts]
    if unknown:
        raise OptionError(
            where, unknown[0], f"no such argument in the example; there are {_listed(parts)}"
        )


def _listed(keys: Iterable[Any]) -> str:
    return ", ".join(map(str, keys))


def declared_ranges(graph: Graph, dims: Sequence[Any]) -> Iterator[sympy.Basic]:
    """The ranges in `dynamic_shapes`, by which torch.export answers what a model asks of sizes.

    Raises:
        CaptureError: for a size that the model has fixed, as torch.export lets it do with a size
            of 1, and that must vary.
    """
    for value, spec in zip(graph.inputs, dims, strict=False):
        each = spec.items() if isinstance(spec, dict) else enumerate(spec or ())
        for axis, varies in each:
            size, (low, high) = value.shape[axis], _range_of(varies)
            if isinstance(size, sympy.Expr):
                yield from ([sympy.Ge(size, low)] if low > 1 else [])
                yield from ([sympy.Le(size, high)] if high < math.inf else [])
            elif isinstance(varies, ExportDim) or varies == ExportDim.DYNAMIC:
                raise CaptureError(graph.name, None, fixes(f"axis {axis} of {value.name}"))


def fixes(size: str) -> str:
    """What is said of a model that fixes a size which `dynamic_shapes` says to vary."""
    return (
        f"it fixes or limits the size of {size}, which dynamic_shapes says to vary; give Dim.AUTO "
        "there, or the size"
    )


def _range_of(varies: Any) -> tuple[int, float]:
    """The smallest and the largest size of a `Dim`, or whatever else says how an axis varies."""
    if isinstance(varies, int):
        return varies, varies
    low, high = (getattr(varies, name, None) for name in ("min", "max"))
    return low or 0, high if isinstance(high, int) else math.inf
