"""What is assumed of a machine, measured on this one; and how far a prediction for it was off."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from graphopt.bench.kernels.native import Kernels
from graphopt.bench.machine import CONSTANTS, Machine
from graphopt.config import Config
from graphopt.dependencies import require
from graphopt.inspection.models import Planned
from graphopt.inspection.prediction import Prediction, predict
from graphopt.n2sim.cores import CORES
from graphopt.printable import printable
from graphopt.progress import announce
from graphopt.runtime.cpus import usable_cpus
from graphopt.target import native
from graphopt.toolchain.build import Builder

_ADDITIONS = 1 << 24
_MEMORY_BYTES = 256 << 20  # beyond any cache
_LOOP_FLOATS = 1 << 15  # two operands and a result are in the second cache
_EMPTY_STEPS = 2000
_PASSES = 7  # of which the fastest counts
_PREDICTED = "of arithmetic: measured on one core over LLVM's model"


@dataclass(frozen=True)
class Check:
    """A prediction for one core beside what was measured there.

    Attributes:
        model: what was run.
        measured: milliseconds of its steps.
        assumed: the prediction from what is assumed of any machine.
        known: the prediction from what was measured of this one.
    """

    model: str
    measured: float
    assumed: float
    known: float

    def as_dict(self) -> dict[str, Any]:
        """The times, and how far each prediction is off."""
        off = {f"{of}_off": getattr(self, of) / self.measured - 1 for of in ("assumed", "known")}
        return {**vars(self), **off}


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        machine: for the file of constants.
        check: of a prediction; None where there is no model of this CPU.
    """

    machine: Machine
    check: Check | None

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""
        check = None if self.check is None else self.check.as_dict()
        names = {"machine": self.machine.name, "target": self.machine.target}
        return {**names, "constants": self.machine.as_dict(), "check": check}

    def __rich__(self) -> Group:
        title = f"{printable(self.machine.name)}, {self.machine.target}"
        table = Table(title=Text(title), title_justify="left", width=80)
        table.add_column("constant", overflow="fold")
        for head in ("assumed", "here", "off by"):
            table.add_column(head, justify="right")
        table.add_column("how", overflow="fold", ratio=1)
        for name, one in CONSTANTS.items():
            here = self.machine.constants.get(name)
            cells = [name, f"{one.value:g} {one.unit}"]
            if here is None:
                table.add_row(*cells, "", "", "not measured")
                continue
            off = f"{here.value / one.value:.2f}x" if one.value else ""
            table.add_row(*cells, f"{here.value:.4g} {here.unit}", off, Text(here.origin))
        return Group(table, Text(self._said()))

    def _said(self) -> str:
        if self.check is None:
            return "LLVM's models are of Neoverse cores; no prediction for this CPU was compared."
        told, times = self.check, self.check.as_dict()
        return (
            f"{printable(told.model)} on one core: {told.measured:.3f} ms measured; predicted "
            f"{told.assumed:.3f} ms ({times['assumed_off']:+.0%}) from what is assumed, "
            f"{told.known:.3f} ms ({times['known_off']:+.0%}) from what was measured"
        )


def calibrate(planned: Planned | None, target: str) -> Calibration:
    """Measures this machine: some seconds, with nothing else running.

    Args:
        planned: a model whose prediction is compared, planned for the target and one thread;
            without one, or on a CPU that no model is of, no prediction is.
        target: name of the CPU that this machine is, for the file.

    Raises:
        MissingCompilerError: without a compiler.
        RunError: if threads cannot be started.
        GraphoptError: as `predict`.
    """
    machine = measure(target)
    if planned is None or not planned.options.target.is_host or target not in CORES:
        return Calibration(machine, None)
    announce(f"{planned.name}: profile")
    args, kwargs = planned.call or ((), {})
    rows = list(planned.compiled.profile(*args, repeats=_PASSES, **kwargs))
    return checked(planned, machine, rows)


def checked(planned: Planned, machine: Machine, rows: Sequence[Mapping[str, Any]]) -> Calibration:
    """Compares a prediction for one core with times of the same steps, and scales it by them.

    Args:
        planned: the model.
        machine: what was measured.
        rows: of its profile on one thread.
    """
    measured = sum(row["ms"] for row in rows)
    (assumed,) = predict(planned, [1], Machine(), announce)
    (priced,) = predict(planned, [1], machine, announce)
    if scale := _scale(priced, rows):
        machine = machine.known("kernel_scale", scale, f"{planned.name}, {_PREDICTED}")
    (known,) = predict(planned, [1], machine, announce)
    return Calibration(machine, Check(planned.name, measured, assumed.ms, known.ms))


def _scale(priced: Prediction, rows: Sequence[Mapping[str, Any]]) -> float:
    """Cycles that steps took over what arithmetic should, of those that do not wait for memory."""
    pairs = [
        (row["ms"] / 1e3 * priced.machine.clock, step.arithmetic)
        for step, row in zip(priced.steps, rows, strict=True)
        if step.arithmetic > step.memory and row["macs"]
    ]
    wanted = sum(cycles for _, cycles in pairs)
    return sum(cycles for cycles, _ in pairs) / wanted if wanted else 0.0


def measure(target: str) -> Machine:
    """The constants of this machine, but for those of kernels.

    Args:
        target: name of the CPU that it is.
    """
    builder = Builder(Config.from_environment().cache, usable_cpus())
    library = builder.timed_kernels(native().isa_levels[-1])
    threads = usable_cpus()
    machine = Machine(name=platform.node() or "this machine", target=target)

    def on(count: int, use: Callable[[Kernels], float]) -> float:
        kernels = Kernels(library, count)
        try:
            return use(kernels)
        finally:
            kernels.close()

    announce("clock")
    seconds = on(1, lambda kernels: _fastest(kernels.count_loop(_ADDITIONS)))
    machine = machine.known("clock", _ADDITIONS / seconds, f"{_ADDITIONS} dependent additions")
    for name, count in (("core_bandwidth", 1), ("socket_bandwidth", threads)):
        announce(name)
        seconds = on(count, lambda kernels: _fastest(kernels.read_loop(_MEMORY_BYTES)))
        how = f"{_MEMORY_BYTES >> 20} MiB read on {count} threads"
        machine = machine.known(name, _MEMORY_BYTES / seconds, how)
    announce("loops")
    rate = _loop_bytes() / machine.clock
    machine = machine.known("bytes_per_cycle", rate, f"a sum of {_LOOP_FLOATS} floats on one core")
    if threads > 1:
        announce("steps")
        seconds = on(threads, lambda kernels: _fastest(kernels.read_loop(0), _EMPTY_STEPS))
        how = f"{_EMPTY_STEPS} empty steps on {threads} threads"
        machine = machine.known("step_seconds", seconds, how)
    return machine


def _fastest(run: Callable[[int], float], repeats: int = 1) -> float:
    """Seconds of one repeat."""
    return min(run(repeats) for _ in range(_PASSES)) / repeats


def _loop_bytes() -> float:
    """Bytes a second that a generated loop reads and writes in caches."""
    from graphopt.driver import optimize

    torch = require("torch", "timing a generated loop")

    class Sum(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any, y: Any) -> Any:
            return x + y

    inputs = tuple(torch.ones(1, _LOOP_FLOATS) for _ in range(2))
    fast = optimize(Sum().eval(), "native", inputs, precision="fp32", num_threads=1, check=False)
    rows = [row for _ in range(_PASSES) for row in fast.profile(*inputs, repeats=_PASSES)]
    return float(max(row["bytes"] / row["ms"] for row in rows) * 1e3)
