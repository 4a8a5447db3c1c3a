"""What became of every node, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphopt.ir import Graph, Node
from graphopt.ir.loss import Loss, mean_loss
from graphopt.ir.ops import Linear
from graphopt.ir.printer import name_values, shape_text
from graphopt.module_group import module_group
from graphopt.printable import printable


@dataclass(frozen=True)
class NodeReport:
    """One node.

    Attributes:
        node: name of its result, such as `%12`.
        op: the operation.
        compiled: whether generated code runs it.
        kernel: generic name of its kernel, `loop`, `view` or `torch`.
        result: type and shape.
        module: path in the user's model.
        source: file and line of the user's model.
        reasons: what passes decided, and why.
        loss: what rounding the weights lost; None where nothing was rounded, or that is not known.
        precision: of the weights of a product, such as `int8`; empty for other nodes.
    """

    node: str
    op: str
    compiled: bool
    kernel: str
    result: str
    module: str
    source: str
    reasons: tuple[str, ...]
    loss: Loss | None = None
    precision: str = ""

    def within(self, path: str) -> NodeReport:
        """The row in the report of a model that has this one under a path."""
        return replace(self, module=f"{printable(path)}.{self.module}".rstrip("."))


@dataclass(frozen=True)
class Report:
    """All nodes of a compiled module, in order. Prints as a table; iterates over its rows.

    Attributes:
        name: class of the model.
        target: what it is compiled for.
        precision: with what numbers.
        levels: ISA levels.
        nodes: the rows.
        checks: of every specialization, what comparing it with the model found.
    """

    name: str
    target: str
    precision: str
    levels: tuple[str, ...]
    nodes: tuple[NodeReport, ...]
    checks: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[NodeReport]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def in_torch(self) -> tuple[NodeReport, ...]:
        """Nodes that are not compiled."""
        return tuple(row for row in self.nodes if not row.compiled)

    @property
    def title(self) -> str:
        """How much is compiled, for what."""
        compiled = sum(row.compiled for row in self.nodes)
        counts = f"{compiled} of {len(self.nodes)} nodes compiled for {self.target}"
        levels = ", ".join(self.levels)
        title = f"{printable(self.name)}: {counts} ({levels}), precision {self.precision}"
        return "\n".join([title, *self.checks])

    def summary(self) -> Table:
        """A table with one row for all nodes of one op, kernel and history.

        Nodes that stay in torch come first, one by one.
        """
        table = Table(title=Text(self.title), title_justify="left", show_lines=True)
        for column in ("op", "kernel", "nodes", "module", "why"):
            table.add_column(
                column, overflow="fold", justify="right" if column == "nodes" else "left"
            )
        for row in self.in_torch:
            why = "\n".join(row.reasons)
            cells = row.op, row.kernel, "1", row.source or row.module, why
            table.add_row(*map(Text, cells), style="bold red")
        groups: dict[tuple[str, str, tuple[str, ...]], list[NodeReport]] = {}
        for row in self.nodes:
            if row.compiled and row.kernel != "view":
                groups.setdefault((row.op, row.kernel, row.reasons), []).append(row)
        for (op, kernel, _), rows in groups.items():
            names = op.removeprefix("go."), kernel.removeprefix("go_")
            modules = dict.fromkeys(module_group(row.module) for row in rows)
            why = _why(rows[0], mean_loss([row.loss for row in rows if row.loss is not None]))
            cells = *names, str(len(rows)), "\n".join(filter(None, modules)), why
            table.add_row(*map(Text, cells))
        return table

    def __rich__(self) -> Table:
        table = Table(title=Text(self.title), title_justify="left")
        for column in ("node", "op", "kernel", "result", "module", "why"):
            table.add_column(column, overflow="fold")
        for row in self.nodes:
            if row.kernel == "view":
                continue
            style = None if row.compiled else "bold red"
            cells = (
                row.node,
                row.op.removeprefix("go."),
                row.kernel.removeprefix("go_"),
                row.result,
                row.module or row.source.rpartition("/")[2],
                _why(row, row.loss),
            )
            table.add_row(*map(Text, cells), style=style)
        return table

    def __str__(self) -> str:
        stream = StringIO()
        Console(file=stream, width=200).print(self)
        return stream.getvalue()


def _why(row: NodeReport, loss: Loss | None) -> str:
    """The reasons of a node, and what rounding its weights lost."""
    lost = [] if loss is None else [f"lost: {loss}"]
    return "\n".join([*row.reasons, *lost])


def node_reports(graph: Graph) -> list[NodeReport]:
    """The rows of a graph."""
    names = name_values(graph)
    return [_row(node, ", ".join(names[v] for v in node.outputs) or "_") for node in graph.nodes]


def _row(node: Node, name: str) -> NodeReport:
    result = ", ".join(f"{v.packed or v.dtype.value}{shape_text(v.shape)}" for v in node.outputs)
    kernel = node.kernel if node.is_lowered else "torch"
    return NodeReport(
        name,
        node.op.name,
        node.is_lowered,
        kernel,
        result,
        printable(node.origin.module),
        printable(node.origin.source),
        tuple(map(printable, node.reasons)),
        node.op.loss if isinstance(node.op, Linear) else None,
        str(node.op.decided or ""),
    )
