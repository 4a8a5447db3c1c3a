"""The command `graphopt profile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, finite, print_json
from graphopt.inspection.commands import InputsOption, ModelArgument, PrecisionOption


@needs("compile", "profile")
def profile(
    model: ModelArgument,
    inputs: InputsOption = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also time the model in torch, op by op.")
    ] = False,
    by: Annotated[str, typer.Option(help="Tables: op, module, step.")] = "op,module",
    limit: Annotated[int, typer.Option(min=1, help="Lines of a table.")] = 15,
    trace: Annotated[
        Path | None, typer.Option(help="Write what each thread did, for ui.perfetto.dev.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Timed runs; the mean of the faster half counts.")
    ] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="All CPUs by default.")] = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show where the time of MODEL goes on this machine, and what limits it.

    JSON has the fields of onnxruntime's profiler.
    """
    from graphopt.errors import InspectionError
    from graphopt.inspection.models import compiled_by_name
    from graphopt.inspection.profiling.report import check_tables
    from graphopt.output_files import check_file, write_text
    from graphopt.progress import show_progress
    from graphopt.target import native

    native().precision(precision)
    kinds = [kind.strip() for kind in by.split(",")]
    check_tables(kinds)
    if trace is not None:
        check_file(trace)
    console, found, shown = Console(), [], []
    with show_progress(Console(stderr=True), f"profiling {model}"):
        for one in compiled_by_name(model, "native", precision, inputs or (), threads):
            if one.call is None:
                raise InspectionError(one.name, "it comes without example inputs; give --inputs")
            args, kwargs = one.call
            original = one.compiled.original if baseline else None
            if baseline and original is None:
                raise InspectionError(one.name, "it is no torch module; leave out --baseline")
            found.append(one.compiled.profile(*args, repeats=repeats, baseline=original, **kwargs))
            shown.append(found[-1].events() if as_json else found[-1].tables(kinds, limit))
    if trace is not None:
        events = [event for one in found for event in one.trace()["traceEvents"]]
        write_text(trace, json.dumps({"traceEvents": finite(events), "displayTimeUnit": "ms"}))
    if as_json:
        print_json([event for one in shown for event in one])
        return
    for tables in shown:
        console.print(tables)
    if trace is not None:
        console.print(f"wrote {trace}")
