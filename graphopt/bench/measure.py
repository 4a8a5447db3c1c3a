"""Time engines against each other: warm, alternating, in a new random order each round."""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.bench.engines import Engine, NamedArrays, Workload
from graphopt.bench.worker import Worker, alone, fork
from graphopt.dependencies import require

# Thread pools of an engine that ran may spin for a moment; nobody is timed next to that.
IDLE_SECONDS = 0.05
WARM_UPS = 2


@dataclass
class Result:
    """What one engine did at one thread count.

    Attributes:
        engine: Its name.
        threads: Threads it was given.
        version: Version of its package, or "".
        details: Its settings.
        seconds: Wall time of each pass.
        cores: CPU time over wall time of each pass, of the whole process: how many cores it kept
            busy, which shows that it kept to its threads.
        errors: What the workload's ``compare`` finds, by name.
        inspected: What ``inspect`` of :func:`measure` found.
        missing: Why the engine did not run, or "".
    """

    engine: str
    threads: int
    version: str = ""
    details: str = ""
    seconds: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    inspected: Any = None
    missing: str = ""

    @property
    def median(self) -> float:
        """Median wall time of a pass, seconds; NaN if it did not run."""
        return statistics.median(self.seconds) if self.seconds else float("nan")

    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the wall times, seconds."""
        low, high = np.percentile(self.seconds, [25, 75]) if self.seconds else (np.nan, np.nan)
        return float(low), float(high)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**self.__dict__, "median": self.median, "quartiles": self.quartiles()}


def flush_denormals() -> None:
    """Flush-to-zero in this thread and those it starts; call it before torch computes anything."""
    require("torch", "the benchmark").set_flush_denormal(True)


def measure(
    workloads: Sequence[Workload],
    engines: Sequence[Engine],
    threads: Sequence[int],
    rounds: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    inspect: Callable[[Engine], Any] | None = None,
) -> list[list[Result]]:
    """Prepare all engines, warm them, then time one pass of each per round.

    Each engine is in a process of its own, so that what ends it ends no other's row.

    Args:
        workloads: What a pass is; those of one model share what engines load.
        engines: The engines; the first is the reference for errors.
        threads: Numbers of threads for each engine.
        rounds: Timed passes of each engine.
        seed: Seed of the orders.
        progress: Called with one line before each step.
        inspect: What an engine is asked after the last round, for `Result.inspected`; a function
            of a module.

    Returns:
        For each workload, one result an engine and number of threads, in their order; engines
        that could not be measured say why.
    """
    results: list[list[Result]] = [[] for _ in workloads]
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for engine in engines:
            workers[engine.name] = fork(_Passes(engine, workloads))
            stack.callback(workers[engine.name].end)
        for count in threads:
            for number, workload in enumerate(workloads):
                rows = [Result(engine.name, count) for engine in engines]
                results[number] += rows
                _prepare(rows, workers, number, workload, progress)
                _alternate(rows, workers, rounds, random.Random(seed), progress)
                for row in [row for row in rows if inspect and not row.missing]:
                    with alone(row):
                        row.inspected = workers[row.engine].call("inspect", inspect)
    return results


class _Passes:
    """An engine as it works in its own process."""

    def __init__(self, engine: Engine, workloads: Sequence[Workload]) -> None:
        self._engine, self._workloads = engine, workloads

    def prepare(self, number: int, threads: int) -> tuple[NamedArrays, str, str]:
        """Outputs of a warm engine for a workload, its version and its settings."""
        flush_denormals()
        self._engine.prepare(self._workloads[number], threads)
        for _ in range(WARM_UPS):
            outputs = self._engine.run()
        kept = {name: np.array(value) for name, value in outputs.items()}
        return kept, self._engine.version(), self._engine.details()

    def time(self) -> tuple[float, float]:
        """Seconds of a pass, and the cores it kept busy."""
        gc.collect()
        time.sleep(IDLE_SECONDS)
        cpu, wall = time.process_time(), time.perf_counter()
        self._engine.run()
        seconds = time.perf_counter() - wall
        return seconds, (time.process_time() - cpu) / seconds

    def inspect(self, function: Callable[[Engine], Any]) -> Any:
        """What a function finds in the engine."""
        return function(self._engine)


def _prepare(
    rows: Sequence[Result],
    workers: Mapping[str, Worker],
    number: int,
    workload: Workload,
    progress: Callable[[str], None],
) -> None:
    reference: NamedArrays = {}
    for row in rows:
        progress(f"{row.threads} threads: preparing {row.engine}")
        with alone(row):
            found = workers[row.engine].call("prepare", number, row.threads)
            outputs, row.version, row.details = found
            reference = reference or outputs
            row.errors = workload.compare(outputs, reference)


def _alternate(
    rows: Sequence[Result],
    workers: Mapping[str, Worker],
    rounds: int,
    order: random.Random,
    progress: Callable[[str], None],
) -> None:
    ready = [row for row in rows if not row.missing]
    for number in range(rounds):
        order.shuffle(ready)
        for row in [row for row in ready if not row.missing]:
            progress(f"{row.threads} threads: round {number + 1} of {rounds}, {row.engine}")
            with alone(row):
                seconds, cores = workers[row.engine].call("time")
                row.seconds.append(seconds)
                row.cores.append(cores)
