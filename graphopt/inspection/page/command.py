"""The command `graphopt inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.target import PRECISIONS


@needs("torch", "inspect")
def inspect(
    model: Annotated[str, typer.Argument(help="As for graphopt optimize.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file; MODEL.html by default.")
    ] = None,
    target: Annotated[str, typer.Option(help="See graphopt targets.")] = "native",
    precision: Annotated[
        str, typer.Option(help=f"Precision to compute in: auto, {', '.join(PRECISIONS)}.")
    ] = "auto",
    measure: Annotated[
        bool, typer.Option(help="Time the steps, and the model in torch, on the example inputs.")
    ] = True,
) -> None:
    """Write one page, which works offline, of what each pass did to MODEL and what came of it."""
    import graphopt
    from graphopt.onnx.adapter import is_onnx
    from graphopt.progress import show_progress
    from graphopt.target import find_target
    from graphopt.zoo.catalog import build_model

    find_target(target).precision(precision)
    console = Console()
    path = out or Path(f"{Path(model).stem if is_onnx(model) else model.replace(':', '-')}.html")
    with show_progress(console, f"inspecting {model} for {target}"):
        module, inputs = (model, None) if is_onnx(model) else build_model(model)
        with graphopt.keep_stages():
            fast = graphopt.optimize(
                module, target=target, precision=precision, example_inputs=inputs
            )
        fast.inspect(path, measure=measure)
    console.print(f"wrote {path}")
