"""Speed and memory of language models: every engine in a process of its own, in turns."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from graphopt.bench.llm.bandwidth import ReadLoop, weights_bytes
from graphopt.bench.measure import IDLE_SECONDS
from graphopt.bench.worker import Worker, alone, start
from graphopt.errors import BenchmarkError, GraphoptError, MissingCompilerError

CONTEXT = 2048
_TASKS = {
    "prefill_128": ("prefill", 128),
    "prefill_512": ("prefill", 512),
    "decode": ("decode", 64),
}


@dataclass
class Row:
    """What one engine did at one number of threads.

    Attributes:
        engine: its name.
        model: name of the model.
        threads: of the engine.
        load_s: seconds from opening the model's file to the first token behind a prompt of one.
        peak_rss_mib: largest resident memory of its process, with 2048 tokens of context.
        rates: tokens per second of every round, by task.
        weights: bytes that a token reads, or 0 where they are not known.
        reads: bytes per second that a loop on as many threads read in every round.
        missing: why it did not run, or "".
    """

    engine: str
    model: str
    threads: int
    load_s: float = float("nan")
    peak_rss_mib: float = float("nan")
    rates: dict[str, list[float]] = field(default_factory=lambda: {task: [] for task in _TASKS})
    weights: int = 0
    reads: list[float] = field(default_factory=list)
    missing: str = ""

    def read_share(self) -> float:
        """Bytes that decoding reads a second, of those that the loop does; median of rounds."""
        pairs = zip(self.rates["decode"], self.reads, strict=True)
        return statistics.median(self.weights * rate / read for rate, read in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Medians by task, and `spread`: least and largest of each."""
        row: dict[str, Any] = {
            "engine": self.engine,
            "model": self.model,
            "threads": self.threads,
        }
        if self.missing:
            return {**row, "missing": self.missing}
        row |= {task: round(statistics.median(rates), 2) for task, rates in self.rates.items()}
        row |= {"peak_rss_mib": round(self.peak_rss_mib, 1), "load_s": round(self.load_s, 3)}
        spread = {task: [round(min(r), 2), round(max(r), 2)] for task, r in self.rates.items()}
        if self.reads:
            row["weights_mb"] = round(self.weights / 1e6, 1)
            row["read_gb_s"] = round(statistics.median(self.reads) / 1e9, 2)
            row["read_share"] = round(self.read_share(), 3)
        return {**row, "spread": spread}


def _loaded(row: Row, path: Path) -> Worker:
    """The engine of a row in a process of its own, with the model."""
    command = [sys.executable, "-m", "graphopt.bench.llm.worker", row.engine, str(path)]
    worker = start([*command, str(row.threads), str(CONTEXT)])
    try:
        row.load_s = worker.call("load")
    except BenchmarkError:
        worker.end()
        raise
    return worker


def measure(
    model: str,
    paths: Mapping[str, Path | GraphoptError],
    threads: Sequence[int],
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Runs all engines at each number of threads, in a new random order each round.

    Args:
        model: name for the rows.
        paths: of the model, by engine (`graphopt.bench.llm.worker.ENGINES`), or why an engine has
            none.
        threads: numbers of threads.
        rounds: of every task.
        progress: told what is done now.
    """
    order = random.Random(0)
    rows = []
    for count in threads:
        running: list[tuple[Row, Worker]] = []
        for engine, path in paths.items():
            progress(f"{count} threads: loading {engine}")
            row = Row(engine, model, count)
            rows.append(row)
            if isinstance(path, GraphoptError):
                row.missing = str(path)
                continue
            try:
                if count == threads[0]:  # afterwards its file is in the page cache
                    _loaded(row, path).end()
                running.append((row, _loaded(row, path)))
                row.weights = weights_bytes(path) if path.is_dir() else 0
            except BenchmarkError as error:
                row.missing = str(error)
        loop = _read_loop(count)
        for number in range(-1, rounds):  # the first round warms up
            order.shuffle(running)
            for row, worker in [pair for pair in running if not pair[0].missing]:
                progress(f"{count} threads: round {number + 1} of {rounds}, {row.engine}")
                with alone(row):
                    _round(row, worker, number >= 0)
                    if loop and row.weights and number >= 0:
                        row.reads.append(loop.rate())
        if loop:
            loop.close()
        for row, worker in running:
            with alone(row):
                if not row.missing:
                    row.peak_rss_mib = worker.call("peak", CONTEXT)
            worker.end()
    return rows


def _read_loop(threads: int) -> ReadLoop | None:
    """None without a compiler: packages run on machines that have none."""
    try:
        return ReadLoop(threads)
    except MissingCompilerError:
        return None


def _round(row: Row, worker: Worker, counts: bool) -> None:
    for name, (task, tokens) in _TASKS.items():
        time.sleep(IDLE_SECONDS)
        seconds = worker.call(task, tokens)
        if counts:
            row.rates[name].append(tokens / seconds)


def table(rows: Sequence[Row]) -> Table:
    """A line per row; medians, with least and largest."""
    shown = Table()
    shown.add_column("engine")
    for column in ("threads", *_TASKS, "peak MiB", "load s", "of what memory gives"):
        shown.add_column(column, justify="right")
    for row in rows:
        if row.missing:
            shown.add_row(row.engine, str(row.threads), row.missing)
            continue
        cells = [
            f"{statistics.median(r):.1f} ({min(r):.1f}-{max(r):.1f})" for r in row.rates.values()
        ]
        sizes = (f"{row.peak_rss_mib:.0f}", f"{row.load_s:.2f}")
        share = ""
        if row.reads:
            share = f"{row.read_share():.0%} of {statistics.median(row.reads) / 1e9:.1f} GB/s"
        shown.add_row(row.engine, str(row.threads), *cells, *sizes, share)
    return shown
