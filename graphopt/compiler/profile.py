"""What a compiled model spends its time with: steps, threads, and what lies outside of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, overload

import numpy as np

from graphopt.dependencies import require

Array = np.ndarray[Any, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Timed:
    """Times of one library, of the faster half of its runs: means, so that they add up.

    Attributes:
        steps: milliseconds of each step.
        busy: threads that worked in each step, in the mean over its time.
        spans: of each step what threads did in the fastest run: thread, when it began and for
            how long it worked, in milliseconds since the run began.
        profiled: milliseconds of a whole run that was profiled, arguments and results included.
        plain: the same of a run that was not.
        threads: how many there were.
    """

    steps: list[float]
    busy: list[float]
    spans: list[list[tuple[int, float, float]]]
    profiled: float
    plain: float
    threads: int


def time_steps(
    run: Callable[[Array | None, list[Array] | None], Any], steps: int, runs: int
) -> Timed:
    """Times runs that are profiled, in turn with runs that are not.

    Args:
        run: runs a library; takes room for the seconds of steps, and a list for what threads did,
            as `Context.run` does.
        steps: of a run.
        runs: of each kind.
    """
    run(None, None)
    plain, profiled = list[float](), list[float]()
    seconds, marks = np.zeros((runs, steps)), list[Array]()
    for row in seconds:
        begun = time.perf_counter()
        run(None, None)
        between = time.perf_counter()
        run(row, marks)
        plain.append(between - begun)
        profiled.append(time.perf_counter() - between)
    fastest = np.argsort(profiled)[: _half(runs)]
    spans = [_spans(seconds[i], marks[i]) for i in fastest]
    taken = seconds[fastest].mean(0)
    worked = np.mean([[sum(length for *_, length in step) for step in run] for run in spans], 0)
    busy = np.divide(worked, taken, out=np.zeros_like(taken), where=taken > 0)
    return Timed(
        steps=(taken * 1e3).tolist(),
        busy=np.minimum(busy, len(marks[0])).tolist(),
        spans=[[(who, at * 1e3, length * 1e3) for who, at, length in step] for step in spans[0]],
        profiled=1e3 * float(np.mean([profiled[i] for i in fastest])),
        plain=1e3 * float(np.mean(sorted(plain)[: _half(runs)])),
        threads=len(marks[0]),
    )


def faster_half(call: Callable[[], Any], runs: int) -> float:
    """Milliseconds of a call: the mean over the faster half of some, after one that warms up."""
    call()
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return 1e3 * float(np.mean(sorted(taken)[: _half(runs)]))


def _half(runs: int) -> int:
    return (runs + 1) // 2


def _spans(seconds: Array, marks: Array) -> list[list[tuple[int, float, float]]]:
    """Of each step what threads did until it ended: thread, begin and length in seconds.

    A thread that the operating system set aside comes to steps that others have ended.
    """
    ends = np.cumsum(seconds)
    found: list[list[tuple[int, float, float]]] = []
    for step, end in enumerate(ends):
        begins = marks[:, 0] if step == 0 else marks[:, 2 * step]
        begun = np.maximum(begins, end - seconds[step])
        lengths = np.minimum(marks[:, 1 + 2 * step], end) - begun
        took_part = (marks[:, 0] > 0) & (lengths > 0)
        rows = zip(begun.tolist(), lengths.tolist(), strict=True)
        found.append([(who, *row) for who, row in enumerate(rows) if took_part[who]])
    return found


@dataclass(frozen=True)
class Run:
    """A profile of one compiled graph.

    Attributes:
        rows: of each step what `Optimized.profile` says.
        timed: the times.
    """

    rows: list[Row]
    timed: Timed


@dataclass(frozen=True)
class Baseline:
    """Times of a model before it was compiled.

    Attributes:
        name: what ran it.
        call: milliseconds of a call.
        nodes: milliseconds of each captured node, by its name.
        modules: the module that each is of.
        steps: milliseconds of the captured nodes whose work each compiled step does.
    """

    name: str
    call: float
    nodes: Mapping[str, float]
    modules: Mapping[str, str]
    steps: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Profile(Sequence[Row]):
    """Times of all compiled steps, which are its items: see `Optimized.profile`.

    Attributes:
        name: of the model.
        runs: of every compiled graph, in the order in which they ran.
        call: milliseconds of a call of the whole model, where it is more than one compiled graph.
        before: milliseconds of the baseline; None without one.
    """

    name: str
    runs: tuple[Run, ...]
    call: float | None = None
    before: Baseline | None = None
    _rows: list[Row] = field(init=False)

    def __post_init__(self) -> None:
        rows = [row for run in self.runs for row in run.rows]
        if self.before is not None and len(self.before.steps) == len(rows):
            pairs = zip(rows, self.before.steps, strict=True)
            rows = [{**row, "before_ms": before} for row, before in pairs]
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @property
    def threads(self) -> int:
        """Threads of a run."""
        return max((run.timed.threads for run in self.runs), default=0)

    @property
    def whole(self) -> float:
        """Milliseconds of a call, of which steps are most."""
        if self.call is not None:
            return self.call
        return sum(run.timed.profiled for run in self.runs)

    @property
    def outside(self) -> float:
        """Milliseconds of a call in no step: arguments, results, waking threads; torch, Python."""
        return max(0.0, self.whole - float(sum(row["ms"] for row in self._rows)))

    @property
    def overhead(self) -> float:
        """What profiling added to the time of the compiled graphs, over that time."""
        plain = sum(run.timed.plain for run in self.runs)
        return sum(run.timed.profiled for run in self.runs) / plain - 1 if plain else 0.0

    def tables(self, by: Sequence[str] = ("op", "module"), limit: int = 15) -> Any:
        """Tables for `rich`, 80 columns wide, with sentences on what limits the slowest steps.

        The roofs of this machine are measured, once in a process.

        Args:
            by: what is added up in each: `op`, `module` or `step`.
            limit: lines of each.

        Raises:
            OptionError: for another `by`.
        """
        return _report().tables(self, by, limit)

    def events(self) -> list[dict[str, Any]]:
        """One event for a call and one for each step, with the fields of onnxruntime's profiler."""
        events: list[dict[str, Any]] = _report().events(self)
        return events

    def trace(self) -> dict[str, Any]:
        """What each thread did in the fastest run, for https://ui.perfetto.dev (as JSON)."""
        trace: dict[str, Any] = _report().trace(self)
        return trace

    def __rich__(self) -> Any:
        return self.tables()

    def __repr__(self) -> str:
        return f"<Profile of {self.name}: {len(self)} steps, {self.whole:.3g} ms a call>"


def _report() -> ModuleType:
    return require("graphopt.inspection.profiling.report", "tables of profiles")
