"""The command ``graphopt calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, print_json
from graphopt.inspection.commands import PrecisionOption


@needs("torch", "calibrate")
def calibrate(
    model: Annotated[
        str, typer.Argument(help="Whose prediction is compared, on a Neoverse CPU; one model.")
    ] = "fsmn-vad",
    target: Annotated[
        str, typer.Option(help="What this machine is, as of graphopt targets.")
    ] = "native",
    precision: PrecisionOption = "int8",
    out: Annotated[Path, typer.Option("--out", "-o", help="File of constants to write.")] = Path(
        "machine.toml"
    ),
    as_json: JsonOption = False,
) -> None:
    """Measure on this machine what graphopt predict assumes, and say how far it was off."""
    from graphopt.bench.machine import machine_text
    from graphopt.inspection import calibration
    from graphopt.inspection.models import planned_by_name
    from graphopt.n2sim.cores import CORES
    from graphopt.output_files import check_file, write_text
    from graphopt.progress import show_progress
    from graphopt.target import find_target

    chosen = find_target(target)
    chosen.precision(precision)
    check_file(out)
    compares = chosen.is_host and chosen.name in CORES
    with show_progress(Console(stderr=True), "calibrating"):
        planned = None
        if compares:
            (planned,) = planned_by_name(model, target, precision, num_threads=1)
        found = calibration.calibrate(planned, chosen.name)
    write_text(out, machine_text(found.machine))
    if as_json:
        print_json(found.as_dict())
        return
    Console().print(found)
    print(f"wrote {out}")
