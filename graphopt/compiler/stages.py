"""The graph as it was after each pass, kept for tools that show what became of a model.

Passes change a graph in place; a `Stage` is what it was like after one of them, as a graph of its
own that can be printed, exported and run in numpy (`graphopt/ir/interpret.py`). Neighbouring stages
share the nodes and values that no pass touched between them. Nothing is kept unless somebody asks:

    with keep_stages() as kept:
        fast = graphopt.optimize(model, example_inputs=(x,))
    for stage in kept[0]:
        print(stage.name, stage.changed)

Values have one name from the first stage to the last: that of capture where there is one, else that
of the op that made them, with a number (`reshape.2`). A node is called as the first value that it
makes is, so that names say which nodes of two stages are the same, and `came_from` which of those
before became which after.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

from graphopt.errors import OptionError, UnknownStageError
from graphopt.ir import Graph, Node, Origin, Value
from graphopt.ir.layout import is_contiguous
from graphopt.ir.printer import print_call, print_type, print_types, shape_text
from graphopt.printable import printable

#: The first stage: the graph as it was captured, or imported.
CAPTURE = "capture"


@dataclass(frozen=True, eq=False)
class StageNode:
    """A node at a stage.

    Attributes:
        name: of the first value that it makes; unique in the stage, and the same in all of them.
        node: of the stage's graph.
        operands: names of the values that it reads, by role.
        outputs: names of the values that it makes.
        call: the op with operands and attributes, as text.
        types: of what it makes, as text.
        came_from: names of the nodes of the stage before whose work it does, its own among them;
            none for what the pass added.
        memory: where results lie, if not in memory of their own, row after row.
        change: `added`, `changed` or `same`, against the stage before.
        notes: decisions that this pass left on it, without the name of the pass.
    """

    name: str
    node: Node
    operands: Mapping[str, str]
    outputs: tuple[str, ...]
    call: str
    types: str
    came_from: tuple[str, ...]
    memory: tuple[str, ...]
    change: str
    notes: tuple[str, ...]

    @property
    def precision(self) -> str:
        """In what numbers it computes: the format of its weights, or the type of its result."""
        if (format := self.node.op.decided) is not None:
            return str(format)
        return next((v.packed or v.dtype.value for v in self.node.outputs), "")

    @property
    def text(self) -> str:
        """The node in one line."""
        where = self.node.origin.module
        place = f"  {printable(where)}" if where else ""
        return f"{', '.join(self.outputs) or '_'} = {self.call}  # {self.types}{place}"

    @property
    def lines(self) -> list[str]:
        """The node, and below it decisions of passes and where its results lie."""
        below = [*map(printable, self.node.reasons), *self.memory]
        return [self.text, *(f"    # {line}" for line in below)]


@dataclass(frozen=True, eq=False)
class Stage:
    """The graph after a pass.

    Attributes:
        name: of the pass; `capture` for the first; with `.2`, `.3`, ... where a pass runs again.
        step: the pass; empty for `capture`, and for `partition`, where a part begins.
        graph: as it was then; it does not change any more.
        seconds: that the pass took.
        changed: whether anything is other than in the stage before; where a graph or a part begins,
            it is.
        nodes: those of the graph, in order.
        gone: names of nodes of the stage before that are no more.
        names: of all values, as they are printed.
    """

    name: str
    step: str
    graph: Graph
    seconds: float
    changed: bool
    nodes: tuple[StageNode, ...]
    gone: tuple[str, ...]
    names: Mapping[Value, str] = field(repr=False)

    def __getitem__(self, name: str) -> StageNode:
        """The node of a name; KeyError without one."""
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @cached_property
    def _by_name(self) -> dict[str, StageNode]:
        return {row.name: row for row in self.nodes}

    @property
    def lines(self) -> list[str]:
        """The graph as text, one line for each node and decision, in names that do not change."""
        inputs = ", ".join(f"{self.names[v]}: {print_type(v)}" for v in self.graph.inputs)
        lines = [f"graph {printable(self.graph.name)}({inputs}):"]
        for row in self.nodes:
            lines += [f"    {line}" for line in row.lines]
        return [*lines, f"    return {', '.join(self.names[v] for v in self.graph.outputs)}"]

    @property
    def text(self) -> str:
        """The graph as text."""
        return "\n".join(self.lines) + "\n"


class Stages:
    """What became of one captured graph: its stages in order.

    Where nodes stay in torch, each compiled part goes on alone: its stages follow, from one called
    `partition` on, and their names begin with that of the part, as in `Model_0/quantize_weights`.

    Attributes:
        name: of the graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stages: list[Stage] = []
        self._recorders: dict[str, _Recorder] = {}
        self._runs: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def __getitem__(self, name: str) -> Stage:
        """The stage of a name.

        Raises:
            UnknownStageError: listing those that there are.
        """
        for stage in self._stages:
            if stage.name == name:
                return stage
        raise UnknownStageError(name, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the stages, in order."""
        return tuple(stage.name for stage in self._stages)

    @property
    def parts(self) -> list[list[Stage]]:
        """For each compiled part, all the stages that led to it; one list if there is one part."""
        whole = [s for s in self._stages if s.graph.name == self.name]
        others = [graph for graph in self._recorders if graph != self.name]
        if not others:
            return [whole]
        return [[*whole, *(s for s in self._stages if s.graph.name == graph)] for graph in others]

    def part_of(self, stage: Stage) -> list[Stage]:
        """The one of `parts` that a stage is in; of those that begin with it the first."""
        return next(part for part in self.parts if stage in part)

    def before(self, stage: Stage) -> Stage | None:
        """The stage that another one is compared with; None for the first."""
        part = self.part_of(stage)
        number = part.index(stage)
        return part[number - 1] if number else None

    def ancestors(self, stage: Stage, name: str, at: Stage | None = None) -> tuple[str, ...]:
        """Names of the nodes of an earlier stage whose work a node does.

        Args:
            stage: has the node.
            name: of the node.
            at: the earlier stage; `capture` if None.
        """
        part = self.part_of(stage)
        names = {name: None}
        first = part.index(at) if at is not None else 0
        for later in reversed(part[first + 1 : part.index(stage) + 1]):
            names = dict.fromkeys(chain.from_iterable(later[n].came_from for n in names))
        return tuple(names)

    def origins(self, stage: Stage, name: str) -> tuple[Origin, ...]:
        """The places in the user's model whose work a node does, its own first."""
        node, capture = stage[name].node, self._stages[0]
        places = [node.origin, *node.fused]
        places += [capture[before].node.origin for before in self.ancestors(stage, name)]
        return tuple(dict.fromkeys(place for place in places if place != Origin()))

    def take(self, graph: Graph, step: str, seconds: float = 0.0) -> Stage:
        """Keeps a graph as it is now, and gives what is kept.

        Args:
            graph: the one that passes change, or a part of it.
            step: the pass that was the last to; empty before the first.
            seconds: that it took.
        """
        is_part = graph.name != self.name
        if graph.name not in self._recorders:
            whole = self._recorders.get(self.name)
            self._recorders[graph.name] = _Recorder() if whole is None else whole.fork(graph)
        base = step or ("partition" if is_part else CAPTURE)
        base = f"{graph.name}/{base}" if is_part else base
        self._runs[base] += 1
        name = base if self._runs[base] == 1 else f"{base}.{self._runs[base]}"
        self._stages.append(self._recorders[graph.name].stage(graph, name, step, seconds))
        return self._stages[-1]


_kept: ContextVar[list[Stages] | None] = ContextVar("kept_stages", default=None)


@contextlib.contextmanager
def keep_stages() -> Iterator[list[Stages]]:
    """Keeps the stages of every graph that is compiled inside the block, in a list that it gives.

    Constants that passes replace, such as weights in f32 behind `quantize_weights`, stay in memory
    for as long as the list.
    """
    kept: list[Stages] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


def kept_stages(name: str) -> Stages | None:
    """Where stages of a new graph are kept; None if nobody asked for them."""
    kept = _kept.get()
    if kept is None:
        return None
    kept.append(Stages(name))
    return kept[-1]


class _Recorder:
    """Copies a graph that changes in place, and finds what is the same as before.

    What it remembers of the stage before is about the nodes and values that passes change; it holds
    on to all that ever had a name, so that no other object is taken for one of them.
    """

    def __init__(self) -> None:
        self._name_of: dict[Value, str] = {}
        self._owner_of: dict[str, Value] = {}  # the last to have a name
        self._counts: Counter[str] = Counter()
        self._copies: dict[str, Value] = {}  # of the stage before, by name
        self._nodes: dict[Node, tuple[str, Node]] = {}
        self._rows: dict[str, StageNode] = {}

    def fork(self, part: Graph) -> _Recorder:
        """One for a part, which begins where this one is."""
        other = _Recorder()
        other._name_of, other._owner_of = dict(self._name_of), dict(self._owner_of)
        other._counts, other._copies = self._counts.copy(), dict(self._copies)
        other._nodes = {n: self._nodes[n] for n in part.nodes if n in self._nodes}
        own = {name for name, _ in other._nodes.values()}
        other._rows = {name: row for name, row in self._rows.items() if name in own}
        return other

    def stage(self, graph: Graph, name: str, step: str, seconds: float) -> Stage:
        """The graph as it is now; see `Stage`."""
        self._name_values(graph)
        copies = self._copied_values(graph)
        named = {node: self._name(node) for node in graph.nodes}
        nodes = {n: (own, self._copied(n, own, copies)) for n, own in named.items()}
        kept = Graph(
            graph.name,
            [copies[v] for v in graph.inputs],
            [copies[v] for v in graph.outputs],
            [node for _, node in nodes.values()],
            dict(graph.dims),
            list(graph.conditions),
        )
        names = {copied: self._name_of[value] for value, copied in copies.items()}
        came_from = self._came_from(nodes)
        rows = {
            own: self._row(own, node, names, step, came_from[own]) for own, node in nodes.values()
        }
        gone = tuple(own for own in self._rows if own not in rows)
        is_same = list(rows) == list(self._rows) and all(r.change == "same" for r in rows.values())
        is_same = is_same and bool(step)
        self._copies = {own: copied for copied, own in names.items()}
        self._nodes, self._rows = nodes, rows
        return Stage(name, step, kept, seconds, not is_same, tuple(rows.values()), gone, names)

    def _name_values(self, graph: Graph) -> None:
        """Gives every new value a name; one that was made anew as it was before keeps its own."""
        alive = {*graph.inputs, *graph.constants(), *chain(*(n.outputs for n in graph.nodes))}
        for value in chain(graph.inputs, graph.constants()):
            if value not in self._name_of:
                self._give(value, printable(value.name), "const", alive)
        before: dict[str, list[str]] = {}
        for node in self._nodes:
            if node.outputs and not alive.intersection(node.outputs):
                called = [self._name_of[v] for v in node.outputs]
                before[self._rows[called[0]].call] = called
        for node in graph.nodes:
            new = [v for v in node.outputs if v not in self._name_of]
            if not new:
                continue
            called = before.pop(print_call(node, self._name_of), [])
            if len(called) == len(new) == len(node.outputs) and not any(v.name for v in new):
                self._name_of.update(zip(new, called, strict=True))
                self._owner_of.update(zip(called, new, strict=True))
                continue
            for value in new:
                self._give(value, printable(value.name), _short(node), alive)

    def _give(self, value: Value, wanted: str, kind: str, alive: set[Value]) -> None:
        """Names a value.

        Args:
            value: without a name yet.
            wanted: taken unless another value that is alive has it; may be empty.
            kind: the name where none is wanted; a number goes behind it.
            alive: all values of the graph.
        """
        name = wanted
        if not wanted or self._owner_of.get(wanted) in alive:
            base = wanted or kind
            while not name or name in self._owner_of:
                self._counts[base] += 1
                name = f"{base}.{self._counts[base]}"
        self._name_of[value], self._owner_of[name] = name, value

    def _name(self, node: Node) -> str:
        """The name of a node: of its first result, or one of its own if it has none."""
        if node.outputs:
            return self._name_of[node.outputs[0]]
        if node in self._nodes:
            return self._nodes[node][0]
        self._counts[_short(node)] += 1
        return f"{_short(node)}.{self._counts[_short(node)]}"

    def _copied_values(self, graph: Graph) -> dict[Value, Value]:
        """A copy of every value: that of the stage before if the value is as it was."""
        copies: dict[Value, Value] = {}

        def copied(value: Value) -> Value:
            if value not in copies:
                old = self._copies.get(self._name_of[value])
                storage = None
                if (layout := value.layout) is not None and layout.storage is not value:
                    storage = copied(layout.storage)
                if old is None or not _is_copy(old, value, storage):
                    old = copy.copy(value)
                    if layout is not None:
                        old.layout = replace(layout, storage=storage or old)
                copies[value] = old
            return copies[value]

        made = chain.from_iterable(node.outputs for node in graph.nodes)
        for value in chain(graph.inputs, graph.constants(), made):
            copied(value)
        return copies

    def _copied(self, node: Node, name: str, copies: Mapping[Value, Value]) -> Node:
        """A copy of a node: that of the stage before if the node is as it was.

        Args:
            node: what is copied.
            name: its name.
            copies: those of its values.
        """
        operands = {role: copies[v] for role, v in node.operands.items()}
        outputs = [copies[v] for v in node.outputs]
        state = (operands, outputs, node.origin, node.fused, node.reasons, node.kernel)
        row = self._rows.get(name)
        if row is not None:
            old = row.node
            was = (old.operands, old.outputs, old.origin, old.fused, old.reasons, old.kernel)
            if was == state and type(old.op) is type(node.op) and old.op == node.op:
                return old
        op, fused, reasons = copy.copy(node.op), list(node.fused), list(node.reasons)
        return Node(op, operands, outputs, node.origin, fused, reasons, node.kernel)

    def _came_from(self, nodes: Mapping[Node, tuple[str, Node]]) -> dict[str, tuple[str, ...]]:
        """For each node, names of those of the stage before whose work it does.

        They are those of its name, the one that it was itself, and, by their place in the user's
        model, those that are no more. A new node comes from one that is still there at its place.
        """
        found: dict[str, dict[str, None]] = {}
        at: dict[int, list[str]] = defaultdict(list)
        for node, (name, _) in nodes.items():
            earlier = (name, self._nodes[node][0]) if node in self._nodes else (name,)
            found[name] = dict.fromkeys(n for n in earlier if n in self._rows)
            for place in dict.fromkeys(map(id, _places(node))):
                at[place].append(name)
        kept = set(chain.from_iterable(found.values()))
        for node, (name, _) in self._nodes.items():
            if name not in kept and (places := _places(node)):
                for heir in at.get(id(places[0]), ()):
                    found[heir].setdefault(name)
        first = {id(place): name for n, (name, _) in self._nodes.items() for place in _places(n)}
        for node, (name, _) in nodes.items():
            if not found[name]:
                found[name] = dict.fromkeys(first[id(p)] for p in _places(node) if id(p) in first)
        return {name: tuple(earlier) for name, earlier in found.items()}

    def _row(
        self,
        name: str,
        node: Node,
        names: dict[Value, str],
        step: str,
        came_from: tuple[str, ...],
    ) -> StageNode:
        old = self._rows.get(name)
        known = [] if old is None else old.node.reasons
        mark = f"{step}: "
        notes = tuple(
            reason.removeprefix(mark)
            for reason in node.reasons
            if reason.startswith(mark) and reason not in known
        )
        row = StageNode(
            name,
            node,
            {role: names[v] for role, v in node.operands.items()},
            tuple(names[v] for v in node.outputs),
            print_call(node, names),
            print_types(node),
            came_from,
            tuple(_memory(node, names)),
            "added",
            notes,
        )
        if old is None:
            return row
        is_same = row.lines == old.lines and old.node.op == node.op and came_from == (name,)
        return replace(row, change="same" if is_same else "changed")


def _is_copy(copied: Value, value: Value, storage: Value | None) -> bool:
    """Whether a copy of a value says all that the value is by now, but for its name."""
    mine = (value.dtype, value.shape, value.packed, value.is_state)
    if mine != (copied.dtype, copied.shape, copied.packed, copied.is_state):
        return False
    if copied.held is not value.held or (copied.layout is None) != (value.layout is None):
        return False
    if value.layout is None or copied.layout is None:
        return True
    at, was = value.layout, copied.layout
    same = (at.strides, at.offset, at.size) == (was.strides, was.offset, was.size)
    return same and was.storage is (storage or copied)


def _memory(node: Node, names: Mapping[Value, str]) -> Iterator[str]:
    """Where in the memory of another value, or with what strides, results lie."""
    for value in node.outputs:
        if (layout := value.layout) is None:
            continue
        strides = shape_text(layout.strides)
        if layout.storage is not value:
            start = f" from {shape_text((layout.offset,))[1:-1]}" if layout.offset != 0 else ""
            owner = names[layout.storage]
            yield f"{names[value]} lies in {owner}{start}, strides {strides}"
        elif layout.size is not None or not is_contiguous(value):
            yield f"{names[value]} has strides {strides}"


def _places(node: Node) -> list[Origin]:
    """The places in the user's model that a node has, its own first; without those that are none.

    Every node of a capture has one of its own, which is kept as an object by all that follow it.
    """
    return [place for place in (node.origin, *node.fused) if place != Origin()]


def _short(node: Node) -> str:
    """The op without its namespace."""
    return node.op.name.partition(".")[2] or node.op.name


class Staged:
    """What was compiled, and can tell how it became what it is."""

    def stages(self) -> list[Stages]:
        """The graph after each pass, of every graph that was compiled.

        Raises:
            StagesError: if they were not kept; see `graphopt.keep_stages`.
        """
        raise NotImplementedError

    def graph(self, after: str = "", number: int = 0) -> Graph:
        """The graph after a pass, which `graphopt.ir` runs, prints and exports.

        Args:
            after: name of a stage, such as `fuse_attention`, or `simplify_views.2` for the second
                run of a pass; `capture` for what came in; the last one if empty.
            number: which of `stages()`, where several graphs were compiled.

        Raises:
            UnknownStageError: listing the passes that ran.
            OptionError: for a graph that there is not.
            StagesError: as `stages`.
        """
        found = self.stages()
        if type(number) is not int or not 0 <= number < len(found):
            raise OptionError("number", number, f"{len(found)} graphs were compiled")
        stages = found[number]
        return stages[after or stages.names[-1]].graph
