"""How evenly the tasks of every op fall on the cores of a larger machine.

The module is built a second time with a team of which one thread does all the work
(kernels/harness/trace_team.c): kernels cut their work for as many cores as are asked for, by the
code that cuts it in earnest, and every task is timed alone. Here the tasks are dealt out again as
the runtime does it: each core works through its own share, then through what is left of the
others'. What is left out: the cores' shared caches and memory, and that they begin an op at
slightly different times.
"""

from __future__ import annotations

import ctypes
import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.codegen.build import Builder
from graphopt.codegen.emit import Module
from graphopt.kernels.registry import Level
from graphopt.runtime import Library

Array = np.ndarray[Any, Any]
_PHASE_END, _STEP_END = -1.0, -2.0  # of trace_team.c


@dataclass(frozen=True)
class StepBalance:
    """One step on a number of cores.

    Attributes:
        op: of the node.
        kernel: generic name.
        shape: of the result, as the report shows it.
        tasks: tasks of each phase (a kernel with a barrier inside has several).
        work: seconds of all tasks.
        makespan: seconds until the last core is done, phase after phase.
        cores: how many.
    """

    op: str
    kernel: str
    shape: str
    tasks: tuple[int, ...]
    work: float
    makespan: float
    cores: int

    @property
    def balance(self) -> float:
        """Work over what the cores could have done in that time; 1 for a step without work."""
        return self.work / (self.cores * self.makespan) if self.makespan else 1.0


def makespan(tasks: Sequence[float], cores: int) -> float:
    """When the last of the tasks ends, claimed as go_next in kernels/runtime/team.c does it."""
    cuts = [len(tasks) * rank // cores for rank in range(cores + 1)]
    shares = [deque(tasks[first:end]) for first, end in pairwise(cuts)]
    free = [(0.0, rank) for rank in range(cores)]
    for _ in tasks:
        time, rank = heapq.heappop(free)
        share = next(filter(None, shares[rank:] + shares[:rank]))
        heapq.heappush(free, (time + share.popleft(), rank))
    return max(free)[0]


def trace_tasks(
    builder: Builder,
    module: Module,
    level: Level,
    weights: Path,
    inputs: Sequence[Array],
    cores: int,
    repeats: int,
) -> list[list[list[float]]]:
    """Seconds of every task, by step and phase: the shortest of all runs.

    Raises:
        MissingCompilerError: without a compiler.
        InputError: if an input does not fit.
    """
    path = builder.traced_library(module.source, level)
    library = Library(path, weights, ["?"] * len(inputs), [a.shape for a in inputs])
    context = library.context(cores)
    take = ctypes.CDLL(str(path)).go_trace_take
    take.restype = ctypes.c_size_t
    runs = []
    for _ in range(repeats):
        context.run(inputs)
        values = ctypes.POINTER(ctypes.c_double)()
        count = take(ctypes.byref(values))
        runs.append(np.ctypeslib.as_array(values, (count,)).copy())
    return list(_steps(np.min(runs, axis=0)))


def _steps(values: Array) -> Iterator[list[list[float]]]:
    """Cuts a trace at its marks; phases without tasks are left out."""
    step: list[list[float]] = []
    phase: list[float] = []
    for value in values.tolist():
        if value == _STEP_END:
            yield step
            step = []
        elif value == _PHASE_END:
            step += [phase] if phase else []
            phase = []
        else:
            phase.append(value * 1e-9)


def balance_of(
    module: Module, traced: Sequence[Sequence[Sequence[float]]], cores: int
) -> list[StepBalance]:
    """The balance of every step of a traced module."""
    rows = []
    for step, phases in zip(module.steps, traced, strict=True):
        value = step.node.outputs[0] if step.node.outputs else None
        rows.append(
            StepBalance(
                step.node.op.removeprefix("go."),
                step.node.attrs.get("kernel", ""),
                str(list(value.shape)) if value else "",
                tuple(len(phase) for phase in phases),
                sum(map(sum, phases)),
                sum(makespan(phase, cores) for phase in phases),
                cores,
            )
        )
    return rows
