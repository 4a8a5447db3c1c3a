"""Native rows: our kernels, peers and instruction loops, in turns of random order."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from graphopt.bench.engines import relative_error
from graphopt.bench.kernels.native import Kernels, PeakLoop
from graphopt.bench.kernels.peers import Processes, peers_of
from graphopt.bench.kernels.row import Row
from graphopt.bench.kernels.workloads import Array, Spec, Step, Workload
from graphopt.bench.measure import IDLE_SECONDS
from graphopt.bench.worker import alone
from graphopt.kernels import registry
from graphopt.kernels.host_case import as_at
from graphopt.target import Target
from graphopt.toolchain.build import Builder

# A sample is as many calls as take about so long; in ten milliseconds a core that slept is not
# yet awake, which halves what two threads seem to do.
SAMPLE_SECONDS = 0.1
_PACKING, _PEAK = "packing", "peak"

# So few rows wait for weights; these come from a cache or, in copies beyond any cache, from memory.
_GEMV_ROWS = 4
_STREAM_BYTES = 128 << 20
_LEAST_WEIGHTS = 1 << 20  # of a matrix that is worth reading from memory
_READS = {"cache": ("call", "kernel"), "memory": ("streamed",)}


@dataclass
class Contender:
    """Something that is timed.

    Attributes:
        engine: its name.
        part: see :class:`row.Row`; or ``packing`` or ``peak``, which have no rows of their own.
        calls: how many calls one repeat is.
        limits: the parts that a peak is the limit of, whatever other peaks allow; or empty.
        level: ISA level whose peak it is compared with.
        run: ``run(repeats)`` gives seconds.
        macs: multiply-accumulates of one call.
        error: of its result, see :class:`row.Row`.
        note: what there is to know.
        missing: why it has no figures, or "".
        samples: seconds of a call, one a round.
    """

    engine: str
    part: str
    level: str
    run: Callable[[int], float]
    macs: int
    error: float | None = None
    note: str = ""
    missing: str = ""
    limits: tuple[str, ...] = ()
    calls: int = 1
    repeats: int = 1
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds of a call."""
        return statistics.median(self.samples)

    @property
    def rate(self) -> float:
        """Multiply-accumulates a second."""
        return self.macs / self.median


