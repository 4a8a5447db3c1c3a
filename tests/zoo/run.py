"""Models that people serve on CPUs, small and random: what graphopt makes of each (`make zoo`).

    python tests/zoo/run.py --only bert,vit --precision fp32,int8
    python tests/zoo/run.py --part 1/4 --json zoo.json

Each model runs in a process of its own, whose end is a row and not that of the table. A row says
`whole`, `part` (nodes stay in torch), `refused` or `wrong`; how many nodes are compiled; the error
against float64; what other sizes than the example's do; seconds of torch.export and of all else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1] / "support"))

import torch
import transformers
from entry import Entry
from table import models
from trial import PART, REFUSED, WHOLE, WRONG, Row, attempts

#: Address space of a process, in bytes.
MEMORY = 24 << 30
LINES = 30  # of what is left in torch


def rows(
    name: str, entry: Entry, precisions: list[str], interpret: bool, seconds: float
) -> Iterator[Row]:
    """Tries a model in a process of its own.

    Args:
        name: of the model.
        entry: the model.
        precisions: in which it is tried, in turn.
        interpret: in numpy, without generated code.
        seconds: that one precision may take.
    """
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)
    with tempfile.TemporaryFile() as log:
        arguments = its, log.fileno(), name, entry, precisions, interpret
        process = context.Process(target=_child, args=arguments)
        process.start()
        its.close()
        for precision in precisions:
            try:
                if mine.poll(seconds):
                    yield mine.recv()
                    continue
                ended = Row(name, precision, REFUSED, f"takes more than {seconds:.0f} s")
            except EOFError:
                process.join()
                ended = Row(name, precision, WRONG, _death(process.exitcode, log))
            yield ended
            break
        os.killpg(process.pid, signal.SIGKILL) if process.is_alive() else None
        process.join()


def _death(code: int | None, log: Any) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"the process ends with {code}: {lines[-1] if lines else 'no word'}"


def _child(
    pipe: Connection, log: int, name: str, entry: Entry, precisions: list[str], interpret: bool
) -> None:
    os.setpgid(0, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for row in attempts(name, entry, precisions, interpret):
        pipe.send(row)


def prepare() -> None:
    """Imports here what every process would import for itself."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # a fork keeps no other threads
    assert transformers.BertModel  # imported once it is looked up, with all that models share
    entry = Entry(lambda: torch.nn.Linear(2, 2), lambda rows: (torch.ones(rows, 2),), ((2,),))
    list(attempts("linear", entry, ["fp32"], interpret=True))


def line(row: Row) -> str:
    """A row in one line."""
    error = "" if row.error != row.error else f"{row.error:.1e}"
    export, rest = row.seconds
    left = ", ".join(f"{count} {what}" for what, count in (row.left or {}).items())
    what = "; ".join(filter(None, (row.why, row.others, left)))
    return (
        f"{row.name:28} {row.precision:5} {row.kind:8} {row.compiled:4}/{row.nodes:<4} {error:8}"
        f"{export:5.1f} {rest:5.1f} s  {what[:300]}"
    )


def totals(made: list[Row]) -> Iterator[str]:
    """Counts by precision, and what stays in torch or is refused by how many models it touches."""
    for precision in dict.fromkeys(row.precision for row in made):
        of = Counter(row.kind for row in made if row.precision == precision)
        served = sum(
            row.kind in (WHOLE, PART) and not row.others
            for row in made
            if row.precision == precision
        )
        counts = ", ".join(f"{of[kind]} {kind}" for kind in (WHOLE, PART, REFUSED, WRONG))
        yield f"{precision}: {sum(of.values())} tried, {counts}; {served} serve other sizes"
    left: dict[str, set[str]] = {}
    for row in made:
        for what in row.left or ():
            left.setdefault(what, set()).add(row.name)
        if row.kind in (REFUSED, WRONG):
            left.setdefault(f"{row.kind}: {row.why}", set()).add(row.name)
    most = sorted(left.items(), key=lambda item: -len(item[1]))
    for what, names in most[:LINES]:
        yield f"{len(names):4} {what[:200]}  ({', '.join(sorted(names)[:4])})"


def main() -> int:
    """Prints the table; returns 1 if a model is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", default="", help="models or families, with commas; bert* for many"
    )
    parser.add_argument("--part", default="0/1", help="which of how many, from 0")
    parser.add_argument("--precision", default="fp32,int8,bf16", help="with commas")
    parser.add_argument("--interpret", action="store_true", help="in numpy, without building")
    parser.add_argument("--seconds", type=float, default=300, help="for a model in a precision")
    parser.add_argument("--json", help="where to write all rows")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    made: list[Row] = []
    for name, entry in list(models(options.only).items())[part::parts]:
        precisions = options.precision.split(",")
        for row in rows(name, entry, precisions, options.interpret, options.seconds):
            made.append(row)
            print(line(row), flush=True)
            if options.json:
                Path(options.json).write_text(json.dumps([dataclasses.asdict(r) for r in made]))
    print("\n".join(totals(made)))
    return int(any(row.kind == WRONG for row in made))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    prepare()
    sys.exit(main())
