"""The kernel benchmark from names to rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from graphopt.bench.kernels.arm import price_rows
from graphopt.bench.kernels.measure import native_rows
from graphopt.bench.kernels.row import Row
from graphopt.bench.kernels.shapes import SPECS
from graphopt.bench.kernels.workloads import Spec
from graphopt.bench.measure import flush_denormals
from graphopt.config import Config
from graphopt.errors import BenchmarkError, MissingDependencyError
from graphopt.runtime.cpus import usable_cpus
from graphopt.target import find_target
from graphopt.toolchain.build import Builder


def bench(
    target: str,
    only: str,
    threads: Sequence[int],
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
    specs: Sequence[Spec] = SPECS,
) -> list[Row]:
    """Rows of all workloads whose name ``only`` matches.

    Args:
        target: ``native`` to measure, or an Arm target to model.
        only: regular expression, searched for in the names.
        threads: thread counts to measure at; modelled cores run one.
        rounds: samples of each engine.
        progress: called with one line before each step.
        specs: the workloads.

    Raises:
        UnknownTargetError: for an unknown target.
        BenchmarkError: if no name matches.
        MissingToolError: without LLVM, for a modelled core.
        MissingEmulatorError: without qemu, for a modelled core.
    """
    wanted = _select(only, specs)
    builder = Builder(Config.from_environment().cache, usable_cpus())
    machine = find_target(target)
    if machine.name != "native":
        return list(price_rows(machine, wanted, builder, progress))
    try:
        flush_denormals()
    except MissingDependencyError:
        progress("torch is not installed")  # its rows will say so
    rows: list[Row] = []
    for count in threads:
        rows += native_rows(machine, wanted, builder, count, rounds, progress)
    return rows


def _select(only: str, specs: Sequence[Spec]) -> list[Spec]:
    try:
        pattern = re.compile(only)
    except re.error as error:
        raise BenchmarkError(f"{only!r} is no regular expression: {error}") from error
    wanted = [spec for spec in specs if pattern.search(spec.name)]
    if not wanted:
        names = ", ".join(spec.name for spec in specs)
        raise BenchmarkError(f"no kernel matches {only!r}; there are {names}")
    return wanted
