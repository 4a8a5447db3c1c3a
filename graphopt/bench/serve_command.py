"""The command ``graphopt bench serve``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, print_json


@needs("transcribe", "bench serve")
def bench_serve(
    package: Annotated[Path, typer.Argument(help="Package of graphopt compile funasr.")],
    frames: Annotated[int, typer.Option(min=1, help="Frames of 60 ms of a call.")] = 167,
    cores: Annotated[int, typer.Option(min=1, help="Threads that may run at once.")] = 2,
    streams: Annotated[int, typer.Option(min=2, help="Callers side by side.")] = 4,
    calls: Annotated[int, typer.Option(min=1, help="Calls of one stream, and of all.")] = 40,
    starts: Annotated[int, typer.Option(min=1, help="Processes that load the package.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure how a recognizer's package serves: load, memory, first call, streams, latency."""
    from graphopt.bench import serve

    console = Console(stderr=as_json)
    asr = serve.recognizer_package(package)
    with console.status("starting"):
        found = [serve.measure_start(asr, frames, cores) for _ in range(starts)]
    if not as_json:
        console.print(serve.start_table(found))
    with console.status("streaming"):
        loads = serve.measure_streams(asr, frames, cores, streams, calls)
    if as_json:
        print_json({"starts": list(map(asdict, found)), "streams": list(map(asdict, loads))})
        return
    console.print(serve.streams_table(loads))
