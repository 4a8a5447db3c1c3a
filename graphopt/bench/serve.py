"""How a recognizer's package serves: start, memory, and streams side by side.

Each start is measured in a process of its own, which has numpy and no torch. Streams are Python
threads that call one loaded package as fast as it answers; all their contexts share one mapped copy
of the weights, and `graphopt.limit_threads` keeps them to the cores.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from graphopt.errors import BenchmarkError
from graphopt.runtime.library import limit_threads
from graphopt.runtime.loaded import LoadedModule, load

CALLS = 10  # of a start: the tenth is what the first is compared with
_SEED = 0


@dataclass(frozen=True)
class Start:
    """A process that loads a package and calls it ten times.

    Attributes:
        load: seconds until the package is checked and its weights are mapped.
        load_cpu: CPU seconds of that, which other processes change less.
        calls: seconds of each call.
        idle_bytes: memory of the process before that: Python, numpy, graphopt.
        peak_bytes: the most memory it had.
        weight_bytes: packed weights.
        arena_bytes: working memory of the context.
    """

    load: float
    load_cpu: float
    calls: tuple[float, ...]
    idle_bytes: int
    peak_bytes: int
    weight_bytes: int
    arena_bytes: int

    @property
    def memory_ratio(self) -> float:
        """Peak memory over packed weights and arena."""
        return self.peak_bytes / (self.weight_bytes + self.arena_bytes)

    @property
    def first_ratio(self) -> float:
        """First call over the tenth."""
        return self.calls[0] / self.calls[-1]


@dataclass(frozen=True)
class Load:
    """Streams that call a package for a while.

    Attributes:
        streams: callers.
        threads: threads of a call.
        seconds: from the first call to the end of the last.
        latencies: seconds of each call, its wait for free threads included.
    """

    streams: int
    threads: int
    seconds: float
    latencies: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Calls per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Latency that so many percent of the calls do not exceed, in seconds."""
        return float(np.percentile(self.latencies, percent))


def recognizer_package(path: Path) -> Path:
    """The package from features to token ids: `path`, or `asr` in a package of a recognizer."""
    inner = path / "asr"
    return inner if inner.is_dir() else path


def measure_start(package: Path, frames: int, threads: int) -> Start:
    """Loads and calls a package in a new process.

    Args:
        package: takes f32[B, T, F] and i32[B].
        frames: T; B is 1.
        threads: of a call.

    Raises:
        BenchmarkError: if it takes something else.
    """
    _inputs(load(package), frames)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_start, (package, frames, threads))


def measure_streams(package: Path, frames: int, cores: int, streams: int, calls: int) -> list[Load]:
    """One stream with all cores, then several with all or with one each; the best of two turns.

    Calls that want all cores run one after the other: `limit_threads` lets no more threads run.

    Args:
        package: as for `measure_start`.
        frames: of a call.
        cores: threads that may run at once.
        streams: callers side by side.
        calls: of each kind, in all.
    """
    limit_threads(cores)
    wide, narrow = load(package, cores), load(package, 1)
    inputs = _inputs(wide, frames)
    found: dict[tuple[int, int], Load] = {}
    for _ in range(2):
        for module, count, threads in (
            (wide, 1, cores),
            (wide, streams, cores),
            (narrow, streams, 1),
        ):
            _run_streams(module, inputs, count, threads, count)
            turn = _run_streams(module, inputs, count, threads, calls)
            best = found.setdefault((count, threads), turn)
            if turn.throughput > best.throughput:
                found[count, threads] = turn
    return list(found.values())


def start_table(starts: list[Start]) -> Table:
    """A row a figure, with its goal; the median of the starts."""
    table = Table("start", "median", "goal")
    best = sorted(starts, key=lambda start: start.load)[len(starts) // 2]
    first = float(np.median([start.first_ratio for start in starts]))
    table.add_row("load", f"{best.load * 1e3:.0f} ms", "< 300 ms")
    table.add_row("load, CPU time", f"{best.load_cpu * 1e3:.0f} ms", "")
    table.add_row("first call / tenth", f"{first:.2f}", "<= 1.20")
    table.add_row("peak memory / (weights + arena)", f"{best.memory_ratio:.2f}", "<= 1.25")
    for name in ("idle", "peak", "weight", "arena"):
        table.add_row(f"{name} memory", f"{getattr(best, name + '_bytes') / 1e6:.1f} MB", "")
    return table


def streams_table(loads: list[Load]) -> Table:
    """A row a kind of load; the first is what throughput is compared with."""
    table = Table("streams", "threads", "calls/s", "of first", "p50", "p99", "p99 / p50")
    for one in loads:
        median, slow = one.percentile(50), one.percentile(99)
        table.add_row(
            str(one.streams),
            str(one.threads),
            f"{one.throughput:.2f}",
            f"{one.throughput / loads[0].throughput:.2f}",
            f"{median * 1e3:.1f} ms",
            f"{slow * 1e3:.1f} ms",
            f"{slow / median:.2f}",
        )
    return table


def _inputs(module: LoadedModule, frames: int) -> tuple[Any, ...]:
    ports = module.manifest.inputs
    if [(p.dtype, len(p.shape)) for p in ports] != [("f32", 3), ("i32", 1)]:
        raise BenchmarkError(f"{module.path} takes no features and lengths; give a Paraformer")
    width = int(ports[0].shape[2])
    speech = np.random.default_rng(_SEED).normal(size=(1, frames, width)).astype(np.float32)
    return speech, np.array([frames], np.int32)


def _start(package: Path, frames: int, threads: int) -> Start:
    idle = _memory("VmRSS")
    begin, cpu = time.perf_counter(), time.process_time()
    module = load(package, threads)
    loaded, loaded_cpu = time.perf_counter() - begin, time.process_time() - cpu
    inputs = _inputs(module, frames)
    calls = tuple(_seconds(module, inputs) for _ in range(CALLS))
    weights = (package / "weights.bin").stat().st_size
    return Start(loaded, loaded_cpu, calls, idle, _memory("VmHWM"), weights, module.arena_bytes)


def _seconds(module: LoadedModule, inputs: tuple[Any, ...]) -> float:
    begin = time.perf_counter()
    module(*inputs)
    return time.perf_counter() - begin


def _memory(field: str) -> int:
    """Bytes of this process in /proc: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"/proc/self/status has no {field}")


def _run_streams(
    module: LoadedModule, inputs: tuple[Any, ...], streams: int, threads: int, calls: int
) -> Load:
    latencies: list[float] = []
    left = iter(range(calls))
    lock = threading.Lock()

    def stream() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            latencies.append(_seconds(module, inputs))

    callers = [threading.Thread(target=stream) for _ in range(streams)]
    begin = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return Load(streams, threads, time.perf_counter() - begin, tuple(latencies))
