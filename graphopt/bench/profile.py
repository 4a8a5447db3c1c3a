"""Per-operator tables: what torch spends before, what the compiled graph spends after."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from graphopt.zoo.dependencies import require

if TYPE_CHECKING:
    from torch import nn

PASSES = 3


@dataclass(frozen=True)
class OpTime:
    """Time of all calls of one operator in one pass.

    Attributes:
        op: Operator, as torch or graphopt names it.
        kernel: Kernel that ran it; empty for torch.
        calls: Calls in one pass.
        ms: Milliseconds in one pass, without the operators it calls.
        macs: Multiply-accumulates in one pass, 0 where they are not counted.
    """

    op: str
    kernel: str
    calls: int
    ms: float
    macs: int


def profile_torch(module: nn.Module, inputs: Sequence[Any]) -> list[OpTime]:
    """Profile a module in eager torch on real inputs; slowest operator first.

    Args:
        module: The module, in eval mode.
        inputs: Its positional inputs; containers among them may be updated by the module.
    """
    torch = require("torch", "profiling torch")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on stderr
    profiler = require("torch.profiler", "profiling torch")
    with torch.inference_mode():
        module(*inputs)
        with profiler.profile(activities=[profiler.ProfilerActivity.CPU], acc_events=True) as run:
            for _ in range(PASSES):
                module(*inputs)
    rows = [
        OpTime(event.key, "", event.count // PASSES, event.self_cpu_time_total / 1e3 / PASSES, 0)
        for event in run.key_averages()
        if event.key.startswith("aten::")
    ]
    return _slowest_first(rows)


def profile_compiled(nodes: Sequence[Mapping[str, Any]]) -> list[OpTime]:
    """Add up the node times of a compiled module's ``profile()`` by operator and kernel.

    Args:
        nodes: One mapping a node with ``op``, ``kernel``, ``ms`` and ``macs``.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for node in nodes:
        groups.setdefault((node["op"], node["kernel"] or ""), []).append(node)
    rows = [
        OpTime(
            op,
            kernel,
            len(members),
            sum(m["ms"] for m in members),
            sum(m.get("macs") or 0 for m in members),
        )
        for (op, kernel), members in groups.items()
    ]
    return _slowest_first(rows)


def op_table(title: str, rows: Sequence[OpTime], limit: int = 12) -> Table:
    """Table of the slowest operators; the others are added up in the last row."""
    table = Table(title=title, title_justify="left")
    table.add_column("op")
    kernels = any(row.kernel for row in rows)
    if kernels:
        table.add_column("kernel")
    for column in ("calls", "ms", "share", "GMAC/s"):
        table.add_column(column, justify="right")
    total = sum(row.ms for row in rows) or 1.0
    shown, rest = list(rows[:limit]), rows[limit:]
    if rest:
        calls, ms = sum(row.calls for row in rest), sum(row.ms for row in rest)
        shown.append(OpTime(f"{len(rest)} others", "", calls, ms, 0))
    for row in shown:
        rate = f"{row.macs / row.ms / 1e6:.0f}" if row.macs and row.ms else ""
        cells = [str(row.calls), f"{row.ms:.2f}", f"{100 * row.ms / total:.1f} %", rate]
        table.add_row(row.op, *([row.kernel] if kernels else []), *cells)
    table.add_row("[bold]all[/bold]", *([""] if kernels else []), "", f"{total:.2f}", "", "")
    return table


def _slowest_first(rows: list[OpTime]) -> list[OpTime]:
    return sorted(rows, key=lambda row: -row.ms)
