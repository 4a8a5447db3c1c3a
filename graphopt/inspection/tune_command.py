"""The command ``graphopt tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, print_json
from graphopt.inspection.commands import (
    InputsOption,
    ModelArgument,
    TargetOption,
)


@needs("torch", "tune")
def tune(
    model: ModelArgument,
    budget: Annotated[
        str,
        typer.Option(
            help="sqnr>=30dB, cosine>=.., max<=.., relative<=.., kl<=.., top1>=99%; or any name "
            "with a bound for --metric, with a sign beyond what fp32 has."
        ),
    ] = "sqnr>=30dB",
    metric: Annotated[
        str,
        typer.Option(
            help="module:function of two arrays (got, in fp32), or of what is called like MODEL."
        ),
    ] = "",
    precisions: Annotated[
        str, typer.Option(help="That layers may have, with commas.")
    ] = "fp32,bf16,int8,int4",
    out: Annotated[Path, typer.Option("--out", "-o", help="Plan to write.")] = Path("plan.toml"),
    chart: Annotated[Path | None, typer.Option(help="Also draw what was tried: an SVG.")] = None,
    inputs: InputsOption = None,
    part: Annotated[str, typer.Option(help="Of a model directory: which model.")] = "",
    target: TargetOption = "native",
    as_json: JsonOption = False,
) -> None:
    """Find the fastest mix of precisions for MODEL whose results are good enough."""
    from graphopt.compiler.precision_plan import PrecisionPlan
    from graphopt.driver import optimize
    from graphopt.inspection.accuracy import metric_named
    from graphopt.inspection.budget import Budget
    from graphopt.inspection.models import named_models, one_of
    from graphopt.inspection.tune_chart import svg_chart, text_chart
    from graphopt.inspection.tuning import check_precisions, tune_planned
    from graphopt.output_files import check_file, write_text
    from graphopt.progress import show_progress
    from graphopt.target import find_target

    find_target(target)
    wanted = Budget.of(budget, metric_named(metric) if metric else None)
    check_precisions(allowed := [name.strip() for name in precisions.split(",")])
    for file in (out, chart):
        if file is not None:
            check_file(file)
    with show_progress(Console(stderr=True), f"tuning {model}"):
        named = one_of(named_models(model, inputs or ()), part)
        graphs = named.planned(target, "fp32")

        def compiled(plan: PrecisionPlan) -> object:
            return optimize(
                named.model, target, example_inputs=named.example, plan=plan, check=False
            )

        whole = None if named.kind == "decoder" else compiled
        found = tune_planned(graphs, wanted, allowed, whole)
    write_text(out, found.text())
    if chart is not None:
        write_text(chart, svg_chart(found))
    if as_json:
        print_json(found.as_dict())
        return
    Console().print(found)
    print(text_chart(found))
    for file in (out, chart):
        if file is not None:
            print(f"wrote {file}")
