"""The arena of a compiled model over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy

from graphopt.codegen.plan_memory import THREADS_HINT
from graphopt.compiler.program import Program
from graphopt.ir import Value
from graphopt.ir.printer import name_values
from graphopt.ir.symbolic import THREADS, evaluate


def memory_of(
    program: Program, keys: Sequence[int], sizes: Mapping[sympy.Symbol, int]
) -> dict[str, Any]:
    """What lies where in the arena, and for how long.

    Args:
        program: what was compiled.
        keys: of its nodes, in order.
        sizes: of all dims.

    Returns:
        `arena` and `unshared`, bytes with and without sharing; and `lives`: the key of the node
        that makes a value (-1 for memory of a kernel alone), its name, where it lies, how many
        bytes it takes, and the first and the last node that need it.
    """
    plan, graph = program.module.memory.plan, program.graph
    known = {**sizes, THREADS: program.options.num_threads or THREADS_HINT}
    offsets, end = [], 0
    for slot in plan.slots:
        offsets.append(end)
        end += slot.bytes(known)
    names = name_values(graph)
    key_of = {v: key for node, key in zip(graph.nodes, keys, strict=True) for v in node.outputs}
    lives = []
    for item, (size, (first, last)) in plan.lives.items():
        if isinstance(item, Value):
            key, text = key_of[item], names[item]
        else:
            key, text = -1, f"scratch of {item.op}"
        at = offsets[plan.slot_of[item]]
        lives.append((key, text, at, evaluate(size, known), first, last))
    return {"arena": end, "unshared": sum(life[3] for life in lives), "lives": lives}
