"""From a program to cycles: run it, cut it into blocks, price them, correct by its real order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphopt.errors import PricingError
from graphopt.n2sim.blocks import Block, form_blocks
from graphopt.n2sim.cores import CORES, MAC_CLASSES, MacClass
from graphopt.n2sim.disassembly import Instruction, disassemble
from graphopt.n2sim.execution import Execution, execute
from graphopt.n2sim.llvm import Llvm
from graphopt.n2sim.result import BlockPrice, Price
from graphopt.n2sim.simulator import Simulator, sample_windows

WINDOWS = 8
WINDOW_SIZE = 4000  # instructions
CAP = 1 << 24  # blocks of the order that are recorded


def price(
    command: Sequence[str | Path],
    functions: str = "",
    cpu: str = "neoverse-n2",
    macs: int | None = None,
    peak: str | None = None,
    vector_bits: int | None = None,
    windows: int = WINDOWS,
) -> Price:
    """Cycles that a program's functions would need on a core.

    Args:
        command: a static aarch64 program with symbols and one thread, and its arguments.
        functions: regular expression of the symbols that count, searched for; all by default.
            What they call counts only if it matches too.
        cpu: name in :data:`cores.CORES`.
        macs: useful multiply-accumulates; by default those of the instructions that ran.
        peak: class of :data:`cores.MAC_CLASSES` to compare with; by default the one that did
            most of the work.
        vector_bits: length of SVE vectors; by default the core's.
        windows: simulated windows of 4000 instructions.

    Raises:
        MissingToolError: without LLVM 21 or later.
        MissingEmulatorError: without qemu-aarch64.
        MissingCompilerError: without a compiler for the plugin.
        PricingError: for a program, function, core or class that is not known.
    """
    if cpu not in CORES:
        raise PricingError(f"no model of {cpu!r}; give one of {', '.join(CORES)}")
    if peak is not None and peak not in {c.name for c in MAC_CLASSES}:
        raise PricingError(f"no class {peak!r}; give one of {_names(MAC_CLASSES)}")
    words = [str(word) for word in command]
    simulator = Simulator(Llvm.find(), CORES[cpu])
    bits = vector_bits or simulator.core.vector_bits
    code = disassemble(simulator.llvm, Path(words[0]))
    chosen = _choose(code, functions)
    ran = execute(words, code, chosen, bits, CAP)
    blocks = form_blocks(code, ran.counts, chosen)
    if not blocks:
        raise PricingError(f"none of the functions that match {functions!r} ran")
    cycles = simulator.block_cycles(blocks)
    total = sum(c * block.times for c, block in zip(cycles, blocks, strict=True))
    factor = _order_factor(simulator, code, ran, blocks, cycles, windows)
    kinds: Counter[str] = Counter()
    for block in blocks:
        for instruction in block.code:
            kinds[instruction.kind] += ran.counts[instruction.address]
    executed = sum(kinds.values())
    issued = sum(ran.counts[i.address] * i.macs(bits) for b in blocks for i in b.code)
    family = _peak_class(peak, kinds)
    prices = (_block_price(b, c, bits) for b, c in zip(blocks, cycles, strict=True))
    return Price(
        cpu=cpu,
        instructions=executed,
        by_class=dict(kinds.most_common()),
        cycles=round(total * factor),
        cycles_blocks=round(total),
        macs=macs if macs is not None else issued,
        issued_macs=issued,
        peak_class=family.name if family else "",
        peak=simulator.peak(family) if family else 0.0,
        recorded=ran.recorded() / executed,
        unknown=tuple(sorted(simulator.unknown)),
        exit_status=ran.exit_status,
        blocks=tuple(sorted(prices, key=lambda p: -p.cycles)),
    )


def _names(classes: Sequence[MacClass]) -> str:
    return ", ".join(c.name for c in classes)


def _choose(code: Mapping[int, Instruction], functions: str) -> set[str]:
    try:
        wanted = re.compile(functions)
    except re.error as error:
        raise PricingError(f"{functions!r} is no regular expression: {error}") from error
    chosen = {i.function for i in code.values() if wanted.search(i.function)}
    if not chosen:
        raise PricingError(f"no function matches {functions!r}; is the program stripped?")
    return chosen


def _order_factor(
    simulator: Simulator,
    code: Mapping[int, Instruction],
    ran: Execution,
    blocks: Sequence[Block],
    cycles: Sequence[float],
    windows: int,
) -> float:
    """Simulated cycles of windows of the real order over the block prices of the same code."""
    share = {
        i.address: c / len(block.code)
        for block, c in zip(blocks, cycles, strict=True)
        for i in block.code
    }
    parts = sample_windows(ran, code, windows, WINDOW_SIZE)
    simulated = sum(simulator.window_cycles(head, body) for head, body in parts)
    priced = sum(share[i.address] for _, body in parts for i in body)
    return simulated / priced


def _peak_class(named: str | None, kinds: Mapping[str, int]) -> MacClass | None:
    if named is not None:
        return next(c for c in MAC_CLASSES if c.name == named)
    ran = [c for c in MAC_CLASSES if kinds.get(c.name)]
    return max(ran, key=lambda c: kinds[c.name] * c.macs, default=None)


def _block_price(block: Block, cycles: float, bits: int) -> BlockPrice:
    return BlockPrice(
        function=block.first.function,
        address=block.first.address,
        is_loop=block.is_loop,
        times=round(block.times),
        cycles_each=cycles,
        cycles=cycles * block.times,
        macs_each=sum(i.macs(bits) for i in block.code),
        code=tuple(f"{i.op} {i.operands}".strip() for i in block.code),
    )
