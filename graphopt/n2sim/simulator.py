"""llvm-mca as a simulator of one core, with the corrections that the package describes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from graphopt.n2sim.blocks import Block
from graphopt.n2sim.cores import Core, MacClass
from graphopt.n2sim.disassembly import Instruction
from graphopt.n2sim.execution import Execution
from graphopt.n2sim.llvm import Llvm

_MERGE_CYCLES = 2  # of a lane load, once the data is there
_FEW, _MANY = 50, 150  # iterations between which a loop's rate is taken
_PEAK_CHAINS = 24


def forwarded(region: Sequence[Instruction], cyclic: bool, width: int) -> dict[int, int]:
    """Instructions whose result is forwarded to the addend of a like accumulate.

    A link longer than latency x width instructions cannot limit the core, and is left alone.

    Args:
        region: instructions in the order in which they run.
        cyclic: whether the region repeats, so that links may wrap around.
        width: instructions that the core renames in a cycle.

    Returns:
        Position in the region -> latency of the forwarded result, in cycles.
    """
    found: dict[int, int] = {}
    pending: dict[int, tuple[int, Instruction]] = {}
    for step, instruction in enumerate([*region, *region] if cyclic else region):
        registers, row = instruction.vectors, instruction.forwarding
        if row and registers[0] in pending and registers[0] not in registers[1:]:
            at, source = pending[registers[0]]
            if source.forwarding is row and step - at < width * row.latency:
                found[at % len(region)] = row.late
        for register in registers:
            pending.pop(register, None)
        if row:
            pending[registers[0]] = (step, instruction)
    return found


@dataclass
class Simulator:
    """Prices instructions on one core.

    Attributes:
        llvm: whose model it is.
        core: the core.
        unknown: instructions that the core lacks; llvm-mca drops them, so a price is wrong
            if there are any.
    """

    llvm: Llvm
    core: Core
    unknown: set[str] = field(default_factory=set)

    def summaries(
        self, regions: Sequence[Sequence[Instruction]], iterations: int
    ) -> list[dict[str, float]]:
        """llvm-mca's summary of each region, run ``iterations`` times in a row."""
        lines = []
        for number, region in enumerate(regions):
            lines.append(f"# LLVM-MCA-BEGIN r{number}")
            lines += self._annotated(region, iterations > 1)
            lines.append(f"# LLVM-MCA-END r{number}")
        return self._run("\n".join(lines) + "\n", iterations) if regions else []

    def block_cycles(self, blocks: Sequence[Block]) -> list[float]:
        """Cycles of one execution of each block.

        A loop costs its steady rate, straight code what its busiest resource needs.
        """
        loops = [block.code for block in blocks if block.is_loop]
        few, many = self.summaries(loops, _FEW), self.summaries(loops, _MANY)
        rates = [
            (b["TotalCycles"] - a["TotalCycles"]) / (_MANY - _FEW)
            for a, b in zip(few, many, strict=True)
        ]
        lines = [block.code for block in blocks if not block.is_loop]
        throughputs = [summary["BlockRThroughput"] for summary in self.summaries(lines, 1)]
        prices = {True: iter(rates), False: iter(throughputs)}
        return [
            max(next(prices[block.is_loop]), len(block.code) / self.core.width) for block in blocks
        ]

    def window_cycles(self, warm: Sequence[Instruction], body: Sequence[Instruction]) -> float:
        """Cycles that ``body`` adds when it follows ``warm``."""
        regions = [[*warm, *body], warm] if warm else [body]
        after, *before = (summary["TotalCycles"] for summary in self.summaries(regions, 1))
        return max(after - sum(before), len(body) / self.core.width)

    def peak(self, kind: MacClass) -> float:
        """MACs per cycle of independent instructions of a class; 0 if the core has none."""
        known = set(self.unknown)
        chains = "".join(f"{kind.sample.format(i)}\n" for i in range(_PEAK_CHAINS))
        summary = self._run("nop\n" + chains, 100)[0]
        lacking, self.unknown = self.unknown - known, known
        return 0.0 if lacking else kind.macs * _PEAK_CHAINS / summary["BlockRThroughput"]

    @cached_property
    def needs_forwarding(self) -> bool:
        """Whether the core forwards addends late and this LLVM does not know it."""
        if not self.core.late_addend:
            return False
        chain = self._run("smmla v0.4s, v1.16b, v2.16b\n", 100)[0]
        return chain["TotalCycles"] > 200

    def _annotated(self, region: Sequence[Instruction], cyclic: bool) -> list[str]:
        """The region with the latencies that llvm-mca has to be told."""
        told = {at: _MERGE_CYCLES for at, i in enumerate(region) if i.is_lane_load}
        if self.needs_forwarding:
            told |= forwarded(region, cyclic, self.core.width)
        lines: list[str] = []
        for latency, run in itertools.groupby(range(len(region)), told.get):
            texts = [region[at].text for at in run]
            if latency is not None:  # one mark for neighbours: llvm-mca is quadratic in marks
                texts = [f"# LLVM-MCA-LATENCY {latency}", *texts, "# LLVM-MCA-LATENCY"]
            lines += texts
        return lines

    def _run(self, text: str, iterations: int) -> list[dict[str, float]]:
        output, messages = self.llvm.run(
            "llvm-mca",
            "-mtriple=aarch64",
            f"-mcpu={self.core.name}",
            f"-dispatch={2 * self.core.width}",
            f"-iterations={iterations}",
            "-resource-pressure=0",
            "-instruction-info=0",
            "-skip-unsupported-instructions=any",
            "-json",
            text=text,
        )
        self.unknown.update(re.findall(r"error: .*\n(\S+).*\n", messages))
        return [region["SummaryView"] for region in json.loads(output)["CodeRegions"]]


def sample_windows(
    ran: Execution, code: Mapping[int, Instruction], windows: int, size: int
) -> list[tuple[list[Instruction], list[Instruction]]]:
    """Evenly spaced windows of the recorded order: what warms each up, and its instructions.

    Args:
        ran: what ran, with the order.
        code: the program.
        windows: how many; fewer if the order is shorter than so many windows.
        size: instructions of a window; a quarter as many warm it up.
    """
    starts = np.concatenate([[0], ran.ends()])
    total, warm = int(starts[-1]), size // 4
    count = min(windows, -(-total // size))
    parts = []
    for number in range(count):
        begin = max(0, int((number + 0.5) * total / count - size / 2))
        cuts = np.searchsorted(starts, [begin - warm, begin, begin + size])
        head, body = (
            [
                code[address]
                for start, length in (ran.blocks[i] for i in ran.order[low:high])
                for address in range(start, start + 4 * length, 4)
            ]
            for low, high in itertools.pairwise(cuts)
        )
        parts.append((head, body))
    return parts
