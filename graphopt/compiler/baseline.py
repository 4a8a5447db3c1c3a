"""What a model takes in torch before it is compiled, op by op as it was captured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from graphopt.compiler.profile import Baseline, faster_half
from graphopt.compiler.program import Program
from graphopt.compiler.specialization import run_in_torch
from graphopt.compiler.stages import CAPTURE, Stage, Stages
from graphopt.errors import StagesError
from graphopt.hosts.torch_ops import sizes_of
from graphopt.ir import Node, Origin, Value, learn_sizes

_ELSEWHERE = 2  # a step that does a node's work, at another place of the model


def time_model(model: torch.nn.Module, call: Callable[[], Any], runs: int) -> Baseline:
    """A baseline without its ops, where no one graph holds the model.

    Args:
        model: names it.
        call: runs it.
        runs: that are timed.
    """
    with torch.inference_mode():
        return Baseline(_name(model), faster_half(call, runs), {}, {}, ())


def time_nodes(
    model: torch.nn.Module,
    call: Callable[[], Any],
    stages: Stages,
    programs: Sequence[Program],
    tensors: Sequence[torch.Tensor],
    runs: int,
) -> Baseline:
    """A baseline with the time of every captured node, of the faster half of the runs.

    Values have the strides that torch gives them, and go when nothing reads them any more, as in
    the model itself.

    Args:
        model: names it.
        call: runs the whole of it.
        stages: from the graph as it was captured on.
        programs: what became of it.
        tensors: the inputs of the graph.
        runs: that are timed, of nodes and of the whole.
    """
    stage = stages[CAPTURE]
    dead = _dead_after(stage)
    taken: list[dict[str, float]] = []
    with torch.inference_mode():
        for _ in range(runs + 1):  # the first one warms up
            taken.append(_run_nodes(stage, tensors, dead))
        whole = faster_half(call, runs)
    fastest = sorted(taken[1:], key=lambda times: sum(times.values()))[: (runs + 1) // 2]
    nodes = {row.name: sum(t[row.name] for t in fastest) / len(fastest) for row in stage.nodes}
    modules = {row.name: row.node.origin.module for row in stage.nodes}
    return Baseline(_name(model), whole, nodes, modules, _steps(stages, programs, nodes))


def _steps(
    stages: Stages, programs: Sequence[Program], nodes: Mapping[str, float]
) -> tuple[float, ...]:
    """Milliseconds of the captured nodes whose work each step does.

    A node that several steps come from counts for those at its place in the model, in equal parts;
    else for the last: what quantizes the operand of a product does not do the product's work.

    Raises:
        StagesError: if the stages are not of the programs.
    """
    capture = stages[CAPTURE]
    claims: dict[str, dict[int, int]] = {name: {} for name in nodes}  # how far each step is
    count = 0
    for program, part in zip(programs, stages.parts, strict=True):
        last, graph = part[-1], program.graph
        if len(last.nodes) != len(graph.nodes):
            raise StagesError(graph.name)
        names = dict(zip(graph.nodes, (row.name for row in last.nodes), strict=True))
        for step in program.module.steps:
            for name in stages.ancestors(last, names[step.node]):
                claims[name][count] = _distance(capture[name].node.origin, step.node)
            count += 1
    found = [0.0] * count
    for name, claimed in claims.items():
        heirs = [at for at, far in claimed.items() if far == min(claimed.values()) < _ELSEWHERE]
        heirs = heirs or list(claimed)[-1:]
        for at in heirs:
            found[at] += nodes[name] / len(heirs)
    return tuple(found)


def _distance(place: Origin, node: Node) -> int:
    """0 for a node of the very place, 1 for one that does its work too; equal ones are others."""
    if place is node.origin:
        return 0
    return 1 if any(place is other for other in node.fused) else _ELSEWHERE


def _name(model: torch.nn.Module) -> str:
    return f"{type(model).__name__} in torch, {torch.get_num_threads()} threads"


def _dead_after(stage: Stage) -> dict[str, list[Value]]:
    """What nothing reads behind a node, by its name."""
    last: dict[Value, str] = {}
    for row in stage.nodes:
        last |= dict.fromkeys((*row.node.outputs, *row.node.operands.values()), row.name)
    found: dict[str, list[Value]] = {row.name: [] for row in stage.nodes}
    kept = {*stage.graph.outputs, *stage.graph.inputs}
    for value, name in last.items():
        if value not in kept and not value.is_constant:
            found[name].append(value)
    return found


def _run_nodes(
    stage: Stage, tensors: Sequence[torch.Tensor], dead: Mapping[str, Sequence[Value]]
) -> dict[str, float]:
    """Milliseconds of each node in one run."""
    env: dict[Value, torch.Tensor] = dict(zip(stage.graph.inputs, tensors, strict=True))
    sizes = sizes_of(stage.graph, list(tensors))
    seconds: list[float] = []

    def timed(op: Callable[..., Any], given: dict[str, Any]) -> Any:
        begun = time.perf_counter()
        result = op(**given)
        seconds.append(time.perf_counter() - begun)
        return result

    for row in stage.nodes:
        results = run_in_torch(row.node, env, sizes, is_dense=False, call=timed)
        for value, tensor in zip(row.node.outputs, results, strict=True):
            env[value] = tensor
            learn_sizes(sizes, value, tensor.shape)
        for value in dead[row.name]:
            env.pop(value, None)
    return {row.name: 1e3 * one for row, one in zip(stage.nodes, seconds, strict=True)}
