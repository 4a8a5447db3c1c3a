"""From a torch module to a `Graph`, through torch.export.

The module is exported as a function of its tensors alone: containers (dict, list, tuple, a cache of
transformers) are taken apart, values that are no tensors are constants of the capture. What the
model puts into a container of its arguments, or writes in place to a tensor of them or to a buffer,
becomes a further output that `CallSpec` writes back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import Dim as ExportDim

from graphopt.errors import CaptureError
from graphopt.frontend.arguments import Arguments, rest_name
from graphopt.frontend.call_spec import CallSpec, Output, State, Write
from graphopt.frontend.dynamic_shapes import declared_ranges, dims_of_tensors
from graphopt.frontend.exporting import COMPUTED, Exported, export_model
from graphopt.frontend.import_torch import Imported, import_program
from graphopt.frontend.model_check import check_model, check_weights
from graphopt.frontend.size_gate import SizeGate, SizeOf
from graphopt.frontend.tracing_questions import computes_otherwise
from graphopt.ir import Graph


@dataclass(eq=False)
class Captured:
    """A graph and the way to call it."""

    graph: Graph
    call: CallSpec


def capture(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    states: Collection[str] = (),
) -> Captured:
    """Captures a module with example inputs.

    Args:
        model: a module in eval mode.
        args: example positional arguments; their sizes become the hints of the dims.
        kwargs: example keyword arguments, in any order. The graph has all in that of `bind`.
        dynamic_shapes: which dims vary, in the format of torch.export. If None: the first of every
            tensor, and every other one that the model does not fix and that is not 1 here.
        states: names of buffers that are inputs of the graph even if this call does not write to
            them, because another one does.

    torch.export runs the model once on stand-ins. Where it refuses (a model that keeps intermediate
    tensors as attributes, say), torch.fx traces the model symbolically and the trace is exported;
    nodes then know their module but no line.

    Raises:
        ModelError: if it is no module, or one that cannot be captured as it is.
        TrainingModeError: if it, or a module in it, is in training mode.
        CaptureError: if neither can capture the model, with the user's line and what to do.
    """
    check_model(model)
    check_weights(model)
    call = Arguments.of(model, args, kwargs)
    captured, asks = _capture(model, call, dynamic_shapes, states, traced=True)
    if not asks or not computes_otherwise(model, call):
        return captured
    try:
        return _capture(model, call, dynamic_shapes, states, traced=False)[0]
    except CaptureError as refusal:
        name = type(model).__name__
        why = f"it asks there whether it is traced, and computes something else then; {refusal}"
        raise CaptureError(name, asks, why) from refusal


def _capture(
    model: torch.nn.Module,
    call: Arguments,
    dynamic_shapes: Any,
    states: Collection[str],
    traced: bool,
) -> tuple[Captured, str]:
    """What was captured, and the line that asks whether the model is traced, if there is one."""
    tensors = call.tensors
    dims = dims_of_tensors(call, rest_name(model), dynamic_shapes)

    def import_with(dims: Any) -> tuple[Exported, Imported]:
        exported = export_model(model, call, dims, traced)
        name, names = type(model).__name__, call.tensor_names
        return exported, import_program(exported.program, exported.guards, name, names, states)

    try:
        exported, imported = import_with(dims)
        graph = imported.graph
        declared = declared_ranges(graph, dims)
        graph.conditions = list(dict.fromkeys([*graph.conditions, *declared]))
    except CaptureError:
        # A batch of one that is broadcast, which torch.export does not see in an open size.
        ones = [spec for spec, t in zip(dims, tensors, strict=True) if t.dim() and t.shape[0] == 1]
        if dynamic_shapes is not None or not ones:
            raise
        for spec in ones:
            spec[0] = ExportDim.STATIC
        exported, imported = import_with(dims)
        graph = imported.graph
    broken = SizeGate(graph).broken([t.shape for t in tensors])
    if broken:
        # torch.export takes a size for one that is not 1, which matters here, and it is 1.
        if dynamic_shapes is not None:
            raise _example_is_special(type(model).__name__, graph, broken[0])
        # That it is 1 may be what torch.export has found out later on the way.
        fixed = {s for c in broken for s in c.free_symbols}
        for spec, value in zip(dims, graph.inputs, strict=False):
            for axis, extent in enumerate(value.shape):
                if isinstance(extent, int) or extent in fixed:
                    spec[axis] = ExportDim.STATIC
        exported, imported = import_with(dims)
    captured = Captured(imported.graph, _call_spec(model, call, exported, imported))
    return captured, exported.tracing_question


def _call_spec(
    model: torch.nn.Module, call: Arguments, exported: Exported, imported: Imported
) -> CallSpec:
    graph, result = imported.graph, exported.result
    computed = iter(imported.leaves)

    def leaf(kept: Any) -> Any:
        if kept is not COMPUTED:
            return kept
        kind, value = next(computed)
        if kind == "output":
            return Output(value)
        return SizeOf(graph, value) if kind == "size" else value

    leaves = [leaf(kept) for kept in result.leaves]
    states = [State(name, model.get_submodule(name.rpartition(".")[0])) for name in imported.states]
    return CallSpec(
        call.spec,
        call.constants,
        result.spec,
        leaves,
        result.changes_arguments,
        exported.question,
        tuple(states),
        tuple(Write(*write) for write in imported.writes),
    )


def _example_is_special(name: str, graph: Graph, condition: sympy.Basic) -> CaptureError:
    """The error of an example of a size that the model treats otherwise than what is declared."""
    infos = (i for i in graph.dims.values() if i.symbol in condition.free_symbols)
    places = [f"axis {axis} of {graph.inputs[n].name}" for i in infos for n, axis in i.sources]
    return CaptureError(
        name,
        None,
        f"it treats the size of {' and '.join(places)} in the example inputs otherwise than other "
        "sizes; give an example of another size, or leave that axis out of dynamic_shapes",
    )
