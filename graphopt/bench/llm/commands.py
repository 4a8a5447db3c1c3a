"""The command ``graphopt bench llm``."""

from __future__ import annotations

import json as json_format
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType

from graphopt.dependencies import needs
from graphopt.flags import numbers, refuse
from graphopt.llm.commands import BitsOption, GroupOption, RequantizeOption

_FILE_WIDTH = 180  # of wide tables in files and pipes


@needs("bench", "bench llm")
def bench_llm(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="smollm2, llama-3.2-1b, a GGUF file, or a .gopt package.")
    ],
    target: Annotated[
        str, typer.Option(help="native to measure, or an Arm core whose cycles are predicted.")
    ] = "native",
    precision: Annotated[str, typer.Option(help="As for graphopt compile llm.")] = "int4",
    group_size: GroupOption = 32,
    activation_bits: BitsOption = 8,
    requantize: RequantizeOption = False,
    threads: Annotated[str, typer.Option(help="Numbers of threads.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each engine.")] = 7,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Also measure llama.cpp (llama-cpp-python) and onnxruntime."),
    ] = False,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="What quantizing costs on real text, instead of speed."),
    ] = False,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of text, for --quality.")] = 2048,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tokens per second, memory and loading time of a language model, or its quality.

    With a target other than this machine: predicted cycles by op, beside published figures.
    """
    from graphopt.bench.llm import predict, speed
    from graphopt.bench.llm import quality as qualities
    from graphopt.bench.llm.prepare import prepare
    from graphopt.bench.llm.published import PUBLISHED
    from graphopt.compiler.options import Options
    from graphopt.llm.compiled import check_options

    console = Console(stderr=json, width=None if sys.stdout.isatty() else _FILE_WIDTH)
    options = Options.of(
        target=target,
        precision=precision,
        group_size=group_size or None,
        activation_bits=activation_bits,
        requantize=requantize,
    )
    counts = numbers(threads, "--threads")
    if quality:
        of_speed = ["target", "precision", "group_size", "activation_bits", "requantize"]
        refuse(context, [*of_speed, "threads", "rounds"], "beside --quality")
    else:
        refuse(context, ["tokens"], "without --quality")
        check_options(options)
        if target != "native":
            refuse(
                context, ["threads", "rounds", "peers"], f"where cycles of {target} are predicted"
            )
    result: list[dict[str, Any]]
    shown: RenderableType
    with tempfile.TemporaryDirectory() as folder, console.status("building") as status:
        if quality:
            result = qualities.measure(model, Path(folder), tokens, peers, status.update)
            shown = qualities.table(result)
        elif target != "native":
            predicted = predict.predict(model, Path(folder), options, status.update)
            result = [one.as_dict() for one in predicted] + [one.as_dict() for one in PUBLISHED]
            shown = Group(*predict.tables(predicted), predict.note(predicted))
        else:
            paths = prepare(model, Path(folder), options, peers)
            rows = speed.measure(model, paths, counts, rounds, status.update)
            result, shown = [row.as_dict() for row in rows], speed.table(rows)
    if json:
        print(json_format.dumps(result, indent=1))
    else:
        console.print(shown)
