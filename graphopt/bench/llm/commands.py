"""The command ``graphopt bench llm``."""

from __future__ import annotations

import json as json_format
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.llm.commands import BitsOption, GroupOption, RequantizeOption, terms_of


def bench_llm(
    model: Annotated[
        str, typer.Argument(help="smollm2, llama-3.2-1b, a GGUF file, or a .gopt package.")
    ],
    precision: Annotated[str, typer.Option(help="As for graphopt compile llm.")] = "int4",
    group_size: GroupOption = 32,
    activation_bits: BitsOption = 8,
    requantize: RequantizeOption = False,
    threads: Annotated[str, typer.Option(help="Numbers of threads.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Of each engine.")] = 7,
    peers: Annotated[
        bool, typer.Option("--peers", help="Beside llama.cpp (llama-cpp-python), in turns.")
    ] = False,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="What quantizing costs on real text, instead of speed."),
    ] = False,
    tokens: Annotated[int, typer.Option(min=2, help="Of text, for --quality.")] = 2048,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tokens per second, memory and loading time of a language model, or its quality."""
    from graphopt.bench.llm import quality as qualities
    from graphopt.bench.llm import speed
    from graphopt.bench.llm.prepare import prepare
    from graphopt.llm.package import LlmOptions

    console = Console(stderr=json)
    terms = terms_of(activation_bits)
    with tempfile.TemporaryDirectory() as folder, console.status("building") as status:
        if quality:
            found = qualities.measure(model, Path(folder), tokens, peers, status.update)
            result, shown = found, qualities.table(found)
        else:
            options = LlmOptions("native", precision, group_size, terms, requantize)
            paths = prepare(model, Path(folder), options, peers)
            counts = [int(part) for part in threads.split(",")]
            rows = speed.measure(model, paths, counts, rounds, status.update)
            result, shown = [row.as_dict() for row in rows], speed.table(rows)
    if json:
        print(json_format.dumps(result, indent=1))
    else:
        console.print(shown)
