"""Speed and memory of language models: every engine in a process of its own, in turns."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from graphopt.bench.llm.bandwidth import ReadLoop, weights_bytes
from graphopt.bench.measure import IDLE_SECONDS
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


class _Process:
    """An engine that waits for tasks."""

    def __init__(self, engine: str, path: Path, threads: int) -> None:
        command = [sys.executable, "-m", "graphopt.bench.llm.worker", engine, str(path)]
        self._process = subprocess.Popen(
            [*command, str(threads), str(CONTEXT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self.load_s = self._answer()
        except BenchmarkError:
            self.end()
            raise

    def ask(self, task: str, count: int) -> float:
        """Seconds or MiB of a task."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, which says more
            self._process.stdin.write(json.dumps({task: count}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read().strip().splitlines()
            raise BenchmarkError(how_it_ended(self._process.wait(), said))
        return float(json.loads(line))

    def end(self) -> None:
        """Waits for the end of the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def how_it_ended(status: int, said: Sequence[str]) -> str:
    """Why a process gave no answer: its last words, and the signal that ended it, if one did.

    Args:
        status: of the process; a negative one is the number of a signal.
        said: lines on its standard error.
    """
    words = said[-1] if said else ""
    if status >= 0:
        return words or f"it ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"it was ended by {name}" + (f" after saying {words!r}" if words else "")


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
        running: list[tuple[Row, _Process]] = []
        for engine, path in paths.items():
            progress(f"{count} threads: loading {engine}")
            row = Row(engine, model, count)
            rows.append(row)
            if isinstance(path, GraphoptError):
                row.missing = str(path)
                continue
            try:
                if count == threads[0]:  # afterwards its file is in the page cache
                    _Process(engine, path, count).end()
                running.append((row, _Process(engine, path, count)))
                row.load_s = running[-1][1].load_s
                row.weights = weights_bytes(path) if path.is_dir() else 0
            except BenchmarkError as error:
                row.missing = str(error)
        loop = _read_loop(count)
        for number in range(-1, rounds):  # the first round warms up
            order.shuffle(running)
            for row, process in [pair for pair in running if not pair[0].missing]:
                progress(f"{count} threads: round {number + 1} of {rounds}, {row.engine}")
                with _alone(row):
                    _round(row, process, number >= 0)
                    if loop and row.weights and number >= 0:
                        row.reads.append(loop.rate())
        if loop:
            loop.close()
        for row, process in running:
            with _alone(row):
                if not row.missing:
                    row.peak_rss_mib = process.ask("peak", CONTEXT)
            process.end()
    return rows


@contextlib.contextmanager
def _alone(row: Row) -> Iterator[None]:
    """Keeps an engine that fails from ending the others' rows: its own says why."""
    try:
        yield
    except BenchmarkError as error:
        row.missing = str(error)


def _read_loop(threads: int) -> ReadLoop | None:
    """None without a compiler: packages run on machines that have none."""
    try:
        return ReadLoop(threads)
    except MissingCompilerError:
        return None


def _round(row: Row, process: _Process, counts: bool) -> None:
    for name, (task, tokens) in _TASKS.items():
        time.sleep(IDLE_SECONDS)
        seconds = process.ask(task, tokens)
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
