"""Rows for Neoverse cores: cycles by LLVM's model of the core, see :mod:`graphopt.n2sim`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from graphopt.bench.kernels.row import Row
from graphopt.bench.kernels.workloads import Spec, Step, Workload
from graphopt.errors import PricingError
from graphopt.kernels.host_case import encode
from graphopt.kernels.registry import Level
from graphopt.n2sim.llvm import Llvm
from graphopt.n2sim.price import price
from graphopt.n2sim.result import Price
from graphopt.target import Target
from graphopt.toolchain.build import Builder

#: Instruction classes of the peak by scheme, of cores with and without matrix instructions.
_PEAKS = {"int4": "smmla", "int8": "smmla", "bf16": "bfmmla", "f32": "fmla"}
_VECTOR_PEAKS = {"int4": "dot", "int8": "dot", "bf16": "fmla", "f32": "fmla"}
_FUNCTION = re.compile(r"^ *\d+: \w+ +\d+ FUNC +\w+ +\w+ +\d+ (\S+)$", re.M)


def price_rows(
    target: Target,
    specs: Sequence[Spec],
    builder: Builder,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """Rows of all levels of an Arm target but the scalar one.

    Args:
        target: the core.
        specs: the workloads.
        builder: compiles the kernels.
        progress: called with one line before each workload on each level.

    Raises:
        MissingToolError: without LLVM.
        MissingEmulatorError: without qemu.
        MissingCompilerError: without a compiler.
        PricingError: if a kernel fails.
    """
    Llvm.find()  # before minutes of work
    for spec in specs:
        work = spec.build(target.arch, 1)
        for level in target.isa_levels:
            if level.name != "scalar":
                progress(f"{target.name}: {work.label.name} on {level.name}")
                yield from _level_rows(target, work, level, builder)


def _level_rows(target: Target, work: Workload, level: Level, builder: Builder) -> Iterator[Row]:
    names = {kernel.generic for kernel in level.kernels}
    steps = [step for step in (work.pack, work.kernel) if step is not None]
    if any(step.generic not in names for step in steps):
        return
    prices = [price_step(target, step, work.label.scheme, level, builder) for step in steps]
    kernel, cycles = prices[-1], sum(p.cycles for p in prices)
    pack_share = (cycles - kernel.cycles) / cycles if work.pack else None
    yield _row(target, work, level, prices, "call", cycles, work.macs, pack_share)
    if work.pack:
        yield _row(target, work, level, prices, "kernel", kernel.cycles, work.macs, None)
    loop = kernel.main_loop
    if loop and work.macs:
        cost = loop.cycles_each
        yield _row(target, work, level, prices, "main loop", cost, loop.macs_each, None)


def _row(
    target: Target,
    work: Workload,
    level: Level,
    prices: Sequence[Price],
    part: str,
    cycles: float,
    macs: int,
    pack_share: float | None,
) -> Row:
    unknown = sorted({name for p in prices for name in p.unknown})
    peak = prices[-1].peak
    rate = macs / cycles if macs else None
    return Row(
        work.label,
        f"graphopt {level.name}",
        part,
        1,
        target.name,
        macs_per_cycle=rate,
        cycles=cycles,
        per_element=None if macs else cycles / work.elements,
        peak_share=rate / peak if rate and peak else None,
        peak=prices[-1].peak_class if rate else "",
        pack_share=pack_share,
        note=f"wrong: {target.name} lacks {', '.join(unknown)}" if unknown else "",
    )


def price_step(target: Target, step: Step, scheme: str, level: Level, builder: Builder) -> Price:
    """The price of one kernel call.

    Args:
        target: the core.
        step: the call.
        scheme: of the workload, as in its `Label`; it says which instructions are the peak.
        level: whose kernel runs.
        builder: compiles it.

    Raises:
        MissingToolError: without LLVM.
        MissingEmulatorError: without qemu.
        MissingCompilerError: without a compiler.
        PricingError: if the kernel fails.
    """
    program = builder.kernel_host(level, step.generic)
    functions = _functions(builder.kernel_object(level, step.generic))
    with tempfile.TemporaryDirectory() as folder:
        request, response = Path(folder) / "request", Path(folder) / "response"
        request.write_bytes(encode([step.case]))
        expression = f"^({'|'.join(map(re.escape, functions))})$"
        command = [program, request, response]
        peaks = _PEAKS if target.bf16_matrix else _VECTOR_PEAKS
        found = price(command, expression, target.name, peak=peaks[scheme])
    if found.exit_status:
        raise PricingError(f"{step.generic} of {level.name} ended with {found.exit_status}")
    return found


def _functions(path: Path) -> list[str]:
    """The functions that an object file defines."""
    symbols, _ = Llvm.find().run("llvm-readelf", "-sW", str(path))
    return _FUNCTION.findall(symbols)
