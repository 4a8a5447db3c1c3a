"""Native rows: our kernels, peers and instruction loops, in turns of random order."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphopt.bench.kernels.native import Kernels, PeakLoop
from graphopt.bench.kernels.peers import peers_of
from graphopt.bench.kernels.row import Row
from graphopt.bench.kernels.workloads import Array, Spec, Step, Workload, as_values
from graphopt.bench.measure import IDLE_SECONDS, relative_error
from graphopt.codegen.build import Builder
from graphopt.errors import GraphoptError
from graphopt.kernels import registry
from graphopt.target import Target

# A sample is as many calls as take about so long; in ten milliseconds a core that slept is not
# yet awake, which halves what two threads seem to do.
SAMPLE_SECONDS = 0.1
_PACKING, _PEAK = "packing", "peak"


@dataclass
class Contender:
    """Something that is timed.

    Attributes:
        engine: its name.
        part: see :class:`row.Row`; or ``packing`` or ``peak``, which have no rows of their own.
        level: ISA level whose peak it is compared with.
        run: ``run(repeats)`` gives seconds.
        macs: multiply-accumulates of one call.
        error: of its result, see :class:`row.Row`.
        note: what there is to know.
        samples: seconds of a call, one a round.
    """

    engine: str
    part: str
    level: str
    run: Callable[[int], float]
    macs: int
    error: float | None = None
    note: str = ""
    repeats: int = 1
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds of a call."""
        return statistics.median(self.samples)


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

    Raises:
        MissingCompilerError: without a compiler.
    """
    levels = [level for level in target.isa_levels if level.name != "scalar"] or target.isa_levels
    loaded = {row: Kernels(builder.timed_kernels(row), threads) for row in levels}
    for spec in specs:
        work = spec.build(target.arch, threads)
        progress(f"{threads} threads: {work.label.name}")
        contenders: list[Contender] = []
        for level, kernels in loaded.items():
            contenders += _ours(work, level, kernels)
        rows, ready = _peers(work, target, threads, list(loaded)[-1].name)
        contenders += ready
        _alternate(contenders, rounds)
        yield from _rows(work, contenders, threads)
        yield from rows
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
    return found + [_peak_contender(loop, level.name) for loop in loops]


def _peak_contender(loop: PeakLoop, level: str) -> Contender:
    return Contender(loop.sequence, _PEAK, level, loop.run, loop.macs)


def _peers(
    work: Workload, target: Target, threads: int, level: str
) -> tuple[list[Row], list[Contender]]:
    """Contenders of other libraries, and rows for those that cannot run."""
    missing, ready = [], []
    for peer in peers_of(work):
        try:
            call = peer.prepare(work, threads)
            one = Contender(peer.name, peer.part, level, _timed(call), work.macs, note=peer.note)
            exact = work.exact if peer.exact is None else peer.exact(work)
            _judge(
                one, as_values(call()), exact, peer.limit if peer.limit is not None else work.limit
            )
        except Exception as error:  # a peer may fail in its own way; the row tells
            known = isinstance(error, GraphoptError)
            note = str(error) if known else f"{type(error).__name__}: {error}"
            reason = note.splitlines()[0]
            missing.append(Row(work.label, peer.name, peer.part, threads, note=reason))
            continue
        ready.append(one)
    return missing, ready


def _judge(one: Contender, result: Array, exact: Array, limit: float) -> None:
    """Record the error of a result; a wrong one is named as such."""
    one.error = relative_error(np.asarray(result).reshape(exact.shape), exact)
    if not one.error <= limit:
        one.note = f"WRONG: error {one.error:.1e} above {limit:.0e}"


def _timed(call: Callable[[], Array]) -> Callable[[int], float]:
    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start

    return run


def _alternate(contenders: Sequence[Contender], rounds: int) -> None:
    """Warm each up, choose its repeats, then sample all of them once in every round."""
    for one in contenders:
        one.run(1)
        one.repeats = max(1, round(SAMPLE_SECONDS / max(one.run(1), 1e-7)))
    shuffled, order = list(contenders), random.Random(0)
    for _ in range(rounds):
        order.shuffle(shuffled)
        for one in shuffled:
            time.sleep(IDLE_SECONDS)  # threads of the one before may spin for a moment
            one.run(1)
            one.samples.append(one.run(one.repeats) / one.repeats)


def _rows(work: Workload, contenders: Sequence[Contender], threads: int) -> Iterator[Row]:
    for one in contenders:
        if one.part in (_PACKING, _PEAK):
            continue
        low, high = np.percentile(one.samples, [25, 75])
        packing = [c for c in contenders if (c.part, c.engine) == (_PACKING, one.engine)]
        peaks = [c for c in contenders if (c.part, c.level) == (_PEAK, one.level)]
        best = max(peaks, key=lambda c: c.macs / c.median, default=None)
        rate = work.macs / one.median if work.macs else None
        yield Row(
            work.label,
            one.engine,
            one.part,
            threads,
            gmacs=rate / 1e9 if rate else None,
            seconds=one.median,
            quartiles=(float(low), float(high)),
            per_element=None if work.macs else 1e9 * one.median / work.elements,
            peak_share=rate / (best.macs / best.median) if rate and best else None,
            peak=best.engine if best else "",
            pack_share=packing[0].median / one.median if packing and one.part == "call" else None,
            error=one.error,
            note=one.note,
        )
