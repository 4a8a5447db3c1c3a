"""Stages as text and files: which ones, and what is other between two."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from graphopt.compiler.stages import Stage, Stages
from graphopt.dependencies import require
from graphopt.errors import OptionError
from graphopt.inspection.bisection import Bisection
from graphopt.inspection.export import FORMATS, export_text, node_data, overlays_of
from graphopt.inspection.models import Planned
from graphopt.ir.printer import file_name
from graphopt.output_files import make_folder, write_text
from graphopt.printable import printable


def chosen(graphs: Sequence[Planned], part: str) -> list[Planned]:
    """The graphs of one model of a directory, or all.

    Raises:
        OptionError: for a part that there is not.
    """
    found = [one for one in graphs if not part or one.name.rpartition("/")[2] == part]
    if not found:
        names = ", ".join(one.name.rpartition("/")[2] for one in graphs)
        raise OptionError("part", part, f"give one of {names}")
    return found


def stages_after(stages: Stages, after: str) -> list[Stage]:
    """One stage by its name, or with `all` every one in which something changed.

    Raises:
        UnknownStageError: for a pass that did not run.
    """
    if after == "all":
        return [stage for stage in stages if stage.changed]
    return [stages[after]]


def difference(stages: Stages, first: str, second: str) -> str:
    """Lines that two stages do not share; empty if they are the same.

    Args:
        stages: of a model.
        first: name of a stage.
        second: name of a later one.

    Raises:
        UnknownStageError: for a pass that did not run.
    """
    before, after = stages[first], stages[second]
    names = f"after {first}", f"after {second}"
    lines = difflib.unified_diff(before.lines, after.lines, *names, lineterm="", n=1)
    return "".join(f"{line}\n" for line in lines)


def as_dict(planned: Planned, stages: Sequence[Stage]) -> dict[str, Any]:
    """What JSON shows of a model: its passes, and the nodes of some stages."""
    passes = [
        {"name": s.name, "changed": s.changed, "seconds": s.seconds, "nodes": len(s.nodes)}
        for s in planned.stages
    ]
    return {"model": planned.name, "passes": passes, "stages": [_stage_dict(s) for s in stages]}


def _stage_dict(stage: Stage) -> dict[str, Any]:
    nodes = [
        {
            "name": row.name,
            "op": row.node.op.name,
            "call": row.call,
            "types": row.types,
            "operands": dict(row.operands),
            "outputs": row.outputs,
            "kernel": row.node.kernel,
            "module": printable(row.node.origin.module),
            "source": printable(row.node.origin.source),
            "came_from": row.came_from,
            "change": row.change,
            "notes": row.notes,
            "reasons": list(map(printable, row.node.reasons)),
        }
        for row in stage.nodes
    ]
    outputs = [stage.names[value] for value in stage.graph.outputs]
    return {"name": stage.name, "nodes": nodes, "gone": stage.gone, "outputs": outputs}


def write(stages: Sequence[Sequence[Stage]], format: str, out: Path | None) -> Iterator[Path]:
    """Writes stages, and tells which files.

    Args:
        stages: of each graph those to write.
        format: one of `FORMATS`.
        out: a file; a folder where there are several files, which it also is by default.

    Raises:
        OptionError: for `onnx` without a place.
        StorageError: if one cannot be written.
    """
    if out is None:
        raise OptionError("format", format, "give --out, a file or a folder to write to")
    every = [(group, stage) for group in stages for stage in group]
    ending = FORMATS[format]
    is_file = out.suffix == f".{ending}"
    if (
        is_file
        and len(every) != 1
        and (format not in ("text", "model-explorer") or len(stages) > 1)
    ):
        raise OptionError("out", str(out), f"{len(every)} graphs were chosen; give a folder")
    if is_file and len(stages) == 1:
        yield from _write(stages[0], format, out)
        return
    for group in stages:
        for number, stage in enumerate(group):
            folder = out / file_name(stage.graph.name)
            name = f"{number:02d}_{file_name(stage.name.rpartition('/')[2])}.{ending}"
            yield from _write([stage], format, folder / name)


def _write(group: Sequence[Stage], format: str, path: Path) -> Iterator[Path]:
    if format == "onnx":
        require("onnx", "a dump as ONNX")
        from graphopt.inspection.onnx_file import write_onnx

        make_folder(path.parent)
        write_onnx(group[0], path)
        yield path
        return
    overlays = overlays_of(group[-1]) if len(group) == 1 else {}
    write_text(path, export_text(group, format, overlays))
    yield path
    if format == "model-explorer":
        every = {stage.name: overlays_of(stage) for stage in group}
        for title in ("kernel", "precision", "change"):
            data = path.with_name(f"{path.stem}.{title}.json")
            write_text(data, node_data(title, {name: of[title] for name, of in every.items()}))
            yield data


def error_table(found: Bisection) -> Table:
    """The error after every pass that changed something."""
    table = Table()
    table.add_column("after")
    for column in ("error", "allowed"):
        table.add_column(column, justify="right")
    for row in found.errors:
        style = "bold red" if row.stage == found.culprit else ""
        cells = row.stage, f"{row.error:.2g}", f"{row.tolerance:g}"
        table.add_row(*map(Text, cells), style=style)
    return table
