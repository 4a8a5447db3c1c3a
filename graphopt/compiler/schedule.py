"""How evenly the tasks of every op fall on the cores of a larger machine.

The module is built a second time with a team of which one thread does all the work
(kernels/harness/trace_team.c): kernels cut their work for as many cores as are asked for, by the
code that cuts it in earnest, and every task is timed alone. Here the tasks are dealt out again as
the runtime does it: each core works through its own share, then through what is left of the
others'. The first task of a phase finds neither code nor weights in the near caches; one core
pays that once, several cores once each. What is left out: the cores' shared caches and memory, and
that they begin an op at slightly different times.
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

from graphopt.codegen.emit import Module
from graphopt.ir.networks import critical_path
from graphopt.kernels.registry import Level
from graphopt.runtime.library import Library
from graphopt.toolchain.build import Builder

Array = np.ndarray[Any, Any]
_PHASE_END, _STEP_END = -1.0, -2.0  # of trace_team.c


@dataclass(frozen=True)
class Phase:
    """What was traced between two barriers.

    Attributes:
        tasks: seconds of each task behind another one; with a single task, of that as it is.
        start: seconds that the first task of a core takes longer.
    """

    tasks: tuple[float, ...]
    start: float = 0.0

    def work(self, cores: int) -> float:
        """Seconds of all tasks on a number of cores."""
        return sum(self.tasks) + self.start * min(cores, len(self.tasks))


@dataclass(frozen=True)
class StepBalance:
    """One step on a number of cores.

    Attributes:
        op: of the node.
        kernel: generic name.
        shape: of the result, as the report shows it.
        tasks: tasks of each phase (a kernel with a barrier inside has several).
        alone: seconds of one core for all tasks.
        work: seconds of all cores together, which begin cold each.
        makespan: seconds until the last core is done, phase after phase.
        cores: how many.
        critical: whether it is on the critical path: of the steps that wait for each other, those
            that take longest.
    """

    op: str
    kernel: str
    shape: str
    tasks: tuple[int, ...]
    alone: float
    work: float
    makespan: float
    cores: int
    critical: bool = False

    @property
    def balance(self) -> float:
        """Work over what the cores could have done in that time; 1 for a step without work."""
        return self.work / (self.cores * self.makespan) if self.makespan else 1.0


def makespan(phase: Phase, cores: int) -> float:
    """When the last of the tasks ends, claimed as go_next in kernels/runtime/team.c does it."""
    if not phase.tasks:
        return 0.0
    cuts = [len(phase.tasks) * rank // cores for rank in range(cores + 1)]
    shares = [deque(phase.tasks[first:end]) for first, end in pairwise(cuts)]
    free = [(0.0, rank) for rank in range(cores)]
    for _ in phase.tasks:
        time, rank = heapq.heappop(free)
        share = next(filter(None, shares[rank:] + shares[:rank]))
        heapq.heappush(free, ((time or phase.start) + share.popleft(), rank))
    return max(free)[0]


def trace_tasks(
    builder: Builder,
    module: Module,
    level: Level,
    weights: Path,
    inputs: Sequence[Array],
    cores: int,
    repeats: int,
) -> list[list[Phase]]:
    """The phases of every step: the shortest time of each task, and the median cold start.

    Every run begins a phase with another of its tasks. With one run no start is known.

    Args:
        builder: compiles the module with the tracing team.
        module: for the architecture of this machine.
        level: ISA level that this machine has.
        weights: file of the module's packed weights.
        inputs: stored arrays (bf16 as uint16) in the order of the module.
        cores: for how many the kernels cut their work.
        repeats: runs.

    Raises:
        MissingCompilerError: without a compiler.
        InputError: if an input does not fit.
    """
    path = builder.traced_library(module.source, level)
    library = Library(path, weights, ["?"] * len(inputs), [a.shape for a in inputs])
    context = library.context(cores)
    begin, take = library.symbol("go_trace_begin"), library.symbol("go_trace_take")
    begin.argtypes, take.restype = [ctypes.c_size_t], ctypes.c_size_t
    runs = []
    for run in range(repeats):
        begin(run)
        context.run(inputs)
        values = ctypes.POINTER(ctypes.c_double)()
        count = take(ctypes.byref(values))
        runs.append(np.ctypeslib.as_array(values, (count,)).copy())
    return list(_steps(np.array(runs)))


def _steps(runs: Array) -> Iterator[list[Phase]]:
    """Cuts traces [runs, values] at their marks; phases without tasks are left out."""
    step: list[Phase] = []
    first = 0
    for at, value in enumerate(runs[0]):
        if value not in (_PHASE_END, _STEP_END):
            continue
        if at > first:
            step.append(_phase(runs[:, first:at] * 1e-9))
        first = at + 1
        if value == _STEP_END:
            yield step
            step = []


def _phase(runs: Array) -> Phase:
    """Of traces [runs, tasks] in which run r began with task r."""
    shortest = runs.min(axis=0)
    begun = np.arange(len(runs)) % len(shortest)
    starts = runs[np.arange(len(runs)), begun] - shortest[begun]
    return Phase(tuple(shortest.tolist()), float(np.median(starts)))


def balance_of(module: Module, traced: Sequence[Sequence[Phase]], cores: int) -> list[StepBalance]:
    """The balance of every step of a traced module.

    Args:
        module: what was traced.
        traced: phases of each of its steps, by `trace_tasks` for as many cores.
        cores: number of cores.
    """
    rows = []
    times = {
        step.node: sum(makespan(phase, cores) for phase in phases)
        for step, phases in zip(module.steps, traced, strict=True)
    }
    longest = set(critical_path(module.graph.nodes, times))
    for step, phases in zip(module.steps, traced, strict=True):
        value = step.node.outputs[0] if step.node.outputs else None
        rows.append(
            StepBalance(
                step.node.op.name.removeprefix("go."),
                step.node.kernel,
                str(list(value.shape)) if value else "",
                tuple(len(phase.tasks) for phase in phases),
                sum(phase.work(1) for phase in phases),
                sum(phase.work(cores) for phase in phases),
                times[step.node],
                cores,
                step.node in longest,
            )
        )
    return rows
