"""The benchmark's table, its header, and its JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from graphopt.bench.measure import IDLE_SECONDS, WARM_UPS, Result
from graphopt.output_files import write_text

ERROR_NOTE = "Error: Euclidean norm of the difference to torch fp32 over that of torch fp32."


def machine() -> dict[str, Any]:
    """CPU model, logical CPUs this process may use, and system."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "cpu": model,
        "cpus": sorted(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def print_results(
    console: Console, title: str, results: Sequence[Result], rounds: int, note: str = ERROR_NOTE
) -> None:
    """Print the header, one table for each thread count, and how it was measured.

    Args:
        console: where to.
        title: of the header.
        results: of one workload; speed-ups are over the first one of each thread count.
        rounds: timed passes of each engine.
        note: what the errors are.
    """
    info = machine()
    console.print(f"[bold]{title}[/bold]")
    console.print(f"CPU: {info['cpu']}, CPUs allowed: {info['cpus']}, {info['system']}")
    for threads in sorted({result.threads for result in results}):
        rows = [result for result in results if result.threads == threads]
        console.print(_table(threads, rows))
    console.print(
        f"{rounds} rounds, one pass of each engine a round in random order, {WARM_UPS} passes of "
        f"warm-up, {IDLE_SECONDS * 1000:.0f} ms idle before each pass; threads not pinned; "
        f"flush-to-zero for every engine. {note}"
    )


def write_json(path: Path, title: str, results: Sequence[Result]) -> None:
    """Write machine, title and every single time.

    Args:
        path: the file to write.
        title: of the workload.
        results: of the workload.
    """
    data = {"title": title, "machine": machine(), "results": [r.as_dict() for r in results]}
    write_text(path, json.dumps(data, indent=1) + "\n")


def _table(threads: int, results: Sequence[Result]) -> Table:
    table = Table(title=f"{threads} thread{'s' if threads > 1 else ''}", title_justify="left")
    table.add_column("engine")
    for column in ("median ms", "quartiles", "min-max", "speed-up", "cores", "error"):
        table.add_column(column, justify="right")
    table.add_column("version, settings")
    base = results[0].median
    for result in results:
        if result.missing:
            table.add_row(result.engine, "missing", *[""] * 5, result.missing)
            continue
        low, high = (1000 * q for q in result.quartiles())
        error = ", ".join(f"{e:.1e}" for e in result.errors.values())
        table.add_row(
            result.engine,
            _figure(1000 * result.median),
            f"{_figure(low)}-{_figure(high)}",
            f"{_figure(1000 * min(result.seconds))}-{_figure(1000 * max(result.seconds))}",
            f"{base / result.median:.2f}",
            f"{sorted(result.cores)[len(result.cores) // 2]:.2f}",
            error,
            f"{result.version} {result.details}",
        )
    return table


def _figure(milliseconds: float) -> str:
    return f"{milliseconds:.{0 if milliseconds >= 100 else 1}f}"


def write_parts(path: Path, parts: dict[str, Any]) -> None:
    """Write machine and the parts of a benchmark, each as it was measured."""
    write_text(path, json.dumps({"machine": machine(), **parts}, indent=1) + "\n")
