"""The commands ``graphopt dump``, ``diff``, ``bisect``, ``check`` and ``info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, TrustedKeys, print_json
from graphopt.printable import printable
from graphopt.target import PRECISIONS

if TYPE_CHECKING:
    from graphopt.inspection.models import Planned

MODEL_HELP = (
    "A name of the zoo; module:function or file.py:function, which returns (model, "
    "example_inputs); a .onnx file; a .gguf file, or a directory of a language model; a model "
    "directory of FunASR."
)
ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP)]
TargetOption = Annotated[str, typer.Option(help="See graphopt targets.")]
PrecisionOption = Annotated[str, typer.Option(help=f"auto, {', '.join(PRECISIONS)}.")]
InputsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--inputs",
        "-i",
        help="One .npz with all arguments, or one .npy for each; else the model's example.",
    ),
]


def _planned(
    model: str, target: str, precision: str, inputs: list[Path] | None = None
) -> list[Planned]:
    from graphopt.inspection.models import planned_by_name
    from graphopt.progress import show_progress
    from graphopt.target import find_target

    find_target(target).precision(precision)
    with show_progress(Console(stderr=True), f"planning {model}"):
        return planned_by_name(model, target, precision, inputs or ())


def _print(console: Console, thing: Any, as_json: Any, wants_json: bool) -> None:
    if wants_json:
        print_json(as_json)
    else:
        console.print(thing)


@needs("compile", "dump")
def dump(
    model: ModelArgument,
    after: Annotated[
        str, typer.Option(help="A pass, or all: those that changed something.")
    ] = "all",
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="What is other after the second of two passes.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="text, dot, graphml, model-explorer or onnx.")
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; a folder for several in one format."),
    ] = None,
    target: TargetOption = "native",
    precision: PrecisionOption = "auto",
    part: Annotated[str, typer.Option(help="Of a model directory: which model.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show the graph of MODEL after passes, what each one changed, and why."""
    from graphopt.inspection import dumps, export

    export.check_format(format)
    graphs = dumps.chosen(_planned(model, target, precision), part)
    if diff is not None:
        for planned in graphs:
            print(dumps.difference(planned.stages, *diff), end="")
        return
    stages = [dumps.stages_after(planned.stages, after) for planned in graphs]
    if as_json:
        found = [dumps.as_dict(p, s) for p, s in zip(graphs, stages, strict=True)]
        print_json(found)
        return
    if out is None and format != "onnx":
        for chosen in stages:
            overlays = export.overlays_of(chosen[-1]) if len(chosen) == 1 else {}
            print(export.export_text(chosen, format, overlays), end="")
        return
    for file in dumps.write(stages, format, out):
        print(f"wrote {file}")


@needs("compile", "diff")
def diff(
    model: ModelArgument,
    inputs: InputsOption = None,
    after: Annotated[str, typer.Option(help="A pass; the whole plan if not given.")] = "",
    against: Annotated[str, typer.Option(help="The pass that is right.")] = "capture",
    metric: Annotated[
        str,
        typer.Option(
            help="sqnr, max, relative, cosine; module:function or file.py:function of two arrays."
        ),
    ] = "sqnr",
    alone: Annotated[
        bool,
        typer.Option("--alone/--in-all", help="Sort by a node's own error, or by all up to it."),
    ] = True,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    target: TargetOption = "native",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show how far every op's result is from that of MODEL, the worst first."""
    from graphopt.inspection import accuracy
    from graphopt.progress import show_progress

    measure = accuracy.metric_named(metric)
    graphs = _planned(model, target, precision, inputs)
    found = []
    with show_progress(Console(stderr=True), f"comparing {model}"):
        for planned in graphs:
            found.append(accuracy.diff(planned, None, after, against, measure, alone))
    console = Console()
    for one in found:
        if not as_json:
            console.print(one.table(limit))
    if as_json:
        print_json([one.as_dict() for one in found])


@needs("compile", "bisect")
def bisect(
    model: ModelArgument,
    inputs: InputsOption = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Error over the largest magnitude; by default by precision."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Python file that shows the fault.")
    ] = Path("bisected.py"),
    target: TargetOption = "native",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the first pass that moves a result of MODEL too far; 1 if there is one."""
    from graphopt.inspection.bisection import bisect as find
    from graphopt.inspection.dumps import error_table
    from graphopt.output_files import check_file, write_text
    from graphopt.progress import show_progress

    check_file(out)
    graphs = _planned(model, target, precision, inputs)
    with show_progress(Console(stderr=True), f"bisecting {model}"):
        found = [find(planned, None, tolerance) for planned in graphs]
    console = Console()
    for one in found:
        if not as_json:
            print(printable(one.text))
            console.print(error_table(one))
    if as_json:
        print_json([one.as_dict() for one in found])
    findings = [one.finding for one in found if one.finding is not None]
    if findings:
        write_text(out, findings[0].source())
        if not as_json:
            print(f"wrote {out}")
    if any(one.culprit for one in found):
        raise typer.Exit(1)


@needs("compile", "check")
def check(
    model: ModelArgument,
    require: Annotated[
        str,
        typer.Option(
            help="Conditions on fp32, bf16, int8, int4 (share of multiply-adds), compiled (share "
            "of nodes), fallback, portable (counts), such as int8>=95%,fallback=0."
        ),
    ] = "fallback=0",
    target: TargetOption = "native",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Hold the plan of MODEL to conditions; 1, and each node that misses them, if it does not."""
    from graphopt.inspection.requirements import check as hold
    from graphopt.inspection.requirements import parse_requirements

    parse_requirements(require)
    verdict = hold(_planned(model, target, precision), require)
    _print(Console(), verdict, verdict.as_dict(), as_json)
    if not verdict.holds:
        raise typer.Exit(1)


@needs("compile", "predict")
def predict(
    model: ModelArgument,
    target: Annotated[str, typer.Option(help="An Arm core: neoverse-n1, -n2, -v1, -v2.")] = (
        "neoverse-n2"
    ),
    cores: Annotated[str, typer.Option(help="Numbers of cores.")] = "1,16,64",
    constants: Annotated[
        Path | None, typer.Option(help="What is known of the machine: of graphopt calibrate.")
    ] = None,
    inputs: InputsOption = None,
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Predict what MODEL takes on Arm cores that are not here; docs/n2sim.md has the limits."""
    from graphopt.bench.machine import Machine, read_machine
    from graphopt.errors import OptionError
    from graphopt.flags import numbers
    from graphopt.inspection import prediction
    from graphopt.progress import announce, show_progress

    counts = numbers(cores, "--cores")
    machine = Machine() if constants is None else read_machine(constants)
    if machine.target not in ("", target):
        raise OptionError(
            "constants", str(constants), f"they are of {machine.target}, not {target}"
        )
    graphs = _planned(model, target, precision, inputs)
    with show_progress(Console(stderr=True), f"predicting {model}"):
        found = [prediction.predict(one, counts, machine, announce) for one in graphs]
    if as_json:
        print_json([row.as_dict() for rows in found for row in rows])
        return
    console = Console()
    for rows in found:
        console.print(prediction.prediction_tables(rows))


def info(
    package: Annotated[Path, typer.Argument(help="A package of any kind.")],
    trusted_key: TrustedKeys = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what is in PACKAGE, for which CPUs; 1 if it does not run on this machine."""
    from graphopt.inspection.package_info import inspect_package

    found = inspect_package(package, trusted_key or None)
    _print(Console(), found, found.as_dict(), as_json)
    if not found.runs_here:
        raise typer.Exit(1)