def native_rows(
    target: Target,
    specs: Sequence[Spec],
    builder: Builder,
    threads: int,
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """Rows of every workload on every level of this machine but the scalar one.

    A level's rows are compared with the best instruction loops of that level, peers with those
    of the highest level.

    Args:
        target: this machine.
        specs: the workloads.
        builder: compiles the kernels.
        threads: number of threads.
        rounds: samples of each contender.
        progress: called with one line before each workload.

    Raises:
        MissingCompilerError: without a compiler.
    """
    levels = [level for level in target.isa_levels if level.name != "scalar"] or target.isa_levels
    loaded = {row: Kernels(builder.timed_kernels(row), threads) for row in levels}
    processes = Processes()
    for spec in specs:
        work = spec.build(target.arch, threads)
        progress(f"{threads} threads: {work.label.name}")
        contenders: list[Contender] = []
        for level, kernels in loaded.items():
            contenders += _ours(work, level, kernels)
        contenders += _peers(work, threads, list(loaded)[-1].name, processes)
        _alternate(contenders, rounds)
        yield from _rows(work, contenders, threads)
    processes.end()
    for kernels in loaded.values():
        kernels.close()


def _ours(work: Workload, level: registry.Level, kernels: Kernels) -> list[Contender]:
    names = {kernel.generic for kernel in level.kernels}
    steps = [step for step in (work.pack, work.kernel) if step is not None]
    if any(step.generic not in names for step in steps):
        return []
    parts: list[tuple[str, list[Step]]] = [("call", steps)]
    if work.pack:
        parts += [("kernel", [work.kernel]), (_PACKING, [work.pack])]
    found = []
    for part, calls in parts:
        prepared = kernels.prepare(calls)
        one = Contender(f"graphopt {level.name}", part, level.name, prepared.run, work.macs)
        if part != _PACKING:
            prepared.run(1)
            result = work.read(prepared.written[work.kernel.case.writes[0]])
            _judge(one, result, work.exact, work.limit)
        found.append(one)
    unit = "int8" if work.label.scheme == "int4" else work.label.scheme  # multiplied as int8
    loops = [loop for loop in kernels.peak_loops() if loop.unit == unit and work.macs]
    found += [_peak_contender(loop, level.name) for loop in loops]
    return found + _streams(work, level, kernels)


def _streams(work: Workload, level: registry.Level, kernels: Kernels) -> list[Contender]:
    """For few rows: on copies of the weights that no cache holds, and loops that only read."""
    case = work.kernel.case
    if work.label.op != "gemm" or work.label.m > _GEMV_ROWS:
        return []
    weights = as_at(case.pointers["rhs"]).array
    if weights.nbytes < _LEAST_WEIGHTS:
        return []
    copies = -(-_STREAM_BYTES // weights.nbytes)
    steps = [
        replace(work.kernel, case=replace(case, pointers=case.pointers | {"rhs": weights.copy()}))
        for _ in range(copies)
    ]
    prepared, engine = kernels.prepare(steps), f"graphopt {level.name}"
    found = [Contender(engine, "streamed", level.name, prepared.run, work.macs, calls=copies)]
    prepared.run(1)
    _judge(found[0], work.read(prepared.written[case.writes[0]]), work.exact, work.limit)
    for where, size in (("cache", weights.nbytes), ("memory", _STREAM_BYTES)):
        loop, macs = kernels.read_loop(size), work.macs * size // weights.nbytes
        found.append(
            Contender(f"{where} reads", _PEAK, level.name, loop, macs, limits=_READS[where])
        )
    return found


def _peak_contender(loop: PeakLoop, level: str) -> Contender:
    return Contender(loop.sequence, _PEAK, level, loop.run, loop.macs)


def _peers(work: Workload, threads: int, level: str, processes: Processes) -> Iterator[Contender]:
    """Contenders of other processes."""
    for peer in peers_of(work):
        worker = processes.of(peer)
        run = partial(worker.call, "run")
        one = Contender(peer.name, peer.part, level, run, work.macs, note=peer.note)
        with alone(one):
            result = worker.call("prepare", peer, work.operands, threads)
            exact = work.exact if peer.exact is None else peer.exact(work)
            _judge(one, result, exact, peer.limit if peer.limit is not None else work.limit)
        yield one


def _judge(one: Contender, result: Array, exact: Array, limit: float) -> None:
    """Record the error of a result; a wrong one is named as such."""
    one.error = relative_error(np.asarray(result).reshape(exact.shape), exact)
    if not one.error <= limit:
        one.note = f"WRONG: error {one.error:.1e} above {limit:.0e}"


def _alternate(contenders: Sequence[Contender], rounds: int) -> None:
    """Warm each up, choose its repeats, then sample all of them once in every round."""
    ready = [one for one in contenders if not one.missing]
    for one in ready:
        with alone(one):
            one.run(1)
            one.repeats = max(1, round(SAMPLE_SECONDS / max(one.run(1), 1e-7)))
    order = random.Random(0)
    for _ in range(rounds):
        order.shuffle(ready)
        for one in [one for one in ready if not one.missing]:
            time.sleep(IDLE_SECONDS)  # threads of the one before may spin for a moment
            with alone(one):
                one.run(1)
                one.samples.append(one.run(one.repeats) / (one.repeats * one.calls))


def _rows(work: Workload, contenders: Sequence[Contender], threads: int) -> Iterator[Row]:
    for one in contenders:
        if one.part in (_PACKING, _PEAK):
            continue
        if one.missing:
            yield Row(work.label, one.engine, one.part, threads, note=one.missing)
            continue
        low, high = np.percentile(one.samples, [25, 75])
        packing = [c for c in contenders if (c.part, c.engine) == (_PACKING, one.engine)]
        best = _peak_of(one, contenders)
        rate = one.rate if work.macs else None
        yield Row(
            work.label,
            one.engine,
            one.part,
            threads,
            gmacs=rate / 1e9 if rate else None,
            seconds=one.median,
            quartiles=(float(low), float(high)),
            per_element=None if work.macs else 1e9 * one.median / work.elements,
            peak_share=rate / best.rate if rate and best else None,
            peak=best.engine if best else "",
            pack_share=packing[0].median / one.median if packing and one.part == "call" else None,
            error=one.error,
            note=one.note,
        )


def _peak_of(one: Contender, contenders: Sequence[Contender]) -> Contender | None:
    """The fastest instructions of the level, or the reads of its weights if these are slower."""
    peaks = [c for c in contenders if (c.part, c.level) == (_PEAK, one.level)]
    loops = sorted((c for c in peaks if not c.limits), key=lambda c: c.rate)
    reads = [c for c in peaks if one.part in c.limits]
    return min([*loops[-1:], *reads], key=lambda c: c.rate, default=None)
