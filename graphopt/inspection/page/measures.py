"""What is measured for a page: times of steps and of whole calls, work, memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from graphopt.compiler.profile import Profile
from graphopt.compiler.program import Program
from graphopt.inspection.profiling.roofs import measure_roofs
from graphopt.ir.symbolic import evaluate

Array = np.ndarray[Any, Any]

#: Timed calls of each side, in turn: at least, at most, and the seconds after which no more begin.
_LEAST, _MOST, _SECONDS = 5, 50, 2.0

#: Quartiles of a speed-up that are further apart say nothing.
_WIDEST = 1.5


def call_times(*sides: Callable[[], Any]) -> list[tuple[float, ...]]:
    """Milliseconds of calls of each side, which take turns: a tuple a turn.

    One call of each side comes before.
    """
    for side in sides:
        side()
    turns: list[tuple[float, ...]] = []
    begin = time.perf_counter()
    while len(turns) < _LEAST or (len(turns) < _MOST and time.perf_counter() - begin < _SECONDS):
        taken = []
        for side in sides:
            start = time.perf_counter()
            side()
            taken.append((time.perf_counter() - start) * 1e3)
        turns.append(tuple(taken))
    return turns


def fastest(turns: Sequence[Sequence[float]]) -> list[float]:
    """Milliseconds of the fastest call of each side: what else runs only ever adds to a time."""
    return [min(taken) for taken in zip(*turns, strict=True)]


def speed_up(turns: Sequence[Sequence[float]]) -> tuple[str, str]:
    """How much faster the first side is than the second, and how that is known.

    The median over the turns, and between which figures half of them lie; where those are too far
    apart something else kept this machine busy, and no figure is given.
    """
    ratios = np.array([slow / fast for fast, slow in turns])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    spread = f"half of {len(turns)} turns lie between {low:.2f} and {high:.2f}"
    if high > _WIDEST * low:
        return "", f"this machine is too busy to tell: {spread}"
    return f"{middle:.2f}x", spread


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


def timeline_of(
    profile: Profile, programs: Sequence[Program], keys: Sequence[Sequence[int]]
) -> list[tuple[int, int, float, float]]:
    """What each thread did in the fastest run: thread, key of a node, begin and length in us.

    Args:
        profile: of the programs.
        programs: all that was compiled.
        keys: for each program those of its nodes, in order.
    """
    found = []
    begun = 0.0
    for run, program, own in zip(profile.runs, programs, keys, strict=True):
        key_of = dict(zip(program.graph.nodes, own, strict=True))
        for step, spans in zip(program.module.steps, run.timed.spans, strict=True):
            found += [
                (who, key_of[step.node], round(1e3 * (begun + at), 3), round(1e3 * length, 3))
                for who, at, length in spans
            ]
        begun += run.timed.profiled
    return found


def roofs_of(profile: Profile) -> dict[str, Any]:
    """The roofs of this machine, for the numbers in which most is multiplied."""
    work: Counter[str] = Counter()
    for row in profile:
        work[row.get("scheme", "f32")] += row["macs"] or 0
    roofs = measure_roofs(profile.threads)
    scheme = work.most_common(1)[0][0] if work else "f32"
    note = f"The size of a point is its time. Roofs: {roofs.text}."
    return {"gmacs": roofs.peak(scheme) / 1e9, "gbytes": roofs.cache / 1e9, "note": note}
