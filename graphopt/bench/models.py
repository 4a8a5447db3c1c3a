"""``graphopt bench models``: well-known networks in graphopt and its peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from graphopt.bench.engines import (
    Call,
    Engine,
    Graphopt,
    Stage,
    TorchDynamicInt8,
    Workload,
    chosen,
)
from graphopt.bench.measure import Result, measure
from graphopt.bench.onnx_engines import CONVOLUTIONS, PRODUCTS, OnnxRuntime, OpenVino
from graphopt.bench.table import print_results
from graphopt.bench.worker import reason
from graphopt.dependencies import require
from graphopt.errors import GraphoptError
from graphopt.zoo.official.catalog import NETWORKS, build

PRECISIONS = ("fp32", "int8", "bf16", "int8+bf16")


def engines(wanted: Sequence[str], with_convolutions: bool = True) -> list[Engine]:
    """The reference, and those others whose name contains one of the wanted words.

    Args:
        wanted: words; all engines but torch.compile if empty.
        with_convolutions: whether the network has any, which onnxruntime may quantize or not.
    """
    others: list[Engine] = [
        TorchDynamicInt8(),
        OnnxRuntime(),
        OnnxRuntime(PRODUCTS),
        *([OnnxRuntime(CONVOLUTIONS)] if with_convolutions else []),
        OpenVino("f32"),
        OpenVino(None),
        *(Graphopt(precision) for precision in PRECISIONS),
    ]
    return chosen(others, wanted)


def workload(title: str, module: Any, inputs: tuple[Any, ...], folder: Path) -> Workload:
    """One pass of a network at fixed sizes.

    Args:
        title: what a pass is.
        module: takes one tensor and returns one.
        inputs: the tensor.
        folder: where engines export to.
    """
    stage = Stage("network", module, inputs, ["x"], ["y"], {})
    given = [value.numpy() for value in inputs]

    def run(calls: dict[str, Call]) -> dict[str, np.ndarray[Any, Any]]:
        return {"y": calls[stage.name](*given)[0]}

    return Workload(title, [stage], run, folder)


def bench(
    console: Console,
    names: Sequence[str],
    words: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    folder: Path,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Time networks one after the other; of one that cannot be built its reason is printed.

    Args:
        console: where tables go: one of each network and number of threads, and an overview.
        names: of networks, keys of `NETWORKS`.
        words: for :func:`engines`.
        threads: numbers of threads.
        rounds: timed passes of each engine.
        folder: for exported files.
        progress: called with one line before each step.

    Returns:
        For each network its name, and title and results, or why it is missing.
    """
    found: list[dict[str, Any]] = []
    measured: dict[str, list[Result]] = {}
    for name in names:
        title = NETWORKS[name].title
        try:
            module, inputs = build(name)
        except GraphoptError as error:
            console.print(f"[bold]{title}[/bold]: missing: {reason(error)}")
            found.append({"model": name, "title": title, "missing": reason(error)})
            continue
        place = folder / name
        place.mkdir()
        work = workload(title, module, inputs, place)
        tried = engines(words, _has_convolutions(module))
        say = partial(_say, progress, name)
        (results,) = measure([work], tried, threads, rounds, progress=say)
        print_results(console, title, results, rounds)
        measured[title] = results
        rows = [result.as_dict() for result in results]
        found.append({"model": name, "title": title, "results": rows})
    for count in threads:
        console.print(overview(measured, count))
    return found


def _say(progress: Callable[[str], None], name: str, step: str) -> None:
    progress(f"{name}: {step}")


def overview(measured: dict[str, list[Result]], threads: int) -> Table:
    """A row for each network: the fastest of graphopt beside the fastest of the others.

    Args:
        measured: results by the title of the network.
        threads: which of them.
    """
    table = Table(title=f"{threads} thread{'s' * (threads > 1)}", title_justify="left")
    table.add_column("model")
    for column in ("graphopt fp32", "fastest fp32 peer", "x", "graphopt", "fastest peer", "x"):
        table.add_column(column, justify="right")
    for title, results in measured.items():
        rows = [row for row in results if row.threads == threads and not row.missing]
        exact = [row for row in rows if row.engine.endswith("fp32")]
        table.add_row(title, *_beside(exact), *_beside(rows))
    return table


def _beside(rows: Sequence[Result]) -> list[str]:
    own = min((r for r in rows if _is_own(r)), key=lambda r: r.median, default=None)
    peer = min((r for r in rows if not _is_own(r)), key=lambda r: r.median, default=None)
    cells = [f"{1000 * r.median:.1f} {r.engine}" if r else "" for r in (own, peer)]
    return [*cells, f"{peer.median / own.median:.2f}" if own and peer else ""]


def _is_own(row: Result) -> bool:
    return row.engine.startswith("graphopt")


def _has_convolutions(module: Any) -> bool:
    kind = require("torch.nn.modules.conv", "the benchmark")._ConvNd
    return any(isinstance(part, kind) for part in module.modules())
