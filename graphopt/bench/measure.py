"""Time engines against each other: warm, alternating, in a new random order each round."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.bench.engines import Engine, Workload
from graphopt.dependencies import require
from graphopt.errors import GraphoptError

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
        missing: Why the engine did not run, or "".
    """

    engine: str
    threads: int
    version: str = ""
    details: str = ""
    seconds: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
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
    workload: Workload,
    engines: Sequence[Engine],
    threads: int,
    rounds: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Prepare all engines, warm them, then time one pass of each per round.

    Args:
        workload: What a pass is.
        engines: The engines; the first is the reference for errors.
        threads: Threads for each engine.
        rounds: Timed passes of each engine.
        seed: Seed of the orders.
        progress: Called with one line before each step.

    Returns:
        One result an engine, in their order; engines that could not be prepared say why.
    """
    results = {engine.name: Result(engine.name, threads) for engine in engines}
    ready = []
    reference: dict[str, np.ndarray[Any, Any]] = {}
    for engine in engines:
        progress(f"{threads} threads: preparing {engine.name}")
        result = results[engine.name]
        try:
            outputs = _prepare(engine, workload, threads)
        except Exception as error:  # a peer may fail in its own way; the table tells
            result.missing = reason(error)
            continue
        reference = reference or outputs
        result.errors = workload.compare(outputs, reference)
        result.version, result.details = engine.version(), engine.details()
        ready.append(engine)
    order = random.Random(seed)
    for number in range(rounds):
        progress(f"{threads} threads: round {number + 1} of {rounds}")
        order.shuffle(ready)
        for engine in ready:
            _time_pass(engine, results[engine.name])
    return list(results.values())


def _prepare(engine: Engine, workload: Workload, threads: int) -> dict[str, np.ndarray[Any, Any]]:
    engine.prepare(workload, threads)
    for _ in range(WARM_UPS):
        outputs = engine.run()
    return {name: np.array(value) for name, value in outputs.items()}


def _time_pass(engine: Engine, result: Result) -> None:
    gc.collect()
    time.sleep(IDLE_SECONDS)
    cpu, wall = time.process_time(), time.perf_counter()
    engine.run()
    seconds = time.perf_counter() - wall
    result.cores.append((time.process_time() - cpu) / seconds)
    result.seconds.append(seconds)


def reason(error: Exception) -> str:
    """First line of an error, with its type if it is not one of graphopt's own."""
    lines = str(error).strip().splitlines() or [""]
    known = isinstance(error, GraphoptError)
    return lines[0] if known else f"{type(error).__name__}: {lines[0]}"
