"""The command ``graphopt bench models``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import numbers, output_file

_FILE_WIDTH = 180  # of wide tables in files and pipes


@needs("bench", "bench models")
def bench_models(
    only: Annotated[str, typer.Option(help="Names of networks, such as resnet-50,unet.")] = "",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Only engines whose name contains this; torch fp32 always runs. torch.compile "
            "takes minutes and runs only when it is asked for here."
        ),
    ] = None,
    threads: Annotated[str, typer.Option(help="Thread counts, one table each.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes of each engine.")] = 9,
    json: Annotated[
        Path | None,
        typer.Option(callback=output_file, help="Also write every time to this file."),
    ] = None,
) -> None:
    """Time well-known networks in torch, torch.ao, onnxruntime, OpenVINO and graphopt."""
    from graphopt.bench import models, table
    from graphopt.zoo.official.catalog import NETWORKS

    names = only.split(",") if only else list(NETWORKS)
    if unknown := [name for name in names if name not in NETWORKS]:
        known = ", ".join(NETWORKS)
        message = f"no {', '.join(unknown)}; there are {known}"
        raise typer.BadParameter(message, param_hint="--only")
    counts = numbers(threads, "--threads")
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    with tempfile.TemporaryDirectory() as folder, console.status("building") as status:
        found = models.bench(
            console, names, engine or [], counts, rounds, Path(folder), status.update
        )
    if json is not None:
        table.write_parts(json, {"models": found})
