"""Predicted cycles of a whole model on Neoverse cores: kernels by model, weights by bandwidth.

Nothing is timed. Each kernel is priced once for each shape by :mod:`graphopt.n2sim`; a step takes
the longer of its arithmetic and of reading its weights, and what a cache of keys and values holds,
from memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphopt.bench.arm_specs import PRICED_MACS, PRICED_ROWS, PRICED_ROWS_INT4, specs_of
from graphopt.bench.kernels.arm import price_step
from graphopt.bench.kernels.workloads import Spec
from graphopt.bench.machine import Machine
from graphopt.compiler.schedule import StepBalance
from graphopt.kernels.registry import Level
from graphopt.target import Target
from graphopt.toolchain.build import Builder


def assumptions(machine: Machine) -> str:
    """What these figures assume, for people."""
    start = machine.step_seconds * 1e6
    begun = f"with {start:.3g} µs" if start else "without the cost"
    core, socket = (machine[f"{of}_bandwidth"].value / 1e9 for of in ("core", "socket"))
    return (
        f"Assumed: {machine.clock / 1e9:.1f} GHz; weights and cached keys and values come from "
        f"memory in every pass at {core:.0f} GB/s a core and {socket:.0f} GB/s a socket, "
        "activations stay in caches and "
        "loads hit the first level; a step takes the longer of arithmetic and memory. "
        "Arithmetic: graphopt.n2sim, one price a kernel and shape (of a product at most "
        f"{PRICED_ROWS} rows, {PRICED_ROWS_INT4} with int4 weights, and "
        f"{PRICED_MACS / 1e6:.1f} million multiply-adds or 256 columns; of attention one head "
        "of keys; the rest in proportion, docs/n2sim.md; without bias and residual). "
        f"Ops without a kernel of their own: {machine.bytes_per_cycle:.0f} bytes a cycle. Several "
        "cores: the tasks as this machine's kernels cut and time them (graphopt balance), "
        f"{begun} of starting a step; serial convolutions on one core. Not compared "
        "with silicon."
    )


@dataclass(frozen=True)
class Cost:
    """A step on a number of cores.

    Attributes:
        op: of the node.
        arithmetic: cycles with everything in the first cache.
        memory: cycles until memory has sent what the step reads from it.
    """

    op: str
    arithmetic: float
    memory: float

    @property
    def cycles(self) -> float:
        """Until it is done."""
        return max(self.arithmetic, self.memory)


@dataclass
class Prices:
    """Cycles of kernels by shape, kept in a file: the same kernel and shape cost the same.

    Attributes:
        target: the CPU.
        builder: compiles the kernels.
        path: JSON of what was priced before; the names of the keys hold the kernel's own hash.
        progress: called before each new price.
    """

    target: Target
    builder: Builder
    path: Path
    progress: Callable[[str], None] = lambda _: None
    known: dict[str, int] = field(default_factory=dict)
    _of_spec: dict[Spec, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known |= self._kept()

    def cycles(self, spec: Spec) -> int:
        """Cycles of a workload's kernel on one core, without packing.

        Raises:
            MissingToolError, MissingEmulatorError, PricingError: see `graphopt.n2sim.price`.
        """
        if spec not in self._of_spec:  # most steps of a model have the sizes of another one
            self._of_spec[spec] = self._price(spec)
        return self._of_spec[spec]

    def _price(self, spec: Spec) -> int:
        work = spec.build(self.target.arch, 1)
        level = _level(self.target, work.kernel.generic)
        kernel = self.builder.kernel_object(level, work.kernel.generic)
        key = f"{self.target.name} {kernel.name} {spec.name}"
        if key not in self.known:
            self.progress(f"{self.target.name}: {spec.name}")
            found = price_step(self.target, work.kernel, work.label.scheme, level, self.builder)
            self._keep(key, found.cycles)
        return self.known[key]

    def _kept(self) -> dict[str, int]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def _keep(self, key: str, cycles: int) -> None:
        """Adds a price to the file, with those that other processes found meanwhile."""
        self.known = {**self._kept(), **self.known, key: cycles}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(self.known, indent=1))
        os.replace(whole, self.path)


def step_costs(
    steps: Sequence[Mapping[str, Any]],
    balances: Sequence[StepBalance] | None,
    prices: Prices,
    machine: Machine,
    cores: int,
    serial_conv: bool = False,
) -> list[Cost]:
    """Cycles of each step of a compiled model.

    Args:
        steps: what its ``profile()`` or ``work()`` says of them; times are not used.
        balances: how the tasks of each step fall on the cores; None for one core.
        prices: of the kernels.
        machine: assumptions.
        cores: how many.
        serial_conv: whether convolutions run on one core.
    """
    costs = []
    for number, step in enumerate(steps):
        used = cores * balances[number].balance if balances else 1.0
        if serial_conv and step["op"] in ("go.conv", "go.depthwise"):
            used = 1.0
        memory = step["memory_bytes"] / machine.bandwidth(used) * machine.clock
        arithmetic = arithmetic_cycles(step, prices, machine) / used
        costs.append(Cost(step["op"], arithmetic, memory))
    return costs


def arithmetic_cycles(step: Mapping[str, Any], prices: Prices, machine: Machine) -> float:
    """Cycles of a step on one core with everything in its first cache.

    A loop whose rows a kernel quantizes costs both.

    Args:
        step: a row of ``Program.work``.
        prices: of the kernels.
        machine: assumptions.

    Raises:
        MissingToolError, MissingEmulatorError, PricingError: see `graphopt.n2sim.price`.
    """
    specs = specs_of(step)
    loop: float = step["bytes"] / machine.bytes_per_cycle
    kernels = sum(prices.cycles(spec) * times for spec, times in specs) * machine.kernel_scale
    return kernels + loop if not specs or step["op"] == "go.pointwise" else kernels


def _level(target: Target, generic: str) -> Level:
    """The best level of the target that has the kernel."""
    return next(
        level
        for level in reversed(target.isa_levels)
        if generic in {kernel.generic for kernel in level.kernels}
    )
