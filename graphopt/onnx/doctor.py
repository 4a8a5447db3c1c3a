"""What of an ONNX model is compiled, and every node that is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from graphopt.onnx.files import open_model
from graphopt.onnx.importer import Refusal, import_model
from graphopt.printable import printable


@dataclass(frozen=True)
class Examined:
    """What was found; prints as a table of the nodes that cannot be compiled, or one line.

    Attributes:
        name: of the model.
        nodes: how many it has.
        ops: how many kinds of nodes.
        compiled: nodes that they become, if all can be compiled.
        refusals: those that cannot be compiled.
    """

    name: str
    nodes: int
    ops: int
    compiled: int
    refusals: tuple[Refusal, ...]

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""
        return asdict(self)

    def __rich__(self) -> Table | Text:
        name = printable(self.name)
        if not self.refusals:
            counts = f"all {self.nodes} nodes of {self.ops} ops"
            return Text(f"{name}: {counts} are compiled, as {self.compiled} nodes")
        title = f"{name}: {len(self.refusals)} of {self.nodes} nodes cannot be compiled"
        table = Table(title=Text(title), title_justify="left")
        for column in ("node", "op", "why", "nearest"):
            table.add_column(column, overflow="fold")
        for refusal in self.refusals:
            cells = refusal.node, refusal.op, refusal.reason, refusal.nearest
            table.add_row(*(Text(printable(cell)) for cell in cells))
        return table


def examine(path: Path) -> Examined:
    """Imports a model and lists what cannot be compiled.

    Args:
        path: of the model.

    Raises:
        OnnxModelError: if the model is damaged or contradicts itself.
    """
    model = open_model(path)
    found = import_model(model)
    return Examined(
        model.name,
        sum(found.counts.values()),
        len(found.counts),
        len(found.graph.nodes),
        tuple(found.refusals),
    )
