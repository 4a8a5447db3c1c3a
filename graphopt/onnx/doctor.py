"""What of an ONNX model is compiled, and every node that is not."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from graphopt.onnx.files import open_model
from graphopt.onnx.importer import import_model
from graphopt.printable import printable


def examine(path: Path) -> tuple[Table | Text, bool]:
    """A table of the nodes that cannot be compiled, or what there is, and whether all can.

    Args:
        path: of the model.

    Raises:
        OnnxModelError: if the model is damaged or contradicts itself.
    """
    model = open_model(path)
    found = import_model(model)
    count = sum(found.counts.values())
    name = printable(model.name)
    if not found.refusals:
        made = len(found.graph.nodes)
        kinds = len(found.counts)
        text = f"{name}: all {count} nodes of {kinds} ops are compiled, as {made} nodes"
        return Text(text), True
    title = f"{name}: {len(found.refusals)} of {count} nodes cannot be compiled"
    table = Table(title=Text(title), title_justify="left")
    for column in ("node", "op", "why", "nearest"):
        table.add_column(column, overflow="fold")
    for refusal in found.refusals:
        cells = refusal.node, refusal.op, refusal.reason, refusal.nearest
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table, False
