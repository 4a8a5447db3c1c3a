"""The command ``graphopt bench funasr``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import numbers, output_file, refuse

_FILE_WIDTH = 180  # of wide tables in files and pipes
#: The parts that look at a flag.
_USED_BY = {
    "threads": {"whole", "error", "recipe", "vad"},
    "rounds": {"whole", "recipe", "vad"},
    "seconds": {"whole", "error", "recipe", "arm"},
    "batch": {"whole", "recipe", "arm"},
    "only": {"whole"},
    "target": {"arm"},
    "blocks": {"whole", "error", "recipe", "arm"},
    "decoder_blocks": {"whole", "error", "recipe", "arm"},
}


@needs("bench", "bench funasr")
def bench_funasr(
    context: typer.Context,
    part: Annotated[
        list[str] | None, typer.Option(help="whole, error, recipe, arm or vad; all by default.")
    ] = None,
    threads: Annotated[
        str, typer.Option(help="Thread counts; the recipe takes the largest.")
    ] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes of each engine.")] = 5,
    seconds: Annotated[
        str, typer.Option(help="Lengths of speech; the recipe and arm take the first.")
    ] = "10",
    batch: Annotated[
        str, typer.Option(help="Batch sizes; the recipe and arm take the first.")
    ] = "1",
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only engines whose name contains this; torch fp32 always runs. torch.compile "
            "takes minutes and runs only when it is asked for here."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="Whose cycles are predicted.")] = "neoverse-n2",
    blocks: Annotated[int, typer.Option(min=2, help="Encoder blocks.")] = 50,
    decoder_blocks: Annotated[int, typer.Option(min=1, help="Decoder blocks.")] = 16,
    json: Annotated[
        Path | None,
        typer.Option(callback=output_file, help="Also write every time to this file."),
    ] = None,
) -> None:
    """Paraformer beside its peers, its errors by block, the recipe step by step, and FSMN-VAD."""
    from graphopt.bench import funasr, table
    from graphopt.target import find_target

    chosen = part or list(funasr.PARTS)
    if unknown := set(chosen) - set(funasr.PARTS):
        known = ", ".join(funasr.PARTS)
        raise typer.BadParameter(f"no {', '.join(unknown)}; there are {known}", param_hint="--part")
    for flag, parts in _USED_BY.items():
        if not parts & set(chosen):
            refuse(context, [flag], f"on {', '.join(chosen)}")
    if "arm" in chosen:
        find_target(target)
    counts, lengths = numbers(threads, "--threads"), numbers(seconds, "--seconds")
    batches = numbers(batch, "--batch")
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, console.status("building") as status:
        bench = funasr.FunasrBench(console, Path(folder), blocks, decoder_blocks, status.update)
        if "whole" in chosen:
            found["whole"] = bench.whole(only or [], counts, rounds, lengths, batches)
        if "error" in chosen:
            found["error"] = bench.error(max(counts), lengths[0])
        if "recipe" in chosen:
            found["recipe"] = bench.recipe(max(counts), rounds, lengths[0], batches[0])
        if "arm" in chosen:
            found["arm"] = bench.arm(target, lengths[0], batches[0])
        if "vad" in chosen:
            found["vad"] = bench.vad(counts, rounds)
    if json is not None:
        table.write_parts(json, found)
