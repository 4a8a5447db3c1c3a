"""Loops whose speed on Neoverse N2 follows by hand from its pipes and latencies."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import CompilerError
from graphopt.kernels import registry
from graphopt.n2sim.price import price
from graphopt.toolchain.build import Toolchain

_SOURCE = Path(__file__).parent / "sanity.S"
_TRIPS = 2000  # of each loop, in sanity.S


@dataclass(frozen=True)
class Loop:
    """A loop of sanity.S.

    Attributes:
        name: its symbol.
        cycles: of one iteration, by hand.
        why: what limits it.
    """

    name: str
    cycles: float
    why: str


LOOPS = (
    Loop("independent", 16 / 2, "16 SMMLA on two vector pipes"),
    Loop("accumulate", 16 * 1, "16 SMMLA on one accumulator: late addend, 1 cycle a link"),
    Loop("dependent", 16 * 3, "16 SMMLA whose result is a multiplicand: full latency of 3"),
    Loop("fmla_chain", 16 * 2, "16 FMLA on one accumulator: late addend, 2 cycles a link"),
    Loop("load1", 16 / 2, "16 SMMLA, each with a load: three load pipes do not limit"),
    Loop("load2", 32 / 3, "16 SMMLA, each with two loads: 32 loads on three pipes"),
    Loop("convert", 16 * 2, "16 SCVTF of four lanes: two micro-ops each on one pipe"),
    Loop("rename", 18 / 5, "18 scalar instructions, five a cycle"),
)


def build_loops(folder: Path) -> Path:
    """Build sanity.S as a program in ``folder``.

    Raises:
        MissingCompilerError: without a compiler for aarch64.
        CompilerError: if it fails.
    """
    level = registry.level("aarch64", "sve2")
    tools = Toolchain.find(level.arch)
    program = folder / "sanity"
    flags = (*tools.machine_flags(level, static=True), "-nostdlib", "-static")
    command = [*tools.command, *flags, "-o", str(program), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompilerError(command, done.stderr, _SOURCE.name)
    return program


def priced_cycles(program: Path, loop: Loop) -> tuple[float, float]:
    """Cycles of one iteration of a loop: from the simulated order, and from blocks alone."""
    found = price([program], functions=f"^{loop.name}$")
    return found.cycles / _TRIPS, found.cycles_blocks / _TRIPS
