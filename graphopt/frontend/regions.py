"""Regions and writes in what torch.export returns: graphs within the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from graphopt.frontend.import_torch import WRITES_NOTHING


def inline_regions(program: ExportedProgram) -> None:
    """Puts regions in which gradients are switched, or autocast is off, where they are called."""
    _inline_into(program.graph_module)
    (returned,) = next(n for n in program.graph.nodes if n.op == "output").args
    for spec, node in zip(program.graph_signature.output_specs, returned, strict=True):
        if isinstance(spec.arg, TensorArgument):
            spec.arg = TensorArgument(node.name)


def _inline_into(module: torch.fx.GraphModule) -> None:
    graph = module.graph
    for region in [node for node in graph.nodes if _is_plain_region(node)]:
        held = next(a for a in region.all_input_nodes if a.op == "get_attr")
        body = getattr(module, str(held.target))
        _inline_into(body)
        given = [node for node in body.graph.nodes if node.op == "placeholder"]
        operands = region.args[len(region.args) - len(given) :]
        with graph.inserting_before(region):
            results: Any = graph.graph_copy(body.graph, dict(zip(given, operands, strict=True)))
        for item in list(region.users):
            item.replace_all_uses_with(results[item.args[1]])
            graph.erase_node(item)
        graph.erase_node(region)
        graph.erase_node(held)
    module.recompile()


def _is_plain_region(node: torch.fx.Node) -> bool:
    """Whether a node calls a region that computes on a CPU what its ops say."""
    name = getattr(node.target, "__name__", "")
    if name == "wrap_with_autocast":
        device, _, enabled, *_ = node.args
        return device != "cpu" or not enabled
    return name == "wrap_with_set_grad_enabled"


def writes_in_place(program: ExportedProgram) -> bool:
    """Whether an op writes to a tensor, of which others may be views."""
    targets = (node.target for node in program.graph.nodes)
    ops = (target for target in targets if isinstance(target, torch._ops.OpOverload))
    return any(op._schema.is_mutable and op._schema.name not in WRITES_NOTHING for op in ops)


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program without writes in place: what inputs and buffers become is returned too.

    Tensors that modules hold as plain attributes become buffers, which may be written to.
    """
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and str(spec.target).startswith("model."):
            spec.kind, spec.persistent = InputKind.BUFFER, False
    program.example_inputs = None  # else torch 2.9 traces its check of them, too
    return program.run_decompositions({})
