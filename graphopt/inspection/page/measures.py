"""What is measured for a page: times of steps and of whole calls, work, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from graphopt.compiler.program import Program
from graphopt.ir.symbolic import evaluate

Array = np.ndarray[Any, Any]

#: Timed calls of each side, in turn: at least, at most, and the seconds after which no more begin.
_LEAST, _MOST, _SECONDS = 5, 50, 2.0


def call_times(*sides: Callable[[], Any]) -> tuple[list[float], int]:
    """Milliseconds of the fastest call of each side, which take turns, and the number of turns.

    What else runs on a machine only ever adds to a time. One call of each side comes before.
    """
    for side in sides:
        side()
    times: list[list[float]] = []
    begin = time.perf_counter()
    while len(times) < _LEAST or (len(times) < _MOST and time.perf_counter() - begin < _SECONDS):
        times.append([])
        for side in sides:
            start = time.perf_counter()
            side()
            times[-1].append((time.perf_counter() - start) * 1e3)
    return [min(taken) for taken in zip(*times, strict=True)], len(times)


def example_sizes(program: Program) -> dict[sympy.Symbol, int]:
    """All dims as they were in the example; those that data decide at their bounds."""
    graph = program.graph
    sizes = {info.symbol: info.hint for info in graph.dims.values() if info.bound is None}
    for info in graph.dims.values():
        if info.bound is not None:
            sizes[info.symbol] = evaluate(info.bound, sizes)
    return sizes


def work_of(programs: Sequence[Program], keys: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Multiply-adds and bytes of each step, at the sizes of the example."""
    macs: dict[int, int] = {}
    moved: dict[int, int] = {}
    for program, own in zip(programs, keys, strict=True):
        key_of = dict(zip(program.graph.nodes, own, strict=True))
        sizes = example_sizes(program)
        inputs = [
            np.zeros([evaluate(extent, sizes) for extent in v.shape], v.dtype.numpy)
            for v in program.graph.inputs
        ]
        for step, row in zip(program.module.steps, program.work(inputs), strict=True):
            key = key_of[step.node]
            moved[key] = row["bytes"]
            if row["macs"]:
                macs[key] = row["macs"]
    return {
        "macs": values_of("Multiply-adds", "MAC", macs),
        "bytes": values_of("Bytes moved", "B", moved),
    }


def are_of(rows: Sequence[dict[str, Any]], programs: Sequence[Program]) -> bool:
    """Whether rows of a profile are the steps of the programs, each once and in order."""
    steps = [step for program in programs for step in program.module.steps]
    return [(row["node"], row["op"]) for row in rows] == [
        (step.comment.partition(" = ")[0], step.node.op.name) for step in steps
    ]


def times_of(
    rows: Sequence[dict[str, Any]], programs: Sequence[Program], keys: Sequence[Sequence[int]]
) -> tuple[dict[str, Any], list[int]]:
    """Milliseconds of each step, and the keys of those on the critical path.

    Args:
        rows: of a profile of the programs.
        programs: all that was compiled.
        keys: for each program those of its nodes, in order.
    """
    nodes = [
        dict(zip(program.graph.nodes, own, strict=True))[step.node]
        for program, own in zip(programs, keys, strict=True)
        for step in program.module.steps
    ]
    times = {key: row["ms"] for key, row in zip(nodes, rows, strict=True)}
    critical = [key for key, row in zip(nodes, rows, strict=True) if row["critical"]]
    return values_of("Time", "ms", times), critical


def values_of(title: str, unit: str, found: dict[int, Any]) -> dict[str, Any]:
    """Numbers by the keys of nodes, as the page reads them.

    Args:
        title: what they are.
        unit: `ms`, `B`, `MAC` or `dB`.
        found: the numbers by key.
    """
    return {"title": title, "unit": unit, "keys": list(found), "values": list(found.values())}
