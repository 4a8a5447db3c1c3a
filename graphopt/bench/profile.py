"""Tables of time by operator and by module: torch before, the compiled graph after."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from graphopt.dependencies import require
from graphopt.module_group import module_group

if TYPE_CHECKING:
    from torch import nn

PASSES = 5
_OUTSIDE = "(outside of modules)"
_SHORTEST_MS = 0.01  # below, a ratio of times says nothing


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
    settings = {"activities": [profiler.ProfilerActivity.CPU], "acc_events": True}
    with torch.inference_mode():
        module(*inputs)
        with profiler.profile(**settings, with_flops=True) as run:
            for _ in range(PASSES):
                module(*inputs)
    rows = [
        OpTime(
            event.key,
            "",
            event.count // PASSES,
            event.self_cpu_time_total / 1e3 / PASSES,
            event.flops // 2 // PASSES if event.key in _PRODUCTS else 0,
        )
        for event in run.key_averages()
        if event.key.startswith("aten::")
    ]
    return _slowest_first(rows)


# torch also counts flops of sums and scalings, which are no multiply-accumulates.
_PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}


def profile_torch_modules(module: nn.Module, inputs: Sequence[Any]) -> dict[str, float]:
    """Median milliseconds of a module's parts in eager torch, each without the parts inside it.

    Args:
        module: The module, in eval mode.
        inputs: Its positional inputs.

    Returns:
        Milliseconds in one pass by :func:`graphopt.module_group.module_group`.
    """
    torch = require("torch", "profiling torch")
    passes: list[dict[str, float]] = []
    with torch.inference_mode():
        module(*inputs)
        for _ in range(PASSES):
            with _timed_parts(module) as times:
                module(*inputs)
            passes.append(times)
    return {name: statistics.median(times[name] for times in passes) for name in passes[0]}


@contextmanager
def _timed_parts(module: nn.Module) -> Iterator[dict[str, float]]:
    """Adds the time of every submodule that is called in the block to its group."""
    times: dict[str, float] = defaultdict(float)
    inside = [0.0]  # milliseconds spent in submodules, for each module being run

    def hooks(group: str) -> tuple[Any, Any]:
        starts: list[float] = []

        def before(_module: Any, _args: Any) -> None:
            inside.append(0.0)
            starts.append(time.perf_counter())

        def after(_module: Any, _args: Any, _result: Any) -> None:
            total = 1e3 * (time.perf_counter() - starts.pop())
            times[group] += total - inside.pop()
            inside[-1] += total

        return before, after

    # A part with several paths counts for the shortest, as in what torch.export records.
    paths: dict[nn.Module, str] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        paths[part] = min(path, paths.get(part, path), key=len)
    handles = []
    for part, path in paths.items():
        before, after = hooks(module_group(path))
        handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()


def profile_compiled(nodes: Sequence[Mapping[str, Any]]) -> list[OpTime]:
    """Add up the node times of a compiled module's ``profile()`` by operator and kernel.

    Args:
        nodes: One mapping a node with ``op``, ``kernel``, ``ms`` and perhaps ``macs``.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for node in nodes:
        groups[node["op"].removeprefix("go."), node["kernel"].removeprefix("go_")].append(node)
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


def modules_of(nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds of a compiled module's ``profile()`` by module group."""
    times: dict[str, float] = defaultdict(float)
    for node in nodes:
        times[module_group(node["module"])] += node["ms"]
    return dict(times)


def op_table(title: str, rows: Sequence[OpTime], limit: int = 8) -> Table:
    """Table of the slowest operators; the others are added up in the row before the last.

    Args:
        title: Title of the table.
        rows: Times of operators, slowest first.
        limit: Operators with a row of their own; if only one is left, it has one too.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("op", min_width=26)
    kernels = any(row.kernel for row in rows)
    if kernels:
        table.add_column("kernel")
    rates = any(row.macs for row in rows)
    for column in ("calls", "ms", "share", *(["GMAC/s"] if rates else [])):
        table.add_column(column, justify="right")
    total = sum(row.ms for row in rows)
    shown, rest = list(rows[:limit]), rows[limit:]
    if len(rest) > 1:
        calls, ms = sum(row.calls for row in rest), sum(row.ms for row in rest)
        shown.append(OpTime(f"{len(rest)} others", "", calls, ms, 0))
    else:
        shown += rest
    calls, macs = sum(row.calls for row in rows), sum(row.macs for row in rows)
    for row in shown:
        table.add_row(row.op, *([row.kernel] if kernels else []), *_figures(row, total))
    table.add_section()
    every = _figures(OpTime("all", "", calls, total, macs), total)
    table.add_row("all", *([""] if kernels else []), *every, style="bold")
    return table


def module_table(
    title: str, before: Mapping[str, float], after: Mapping[str, float], limit: int = 10
) -> Table:
    """Table of the module groups' milliseconds before and after, slowest first.

    A fused operator counts for the module that its main part comes from, so that a group may lose
    its time to another one.

    Args:
        title: Title of the table.
        before: Milliseconds in one pass of torch, by group.
        after: The same of the compiled graph.
        limit: Groups with a row of their own; the others are added up in the last one.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("module", min_width=26)
    for column in ("torch ms", "graphopt ms", "speed-up"):
        table.add_column(column, justify="right")
    names = sorted({*before, *after}, key=lambda n: -max(before.get(n, 0), after.get(n, 0)))
    rows = [(n or _OUTSIDE, before.get(n, 0.0), after.get(n, 0.0)) for n in names]
    rest = rows[limit:]
    if rest:
        others = f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest)
        rows = [*rows[:limit], others]
    for name, old, new in rows:
        speed_up = f"{old / new:.1f}" if min(old, new) >= _SHORTEST_MS else ""
        table.add_row(name, f"{old:.2f}", f"{new:.2f}" if new else "fused", speed_up)
    return table


def _figures(row: OpTime, total: float) -> list[str]:
    share = f"{100 * row.ms / total:.1f} %" if total else ""
    rate = [f"{row.macs / row.ms / 1e6:.0f}"] if row.macs and row.ms else []
    return [str(row.calls), f"{row.ms:.2f}", share, *rate]


def _slowest_first(rows: list[OpTime]) -> list[OpTime]:
    return sorted(rows, key=lambda row: -row.ms)
