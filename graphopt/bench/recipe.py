"""The recipe for FunASR on Arm servers, step by step: profile, convolutions, bf16, int8, both.

The same whole Paraformer is compiled once a step; each row adds one thing to the row above it, or,
from bf16 on, changes its precision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from graphopt.bench.engines import Engine, Graphopt
from graphopt.bench.measure import Result

#: What each op counts as in the shares.
GROUPS = {
    "go.linear": "GEMM",
    "go.matmul": "GEMM",
    "go.conv": "convolution",
    "go.im2col": "convolution",
    "go.depthwise": "convolution",
    "go.attention": "attention",
    "go.norm": "norm",
    "go.quantize_rows": "pack",
    "go.pack_rows": "pack",
    "go.cif": "CIF",
}
COLUMNS = ("GEMM", "convolution", "attention", "norm", "pack", "CIF", "other")


@dataclass(frozen=True)
class Step:
    """One step of the recipe.

    Attributes:
        name: what it adds.
        precision: of the compiled model.
        serial_conv: whether each convolution is left to one thread.
    """

    name: str
    precision: str
    serial_conv: bool = False


STEPS = (
    Step("fp32, convolutions in one task", "fp32", serial_conv=True),
    Step("+ parallel convolutions", "fp32"),
    Step("bf16", "bf16"),
    Step("int8", "int8"),
    Step("int8+bf16", "int8+bf16"),
)


def step_engines() -> list[Graphopt]:
    """An engine a step, in order."""
    return [Graphopt(step.precision, step.serial_conv) for step in STEPS]


def group_of(op: str) -> str:
    """The column that an op counts in."""
    return GROUPS.get(op, "other")


def shares(times: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Part of each column in the sum of times by op; the parts add up to 1."""
    groups: dict[str, float] = defaultdict(float)
    for op, time in times:
        groups[group_of(op)] += time
    total = sum(groups.values())
    return {name: groups[name] / total if total else 0.0 for name in COLUMNS}


def profile(engine: Engine, inputs: Sequence[Any], repeats: int = 3) -> list[tuple[str, float]]:
    """Ops of an engine's compiled model with their milliseconds; none of another engine.

    Args:
        engine: with the model loaded.
        inputs: of the model.
        repeats: runs that are timed; the median counts.

    Returns:
        Name and milliseconds of each step.
    """
    if not isinstance(engine, Graphopt):
        return []
    rows = engine.modules["model"].profile(*inputs, repeats=repeats)
    return [(row["op"], row["ms"]) for row in rows]


def host_table(
    title: str, results: Sequence[Result], by_op: Sequence[Mapping[str, float]]
) -> Table:
    """Time, shares and errors of each step on this machine.

    Args:
        title: of the table.
        results: one for each of `STEPS`.
        by_op: likewise, the shares that `shares` gives.
    """
    table = _table(title, ("ms", "speed-up", *COLUMNS, "hidden error", "tokens changed"))
    for step, result, part in zip(STEPS, results, by_op, strict=True):
        if result.missing:
            table.add_row(step.name, result.missing)
            continue
        table.add_row(
            step.name,
            f"{1e3 * result.median:.0f}",
            f"{results[0].median / result.median:.2f}",
            *(f"{100 * part[name]:.1f} %" for name in COLUMNS),
            f"{result.errors['hidden']:.1e}",
            f"{100 * result.errors['tokens']:.1f} %",
        )
    return table


def model_table(title: str, cycles: Sequence[float], by_op: Sequence[Mapping[str, float]]) -> Table:
    """Predicted cycles and shares of each step.

    Args:
        title: of the table.
        cycles: of a pass, one number for each of `STEPS`.
        by_op: likewise, the shares that `shares` gives.
    """
    table = _table(title, ("million cycles", "speed-up", *COLUMNS))
    for step, total, part in zip(STEPS, cycles, by_op, strict=True):
        table.add_row(
            step.name,
            f"{total / 1e6:.2f}",
            f"{cycles[0] / total:.2f}",
            *(f"{100 * part[name]:.1f} %" for name in COLUMNS),
        )
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("step", min_width=24)
    for column in columns:
        table.add_column(column, justify="right")
    return table
