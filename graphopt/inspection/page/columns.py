"""The stages of a model as the columns of numbers that the page reads (`page/src/data.ts`).

Every text stands once in a table of strings. A node has a row for each form that it had, and a
stage is the list of its rows, so that what a pass left alone takes no room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from graphopt.compiler.program import Program
from graphopt.compiler.stages import Stage, StageNode, Stages
from graphopt.errors import StagesError
from graphopt.inspection.bisection import StageError
from graphopt.inspection.page.graph_text import parse_graph
from graphopt.inspection.page.layout import Drawn, layouts
from graphopt.ir import Value
from graphopt.ir.printer import print_type, shape_text
from graphopt.printable import printable

#: A row of the table of nodes without the key: texts, then operands, reasons and fused modules.
_TEXTS = ("name", "op", "text", "type", "module", "source", "code", "kernel", "precision", "place")

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Shown:
    """A node as the page shows it; names are those of the whole page.

    Attributes:
        name: of the node.
        texts: by column.
        inputs: of each operand its role, the name of what makes it, and its type.
        reasons: what passes decided.
        fused: places whose work it does, beside its own.
        came: names of other nodes of the stage before whose work it does.
        is_same: whether it is as in the stage before.
    """

    name: str
    texts: Mapping[str, str]
    inputs: Sequence[tuple[str, str, str]] = ()
    reasons: Sequence[str] = ()
    fused: Sequence[str] = ()
    came: Sequence[str] = ()
    is_same: bool = False

    @property
    def reads(self) -> list[str]:
        """Names of what makes the operands."""
        return [name for _, name, _ in self.inputs]


class Columns:
    """The tables of a page.

    Attributes:
        strings: every text, once.
        keys: names of nodes, which keep them from stage to stage.
        stages: what the page says of each stage.

    Args:
        captured: the stages of every graph that was compiled.
        errors: by the number of a stage its error, where that was measured.
    """

    def __init__(
        self, captured: Sequence[Stages] = (), errors: Mapping[int, StageError] = {}
    ) -> None:
        self.strings: list[str] = []
        self.keys: list[str] = []
        self.stages: list[dict[str, Any]] = []
        self._string_at: dict[str, int] = {}
        self._key_at: dict[str, int] = {}
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("key", *_TEXTS, "inputs", "reasons", "fused", "came")
        }
        self._drawn: list[Drawn] = []
        self._rows: list[dict[str, int]] = []
        self._shared: set[str] = set()  # names that parts have from the whole graph
        self._last: list[tuple[str, Stage, str]] = []  # of each program: prefix, stage, part
        for number, stages in enumerate(captured):
            prefix = f"{number}:" if number else ""
            self._take(stages, prefix, errors)

    def add_text(self, name: str, model: str, text: str) -> None:
        """Adds a stage that is compared with no other.

        Args:
            name: of the stage.
            model: its name.
            text: the graph, as `print_graph` printed it.
        """
        graph = parse_graph(text)

        def full(own: str) -> str:
            return f"{name}/{own}"

        nodes = [
            Shown(
                full(node.outputs[0]),
                {
                    "name": ", ".join(node.outputs),
                    "op": node.op,
                    "text": node.call,
                    "type": node.types,
                    "module": node.module,
                    "kernel": node.kernel,
                    "precision": node.types.partition("[")[0],
                },
                [(role, full(graph.maker.get(v, v)), kind) for role, v, kind in node.operands],
                node.reasons,
            )
            for node in graph.nodes
        ]
        rows = self._add_rows(
            [(full(own), own, kind) for own, kind in graph.inputs],
            nodes,
            [(full(graph.maker.get(v, v)), graph.types.get(v, "")) for v in graph.results],
            full(OUTPUT),
            {},
        )
        self.stages.append(_stage(name, model, True, 0.0, rows, -1))

    def key(self, name: str) -> int:
        """The key of a name."""
        return self._key(name)

    def as_dict(self) -> dict[str, Any]:
        """The tables, with the layouts."""
        found = []
        for layout in layouts(self._drawn, [stage["before"] for stage in self.stages]):
            places = sorted(
                (self._key(name), *place) for name, place in layout.places.items()
            )  # in the order of the graph, as keys are
            keys, x, y = (list(column) for column in zip(*places, strict=True))
            found.append({"first": layout.first, "last": layout.last, "keys": keys, "x": x, "y": y})
        return {
            "strings": self.strings,
            "keys": self.keys,
            "nodes": self._columns,
            "stages": self.stages,
            "layouts": found,
        }

    def planned(self, programs: Sequence[Program]) -> list[list[int]]:
        """Keys of the nodes of each planned graph, in order.

        Args:
            programs: all that was compiled, in the order of the stages.

        Raises:
            StagesError: if the stages are not of those.
        """
        last = iter(self._last)
        found = []
        for program in programs:
            graph = program.graph
            same = (one for one in last if one[1].graph.name == graph.name)
            prefix, stage, part = next(
                (one for one in same if len(one[1].nodes) == len(graph.nodes)), ("", None, "")
            )
            if stage is None:
                raise StagesError(graph.name)
            found.append([self._key(self._full(prefix, part, row.name)) for row in stage.nodes])
        return found

    def _take(self, stages: Stages, prefix: str, errors: Mapping[int, StageError]) -> None:
        at: dict[int, int] = {}
        whole = [stage for stage in stages if stage.graph.name == stages.name]
        self._shared |= {f"{prefix}{row.name}" for stage in whole for row in stage.nodes}
        for stage in stages:
            part = "" if stage.graph.name == stages.name else stage.graph.name
            before = stages.before(stage)
            number = at[id(stage)] = len(self.stages)
            came = -1 if before is None else at[id(before)]
            begins = before is not None and before.graph.name != stage.graph.name
            if came >= 0 and not stage.changed and not begins:
                self._drawn.append(self._drawn[came])
                self._rows.append(self._rows[came])
                rows = None
            else:
                rows = self._add(stage, prefix, part, came)
            title = printable(stage.name), printable(stage.graph.name)
            changed = stage.changed or begins
            self.stages.append(_stage(*title, changed, stage.seconds, rows, came))
            if begins:
                self.stages[-1]["notes"] = ["what is gone stays in torch, or is in another part"]
            if number in errors:
                its = errors[number]
                self.stages[-1] |= {"error": f"{its.error:.1e}", "wrong": its.is_wrong}
        for part_stages in stages.parts:
            last = part_stages[-1]
            part = "" if last.graph.name == stages.name else last.graph.name
            self._last.append((prefix, last, part))

    def _full(self, prefix: str, part: str, name: str) -> str:
        """The name of a node among those of all graphs."""
        whole = f"{prefix}{name}"
        return f"{prefix}{part}/{name}" if part and whole not in self._shared else whole

    def _add(self, stage: Stage, prefix: str, part: str, before: int) -> list[int]:
        """Adds the rows that are new at a stage; gives all of it."""

        def full(name: str) -> str:
            return self._full(prefix, part, name)

        maker = {value: row.name for row in stage.nodes for value in row.outputs}
        shown = []
        for row in stage.nodes:
            sources = [full(maker.get(v, v)) for v in row.operands.values()]
            values = zip(row.operands, sources, row.node.operands.values(), strict=True)
            inputs = [(r, source, _operand(v, row.operands[r])) for r, source, v in values]
            origins = (origin.module or origin.source for origin in row.node.fused)
            shown.append(
                Shown(
                    full(row.name),
                    _texts(row, stage),
                    inputs,
                    row.node.reasons,
                    [place for place in dict.fromkeys(origins) if place],
                    [full(name) for name in row.came_from if name != row.name],
                    row.change == "same",
                )
            )
        given = [(stage.names[v], print_type(v)) for v in stage.graph.inputs]
        results = [(stage.names[v], print_type(v)) for v in stage.graph.outputs]
        return self._add_rows(
            [(full(name), name, kind) for name, kind in given],
            shown,
            [(full(maker.get(name, name)), kind) for name, kind in results],
            f"{prefix}{part}/{OUTPUT}" if part else f"{prefix}{OUTPUT}",
            self._rows[before] if before >= 0 else {},
        )

    def _add_rows(
        self,
        inputs: Sequence[tuple[str, str, str]],
        nodes: Sequence[Shown],
        results: Sequence[tuple[str, str]],
        output: str,
        earlier: Mapping[str, int],
    ) -> list[int]:
        """Adds what is new of a graph.

        Args:
            inputs: of each its full name, its name and its type.
            nodes: in order.
            results: of each the full name of what makes it, and its type.
            output: full name of what stands for them.
            earlier: rows of the graph before, by full name.

        Returns:
            All rows of the graph.
        """
        made: dict[str, int] = {}
        for name, own, kind in inputs:
            row, texts = earlier.get(name, -1), {"name": own, "op": INPUT, "type": kind}
            if row < 0 or any(self._columns[c][row] != self._string(t) for c, t in texts.items()):
                row = self._row(Shown(name, texts))
            made[name] = row
        for node in nodes:
            same = node.is_same and node.name in earlier
            made[node.name] = earlier[node.name] if same else self._row(node)
        ends = [("", source, kind) for source, kind in results]
        row = earlier.get(output, -1)
        if row < 0 or self._columns["inputs"][row] != self._operands(ends):
            row = self._row(Shown(output, {"op": OUTPUT, "type": results[0][1]}, ends))
        made[output] = row
        reads: dict[str, list[str]] = {name: [] for name, *_ in inputs}
        reads |= {n.name: n.reads for n in nodes}
        reads[output] = [source for source, _ in results]
        self._drawn.append(Drawn(reads, frozenset(name for name, *_ in inputs)))
        self._rows.append(made)
        return list(made.values())

    def _operands(self, inputs: Sequence[tuple[str, str, str]]) -> list[tuple[int, int, int]]:
        return [(self._string(r), self._key(name), self._string(t)) for r, name, t in inputs]

    def _row(self, node: Shown) -> int:
        columns = self._columns
        columns["key"].append(self._key(node.name))
        for column in _TEXTS:
            columns[column].append(self._string(node.texts.get(column, "")))
        columns["inputs"].append(self._operands(node.inputs))
        for column, texts in (("reasons", node.reasons), ("fused", node.fused)):
            columns[column].append([self._string(printable(text)) for text in texts])
        columns["came"].append([self._key(name) for name in node.came])
        return len(columns["key"]) - 1

    def _string(self, text: str) -> int:
        if text not in self._string_at:
            self._string_at[text] = len(self.strings)
            self.strings.append(text)
        return self._string_at[text]

    def _key(self, name: str) -> int:
        if name not in self._key_at:
            self._key_at[name] = len(self.keys)
            self.keys.append(name)
        return self._key_at[name]


def _stage(
    name: str, graph: str, changed: bool, seconds: float, rows: list[int] | None, before: int
) -> dict[str, Any]:
    """A stage of the page.

    Args:
        name: of the pass.
        graph: of which part of the model it is.
        changed: whether the pass changed it.
        seconds: that it took.
        rows: of its nodes; None if it is the graph before.
        before: number of the stage before; -1 for none.
    """
    return {
        "pass": name,
        "graph": graph,
        "changed": changed,
        "ms": round(seconds * 1e3, 3),
        "nodes": None if rows is None else _delta(rows),
        "before": before,
        "notes": [],
        "error": "",
        "wrong": False,
    }


def _texts(row: StageNode, stage: Stage) -> dict[str, str]:
    node, origin = row.node, row.node.origin
    return {
        "name": ", ".join(row.outputs) or row.name,
        "op": node.op.name,
        "text": row.call,
        "type": row.types,
        "module": printable(origin.module),
        "source": printable(origin.source),
        "code": printable(origin.code),
        "kernel": node.kernel if node.is_lowered else "torch",
        "precision": row.precision,
        "place": "; ".join(_places(row, stage)),
    }


def _places(row: StageNode, stage: Stage) -> list[str]:
    """How the results of a node lie in memory, once that is decided."""
    found = []
    for value in row.node.outputs:
        if (layout := value.layout) is None:
            continue
        owner = "" if layout.storage is value else f" in {stage.names[layout.storage]}"
        at = f" from {layout.offset}" if layout.offset != 0 else ""
        found.append(f"strides {shape_text(layout.strides)}{owner}{at}")
    return found


def _operand(value: Value, name: str) -> str:
    return f"{name}: {print_type(value)}" if value.is_constant else print_type(value)


def _delta(numbers: Sequence[int]) -> list[int]:
    """Differences of neighbours, most of which are 1 and pack well."""
    return [b - a for a, b in pairwise((0, *numbers))]
