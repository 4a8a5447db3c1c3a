"""The stages of a model as the columns of numbers that the page reads (`page/src/data.ts`).

Every text stands once in a table of strings. A node has a row for each form that it had, and a
stage is the list of its rows, so that what a pass left alone takes no room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from graphopt.compiler.stages import Stage, StageNode, Stages
from graphopt.inspection.page.layout import Drawn, layouts
from graphopt.ir import Value
from graphopt.ir.ops import Linear
from graphopt.ir.printer import print_type, shape_text
from graphopt.printable import printable

#: A row of the table of nodes without the key: texts, then operands, reasons and fused modules.
_TEXTS = ("name", "op", "text", "type", "module", "source", "code", "kernel", "precision", "place")

OUTPUT = "output"


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

    def __init__(self, captured: Sequence[Stages], errors: Mapping[int, str] = {}) -> None:
        self.strings: list[str] = []
        self.keys: list[str] = []
        self.stages: list[dict[str, Any]] = []
        self._string_at: dict[str, int] = {}
        self._key_at: dict[str, int] = {}
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("key", *_TEXTS, "inputs", "reasons", "fused")
        }
        self._drawn: list[Drawn] = []
        self._rows: list[dict[str, int]] = []
        self._last: list[tuple[str, Stage, str]] = []  # of each program: prefix, stage, part
        for number, stages in enumerate(captured):
            prefix = f"{number}:" if number else ""
            self._take(stages, prefix, errors)

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

    def planned(self, program: int) -> list[int]:
        """Keys of the nodes of a planned graph, in order.

        Args:
            program: its number among all that were compiled.
        """
        prefix, stage, part = self._last[program]
        return [self._key(self._full(prefix, part, row.name)) for row in stage.nodes]

    def _take(self, stages: Stages, prefix: str, errors: Mapping[int, str]) -> None:
        at: dict[int, int] = {}
        self._shared = {row.name for s in stages if s.graph.name == stages.name for row in s.nodes}
        for stage in stages:
            part = "" if stage.graph.name == stages.name else stage.graph.name
            before = stages.before(stage)
            number = at[id(stage)] = len(self.stages)
            came = -1 if before is None else at[id(before)]
            if came >= 0 and not stage.changed:
                self._drawn.append(self._drawn[came])
                self._rows.append(self._rows[came])
                rows = None
            else:
                rows = self._add(stage, prefix, part, came)
            self.stages.append(
                {
                    "pass": printable(stage.name),
                    "graph": printable(stage.graph.name),
                    "changed": stage.changed,
                    "ms": round(stage.seconds * 1e3, 3),
                    "nodes": None if rows is None else _delta(rows),
                    "before": came,
                    "notes": [],
                    "error": errors.get(number, ""),
                }
            )
        for part_stages in stages.parts:
            last = part_stages[-1]
            part = "" if last.graph.name == stages.name else last.graph.name
            self._last.append((prefix, last, part))

    def _full(self, prefix: str, part: str, name: str) -> str:
        """The name of a node among those of all graphs."""
        return f"{prefix}{part}/{name}" if part and name not in self._shared else f"{prefix}{name}"

    def _add(self, stage: Stage, prefix: str, part: str, before: int) -> list[int]:
        """Adds the rows that are new at a stage; gives all of it."""
        earlier = self._rows[before] if before >= 0 else {}
        maker = {value: row.name for row in stage.nodes for value in row.outputs}
        made: dict[str, int] = {}
        reads: dict[str, list[str]] = {}
        ends: set[str] = set()
        for value in stage.graph.inputs:
            name = self._full(prefix, part, stage.names[value])
            ends.add(name)
            reads[name] = []
            shown = {"name": stage.names[value], "op": "input", "type": print_type(value)}
            made[name] = earlier.get(name, -1)
            if made[name] < 0 or self._text(made[name], "type") != shown["type"]:
                made[name] = self._row(name, shown)
        for row in stage.nodes:
            name = self._full(prefix, part, row.name)
            sources = [maker.get(v, v) for v in row.operands.values()]
            reads[name] = [self._full(prefix, part, source) for source in sources]
            if row.change == "same" and name in earlier:
                made[name] = earlier[name]
                continue
            values = zip(row.operands, sources, row.node.operands.values(), strict=True)
            inputs = [
                (role, self._full(prefix, part, source), _operand(value, row.operands[role]))
                for role, source, value in values
            ]
            made[name] = self._row(name, _texts(row, stage), inputs, row)
        results = [stage.names[v] for v in stage.graph.outputs]
        sources = [self._full(prefix, part, maker.get(v, v)) for v in results]
        name = f"{prefix}{part}/{OUTPUT}" if part else f"{prefix}{OUTPUT}"
        reads[name] = sources
        types = ", ".join(print_type(v) for v in stage.graph.outputs)
        ends_in = [("", source, text) for source, text in zip(sources, results, strict=True)]
        made[name] = earlier.get(name, -1)
        if made[name] < 0 or not self._reads(made[name], sources):
            made[name] = self._row(name, {"op": OUTPUT, "type": types}, ends_in)
        self._drawn.append(Drawn(reads, frozenset(ends)))
        self._rows.append(made)
        return list(made.values())

    def _reads(self, row: int, sources: list[str]) -> bool:
        keys = [key for _, key, _ in self._columns["inputs"][row]]
        return keys == [self._key(source) for source in sources]

    def _text(self, row: int, column: str) -> str:
        at: int = self._columns[column][row]
        return self.strings[at]

    def _row(
        self,
        name: str,
        texts: Mapping[str, str],
        inputs: Sequence[tuple[str, str, str]] = (),
        row: StageNode | None = None,
    ) -> int:
        columns = self._columns
        columns["key"].append(self._key(name))
        for column in _TEXTS:
            columns[column].append(self._string(texts.get(column, "")))
        columns["inputs"].append(
            [(self._string(r), self._key(source), self._string(t)) for r, source, t in inputs]
        )
        node = None if row is None else row.node
        reasons = [] if node is None else list(node.reasons)
        fused = [] if node is None else [origin.module or origin.source for origin in node.fused]
        columns["reasons"].append([self._string(printable(text)) for text in reasons])
        columns["fused"].append([self._string(printable(t)) for t in dict.fromkeys(fused) if t])
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
        "precision": _precision(row),
        "place": "; ".join(_places(row, stage)),
    }


def _precision(row: StageNode) -> str:
    """In what numbers a node computes."""
    op = row.node.op
    if isinstance(op, Linear):
        return str(op.decided)
    return next((v.packed or v.dtype.value for v in row.node.outputs), "")


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
