"""Where the nodes of a graph are drawn, so that they keep their places from pass to pass.

A model is a long chain with short skips: the row of a node is the longest way to it, its place in
the row is near to what it reads. That takes linear time and needs no library in the browser.

Neighbouring passes share one layout, of all nodes that any of them has. Once a graph has become so
much smaller that most rows of the layout would be empty, the next passes get a layout of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: How many rows a layout may have for each that some of its passes needs.
_LOOSEST = 1.4
#: Nodes that stand side by side; more of them take further rows.
_WIDEST = 24
#: How much of a turn to the side the next row keeps, so that a long chain comes back to the middle.
_SWAY = 0.8


@dataclass(frozen=True)
class Drawn:
    """What layouts know of a graph: for each node, in order, what it reads.

    Attributes:
        reads: by the name of a node the names of the nodes that make its operands.
        ends: names of inputs, which stay at the top.
    """

    reads: Mapping[str, Sequence[str]]
    ends: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Layout:
    """Places of nodes for some neighbouring passes.

    Attributes:
        first: number of the first pass.
        last: number of the last one.
        places: by the name of a node twice its place in the row, 0 in the middle, and its row.
    """

    first: int
    last: int
    places: Mapping[str, tuple[int, int]]


def layouts(graphs: Sequence[Drawn], before: Sequence[int]) -> list[Layout]:
    """Layouts for the graphs after each pass.

    Args:
        graphs: after each pass.
        before: for each the number of the graph that the pass began with, -1 for none.
    """
    found: list[Layout] = []
    first, gathered, smallest = 0, _Union(), 0
    for number, graph in enumerate(graphs):
        was = before[number]
        if number > first and was >= 0 and graph is graphs[was]:
            continue  # there is a place for all of it
        shown = [graphs[was], graph] if was >= 0 else [graph]  # what is gone is seen once more
        rows = _rows(_union(shown))
        joined = gathered.copy() if number > first else _Union()
        for one in shown:
            joined.add(one)
        least = min(smallest or rows, rows)
        if number > first and (was < 0 or _rows(joined) > _LOOSEST * least):
            found.append(Layout(first, number - 1, _place(gathered)))
            first, joined, least = number, _union(shown), rows
        gathered, smallest = joined, least
    return [*found, Layout(first, len(graphs) - 1, _place(gathered))]


class _Union:
    """Several graphs as one: nodes in an order in which each follows its neighbour."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.reads: dict[str, dict[str, None]] = {}
        self.ends: set[str] = set()

    def copy(self) -> _Union:
        other = _Union()
        other.order, other.ends = list(self.order), set(self.ends)
        other.reads = {name: dict(reads) for name, reads in self.reads.items()}
        return other

    def add(self, graph: Drawn) -> None:
        behind: dict[str, list[str]] = {}
        last = ""
        for name, reads in graph.reads.items():
            if name in self.reads:
                last = name
            else:
                behind.setdefault(last, []).append(name)
            self.reads.setdefault(name, {}).update(dict.fromkeys(reads))
        self.ends |= graph.ends
        if behind:
            order = list(behind.get("", ()))
            for name in self.order:
                order += [name, *behind.get(name, ())]
            self.order = order


def _union(graphs: Iterable[Drawn]) -> _Union:
    union = _Union()
    for graph in graphs:
        union.add(graph)
    return union


def _layers(union: _Union) -> dict[str, int]:
    """For each node the longest way to it; what waits for nothing stands just above its reader."""
    layer: dict[str, int] = {}
    floating: set[str] = set()
    for name in union.order:
        reads = [read for read in union.reads[name] if read in layer]
        layer[name] = max((layer[read] + 1 for read in reads), default=0)
        if name not in union.ends and floating.issuperset(reads):
            floating.add(name)
    lowest: dict[str, int] = {}
    for name in reversed(union.order):
        if name in floating and name in lowest:
            layer[name] = max(layer[name], lowest[name] - 1)
        for read in union.reads[name]:
            if read in layer and layer[read] < layer[name]:
                lowest[read] = min(lowest.get(read, layer[name]), layer[name])
    return layer


def _rows(union: _Union) -> int:
    return len(set(_layers(union).values()))


def _place(union: _Union) -> dict[str, tuple[int, int]]:
    members: dict[int, list[str]] = {}
    for name, number in _layers(union).items():
        members.setdefault(number, []).append(name)
    places: dict[str, tuple[int, int]] = {}
    row = 0
    for number in sorted(members):
        wanted = {name: _wanted(union.reads[name], places) for name in members[number]}
        ordered = sorted(members[number], key=lambda name: wanted[name])
        for start in range(0, len(ordered), _WIDEST):
            names = ordered[start : start + _WIDEST]
            xs = _spread([wanted[name] for name in names])
            places.update({name: (x, row) for name, x in zip(names, xs, strict=True)})
            row += 1
    return places


def _wanted(reads: Iterable[str], places: Mapping[str, tuple[int, int]]) -> float:
    """Twice the place at which a node would stand below what it reads: the nearest counts most."""
    above = [places[read] for read in reads if read in places]
    if not above:
        return 0.0
    nearest = max(row for _, row in above)
    near = [x for x, row in above if row == nearest]
    return _SWAY * sum(near) / len(near)


def _spread(wanted: Sequence[float]) -> list[int]:
    """Places at least one node apart, in order, as near as they can be to what is wanted."""
    xs: list[float] = []
    for want in wanted:
        xs.append(max(want, xs[-1] + 2) if xs else want)
    shift = sum(x - want for x, want in zip(xs, wanted, strict=True)) / len(xs)
    return [2 * round((x - shift) / 2) if len(xs) % 2 else round(x - shift) for x in xs]
