"""The command `graphopt inspect`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, print_json, refuse
from graphopt.inspection.commands import MODEL_HELP
from graphopt.target import PRECISIONS


@needs("torch", "inspect")
def inspect(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help=f"{MODEL_HELP} Or a package, MODEL.gopt.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file; MODEL.html by default.")
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "-i",
            help="What a package or a .onnx file is measured with: one .npz, or a .npy each.",
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="See graphopt targets.")] = "native",
    precision: Annotated[
        str, typer.Option(help=f"Precision to compute in: auto, {', '.join(PRECISIONS)}.")
    ] = "auto",
    measure: Annotated[
        bool, typer.Option(help="Time the steps, and the model in torch, on the example inputs.")
    ] = True,
    errors: Annotated[
        bool, typer.Option("--errors", help="Run the graph after each pass in numpy: slow.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one page, which works offline, of what each pass did to MODEL and what came of it.

    Of a package it shows what that holds.
    """
    from graphopt.compiler.stages import keep_stages
    from graphopt.driver import optimize
    from graphopt.inspection.models import compiled_by_name
    from graphopt.inspection.page.package import write_package_page
    from graphopt.onnx.adapter import is_onnx
    from graphopt.output_files import check_file
    from graphopt.progress import show_progress
    from graphopt.runtime.arrays import read_arguments
    from graphopt.target import find_target

    console = Console(stderr=as_json)
    arrays = tuple(value for file in inputs or () for value in read_arguments(file)) or None
    is_file = os.path.exists(model)
    path = out or Path(f"{Path(model).stem if is_file else model.replace(':', '-')}.html")
    check_file(path)
    written: list[Path] = []
    if os.path.isfile(Path(model, "manifest.json")) or Path(model).suffix == ".gopt":
        refuse(context, ["target", "precision", "errors"], "for a package, which is compiled")
        write_package_page(Path(model), path, arrays if measure else None)
        _say(path, as_json)
        return
    find_target(target).precision(precision)
    if Path(model).is_dir() or Path(model).suffix == ".gguf":
        with show_progress(console, f"inspecting {model} for {target}"):
            parts = compiled_by_name(model, target, precision, inputs or ())
            for part in parts:
                own = part.name.rpartition("/")[2]
                place = path if len(parts) == 1 else path.with_stem(f"{path.stem}-{own}")
                given = None if part.call is None else part.call[0]
                part.compiled.inspect(place, given, measure=measure, errors=errors)
                written.append(place)
        if as_json:
            print_json({"pages": [str(place) for place in written]})
        else:
            print("\n".join(f"wrote {place}" for place in written))
        return
    with show_progress(console, f"inspecting {model} for {target}"):
        if is_onnx(model):
            module: Any = model
            example: Any = arrays
        else:
            from graphopt.zoo.catalog import build_model

            refuse(context, ["inputs"], "for a model that has example inputs")
            module, example = build_model(model)
        with keep_stages():
            fast = optimize(module, target=target, precision=precision, example_inputs=example)
        fast.inspect(path, measure=measure, errors=errors)
    _say(path, as_json)


def _say(path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"page": str(path)})
    else:
        print(f"wrote {path}")
