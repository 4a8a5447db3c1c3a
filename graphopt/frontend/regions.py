"""Regions and writes in what torch.export returns: graphs within the graph."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from graphopt.frontend.decompositions import decompositions
from graphopt.frontend.import_torch import WRITES_NOTHING

#: Ops that may refuse the values that they are given.
_MAY_FAIL = {
    *("index", "index_select", "index_put", "embedding", "embedding_bag", "gather", "take"),
    *("scatter", "scatter_add", "scatter_reduce", "index_add", "one_hot", "bincount", "histc"),
}
_DIVIDE = {"div", "floor_divide", "remainder", "fmod"}


def inline_regions(program: ExportedProgram) -> None:
    """Puts regions in which gradients are switched, or autocast is off, where they are called.

    Of `torch.cond` both branches are computed, and the results selected, if none of them can fail.
    """
    _inline_into(program.graph_module)
    (returned,) = next(n for n in program.graph.nodes if n.op == "output").args
    for spec, node in zip(program.graph_signature.output_specs, returned, strict=True):
        if isinstance(spec.arg, TensorArgument):
            spec.arg = TensorArgument(node.name)


def _inline_into(module: torch.fx.GraphModule) -> None:
    graph = module.graph
    for node in list(graph.nodes):
        if _is_plain_region(node):
            _inline(module, node)
        elif getattr(node.target, "__name__", "") == "cond":
            _select(module, node)
    module.recompile()


def _inline(module: torch.fx.GraphModule, region: torch.fx.Node) -> None:
    held = next(a for a in region.all_input_nodes if a.op == "get_attr")
    body = _body(module, held)
    given = sum(node.op == "placeholder" for node in body.graph.nodes)
    operands = region.args[len(region.args) - given :]
    with module.graph.inserting_before(region):
        results = _copy_of(body, operands, module.graph)
    for item in list(region.users):
        item.replace_all_uses_with(results[item.args[1]])
        module.graph.erase_node(item)
    module.graph.erase_node(region)
    module.graph.erase_node(held)


def _select(module: torch.fx.GraphModule, cond: torch.fx.Node) -> None:
    condition, *held, operands = cond.args
    bodies = [_body(module, branch) for branch in held]  # type: ignore[arg-type]
    is_tensor = isinstance(getattr(condition, "meta", {}).get("val"), torch.Tensor)
    if not is_tensor or any(map(_may_fail, bodies)) or not _alike(*bodies):
        return
    graph = module.graph
    with graph.inserting_before(cond):
        taken, other = (_copy_of(body, operands, graph) for body in bodies)
        for item in list(cond.users):
            pair = (results[item.args[1]] for results in (taken, other))
            chosen = graph.call_function(torch.ops.aten.where.self, (condition, *pair))
            chosen.meta = dict(item.meta)
            item.replace_all_uses_with(chosen)
            graph.erase_node(item)
    graph.erase_node(cond)
    for branch in held:
        graph.erase_node(branch)  # type: ignore[arg-type]


def _body(module: torch.fx.GraphModule, held: torch.fx.Node) -> torch.fx.GraphModule:
    """The graph behind a name, itself without regions."""
    body: torch.fx.GraphModule = getattr(module, str(held.target))
    _inline_into(body)
    return body


def _copy_of(body: torch.fx.GraphModule, operands: Any, graph: torch.fx.Graph) -> Any:
    given = [node for node in body.graph.nodes if node.op == "placeholder"]
    return graph.graph_copy(body.graph, dict(zip(given, operands, strict=True)))


def _may_fail(body: torch.fx.GraphModule) -> bool:
    """Whether it refuses some values, or holds graphs of its own that may."""
    calls = [node for node in body.graph.nodes if node.op not in ("placeholder", "output")]
    return any(
        not isinstance(node.target, torch._ops.OpOverload)
        or node.target._schema.is_mutable
        or (name := node.target._schema.name.partition("::")[2]) in _MAY_FAIL
        or (name in _DIVIDE and not node.meta["val"].is_floating_point())
        or name.startswith("_assert")
        for node in calls
        if node.target is not operator.getitem
    )


def _alike(one: torch.fx.GraphModule, other: torch.fx.GraphModule) -> bool:
    """Whether two graphs have results of the same shapes and types, all of them tensors."""
    kinds = []
    for body in (one, other):
        output: Any = next(node for node in body.graph.nodes if node.op == "output")
        values: list[Any] = [getattr(result, "meta", {}).get("val") for result in output.args[0]]
        if not all(isinstance(value, torch.Tensor) for value in values):
            return False
        kinds.append([(value.dtype, list(map(str, value.shape))) for value in values])
    return kinds[0] == kinds[1]


def _is_plain_region(node: torch.fx.Node) -> bool:
    """Whether a node calls a region that computes on a CPU what its ops say."""
    if getattr(node.target, "__name__", "") == "wrap_with_autocast":
        return not _casts(node)
    return getattr(node.target, "__name__", "") == "wrap_with_set_grad_enabled"


def _casts(node: torch.fx.Node) -> bool:
    """Whether a node calls a region in which torch chooses the types of the ops."""
    if getattr(node.target, "__name__", "") != "wrap_with_autocast":
        return False
    device, _, enabled, *_ = node.args
    return device == "cpu" and bool(enabled)


def needs_retracing(program: ExportedProgram) -> bool:
    """Whether the graph says what it computes only when it runs.

    So it is if an op writes to a tensor, of which others may be views; in regions of autocast; in
    functions that are mapped over an axis; and of ops that torch makes of others.
    """
    return bool(decompositions(program)) or any(
        _writes(node.target) or _casts(node) or getattr(node.target, "__module__", "") == _MAPS
        for node in program.graph.nodes
    )


#: The module of what torch.vmap leaves in a graph.
_MAPS = "torch._functorch.predispatch"


def _writes(target: Any) -> bool:
    return (
        isinstance(target, torch._ops.OpOverload)
        and target._schema.is_mutable
        and target._schema.name not in WRITES_NOTHING
    )


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program without what `needs_retracing`: what inputs and buffers become is returned too.

    Tensors that modules hold as plain attributes become buffers, which may be written to.
    """
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and str(spec.target).startswith("model."):
            spec.kind, spec.persistent = InputKind.BUFFER, False
    program.example_inputs = None  # else torch 2.9 traces its check of them, too
    made_of_others = decompositions(program)
    try:
        made: ExportedProgram = program.run_decompositions(made_of_others)
    except Exception:  # of an op whose parts depend on data
        if not made_of_others:
            raise
        made = program.run_decompositions({})
    return made
