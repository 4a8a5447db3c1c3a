"""One line of the kernel benchmark, for JSON and for the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from graphopt.bench.kernels.workloads import Label
from graphopt.output_files import write_text


@dataclass(frozen=True)
class Row:
    """What one engine needs for a workload, or a part of it.

    Attributes:
        label: the workload.
        engine: who computed it.
        part: ``call`` with everything from plain f32 or bf16 rows, ``kernel`` from packed rows,
            ``streamed`` the same with weights that no cache holds, ``main loop`` for the
            innermost loop alone.
        threads: threads.
        target: ``native``, or the core that was modelled.
        gmacs: 10^9 multiply-accumulates a second; None on a modelled core and without any.
        macs_per_cycle: on a modelled core.
        seconds: median of a call; None on a modelled core.
        quartiles: first and third of the calls, seconds.
        cycles: of a call on a modelled core.
        per_element: nanoseconds, or cycles on a modelled core, for each value of the input, of
            what has no multiply-accumulates.
        peak_share: of what loops of the best instructions reach, or with few rows what reading
            the weights allows.
        peak: those instructions or reads.
        pack_share: share of the time that quantizing and packing of the left operand takes.
        error: Euclidean norm of the difference to the exact result over that of the result.
        note: what there is to know, such as why there are no figures.
    """

    label: Label
    engine: str
    part: str
    threads: int
    target: str = "native"
    gmacs: float | None = None
    macs_per_cycle: float | None = None
    seconds: float | None = None
    quartiles: tuple[float, float] | None = None
    cycles: float | None = None
    per_element: float | None = None
    peak_share: float | None = None
    peak: str = ""
    pack_share: float | None = None
    error: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Flat, for JSON: the fields of the label and of the row that apply to the target."""
        data = asdict(self)
        label: dict[str, Any] = data.pop("label")
        absent = ("cycles", "macs_per_cycle") if self.target == "native" else _NATIVE_ONLY
        return label | {key: value for key, value in data.items() if key not in absent}


_NATIVE_ONLY = ("gmacs", "seconds", "quartiles", "error")


def to_json(rows: Sequence[Row]) -> str:
    """A list of objects."""
    return json.dumps([row.as_dict() for row in rows], indent=1) + "\n"


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write :func:`to_json` to a file."""
    write_text(path, to_json(rows))


def table(rows: Sequence[Row]) -> Table:
    """The rows of one target and number of threads."""
    native = rows[0].target == "native"
    head = "this machine" if native else f"{rows[0].target}, modelled"
    count = rows[0].threads
    shown = Table(title=f"{head}, {count} thread{'s' * (count > 1)}", title_justify="left")
    for column in ("kernel", "engine", "part"):
        shown.add_column(column)
    measures = ("ms", "quartiles", "GMAC/s", "ns/value") if native else _CYCLE_COLUMNS
    for column in (*measures, "of peak", "packing"):
        shown.add_column(column, justify="right")
    if native:
        shown.add_column("error", justify="right")
    shown.add_column("note")
    last = ""
    for row in rows:
        name = "" if row.label.name == last else row.label.name
        last = row.label.name
        figures = _native_cells(row) if native else _cycle_cells(row)
        shown.add_row(name, row.engine, row.part, *figures, escape(row.note))
    return shown


_CYCLE_COLUMNS = ("cycles", "MAC/cycle", "cycles/value")


def explain(target: str, rounds: int) -> str:
    """How the figures of a table were made."""
    if target != "native":
        return (
            f"Cycles by LLVM's model of {target} along the instructions that qemu executed: caches "
            "and branches are perfect, and nothing was compared with silicon (docs/n2sim.md). "
            "call: with quantizing and packing of A; kernel: from packed A."
        )
    return (
        f"{rounds} rounds, one sample of each engine a round in random order; medians. call: from "
        "plain rows; kernel: from packed A, or int8 A; streamed: that with B in memory, not in a "
        "cache. Of peak: of the best loop of instructions of the level, or with few rows of one "
        "that only reads B, timed in the same rounds; for other libraries, of the highest level. "
        "Error: Euclidean norm of the difference to the exact product over that of the product."
    )


def _native_cells(row: Row) -> list[str]:
    low, high = row.quartiles or (None, None)
    spread = "" if low is None or high is None else f"{1e3 * low:.3f}-{1e3 * high:.3f}"
    return [
        _number(row.seconds, 1e3, 3),
        spread,
        _number(row.gmacs, 1, 1),
        _number(row.per_element, 1, 3),
        _percent(row.peak_share),
        _percent(row.pack_share),
        "" if row.error is None else f"{row.error:.1e}",
    ]


def _cycle_cells(row: Row) -> list[str]:
    return [
        "" if row.cycles is None else f"{row.cycles:,.0f}",
        _number(row.macs_per_cycle, 1, 2),
        _number(row.per_element, 1, 2),
        _percent(row.peak_share),
        _percent(row.pack_share),
    ]


def _number(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{value * scale:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
