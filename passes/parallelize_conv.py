"""Chooses how each convolution is cut into tasks for the cores.

A convolution offers its output positions (batch, rows, columns), its output channels and its groups
as parallel axes. A task is at most `tile_rows` positions of `tile_cols` channels of a group. Of all
cuts the one is taken that the cost model says ends soonest, which the reason prints. In
multiply-adds, for r positions, c channels and k = taps x input channels of a group:

    task    = r x (c + COPY) x k + STREAM x c x k + START
    ends    = ceil(tasks / cores) x task + CLAIM x tasks
    balance = MACs of the convolution / (cores x MACs of the core that is busy to the end)

COPY is what gathering a value of a window costs, once for all channels of a task: so few channels
make more of it. STREAM is what a weight costs that comes from a far cache, once for all positions
of a task: so few positions make more of it. CLAIM is how long a core that takes a task keeps
others from taking one. r x k is bounded so that windows stay in a core's
second cache. Positions come in halves of the kernel's tallest tile, channels in whole vectors.
Depthwise convolutions along time tile time and channels inside of their kernel
(kernels/common/depthwise.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Conv, Depthwise
from graphopt.ir.symbolic import evaluate, product
from graphopt.passes.base import Pass
from graphopt.target import Target

_LARGEST_TILE = 256
_COPY, _STREAM, _START, _CLAIM = 2, 8, 8 << 10, 2 << 10
_WINDOW_VALUES = 128 << 10  # of a task, half a MiB
#: UNIT of common/conv.c, and the rows that a task may have in any case: those of a band share
#: what is read of weights.
_ROWS, _FEW_ROWS = 6, 60
_COLUMNS, _VECTOR = 32, 16  # of the widest tile, and of a vector
_ROUNDS = 4  # tasks of a core that are tried, at most


@dataclass(frozen=True)
class Work:
    """Sizes of a convolution: positions, groups, and of a group channels and values of a window."""

    positions: int
    groups: int
    channels: int
    depth: int

    @property
    def macs(self) -> int:
        """All multiply-adds."""
        return self.positions * self.groups * self.channels * self.depth


@dataclass(frozen=True)
class Cut:
    """Tasks of at most `rows` positions and `columns` channels."""

    work: Work
    rows: int
    columns: int

    @property
    def tasks(self) -> int:
        """Their number."""
        work = self.work
        pieces = _ceil(work.positions, self.rows) * _ceil(work.channels, self.columns)
        return max(1, work.groups * pieces)

    @property
    def largest(self) -> tuple[int, int]:
        """Positions and channels of the largest task."""
        channels = _round_up(self.work.channels, _VECTOR)
        return min(self.rows, self.work.positions), min(self.columns, channels)

    def cost(self, cores: int) -> int:
        """Until the last core is done."""
        (rows, columns), k = self.largest, self.work.depth
        task = rows * (columns + _COPY) * k + _STREAM * columns * k + _START
        return _ceil(self.tasks, cores) * task + _CLAIM * self.tasks

    def balance(self, cores: int) -> float:
        """Share of the cores' time that is work of the convolution."""
        rows, columns = self.largest
        busy = _ceil(self.tasks, cores) * rows * columns * self.work.depth
        return self.work.macs / (cores * max(1, busy))


class ParallelizeConv(Pass):
    """See the module.

    Args:
        target: says how many cores to balance for.
        serial: leave every convolution to one thread, to measure what cutting it gives.
    """

    def __init__(self, target: Target, serial: bool = False) -> None:
        self._cores = target.cores
        self._serial = serial

    def run(self, graph: Graph) -> bool:
        """Decides for every convolution."""
        if self._serial:
            return self._leave_whole(graph)
        sizes = graph.hints()
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, Conv) and not node.op.tile_rows:
                out = node.output
                positions = evaluate(product((out.shape[0], *out.shape[2:])), sizes)
                self._decide(node, _work(node, positions))
                modified = True
        return modified

    def _leave_whole(self, graph: Graph) -> bool:
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, Conv | Depthwise):
                node.op.serial = modified = True
                if isinstance(node.op, Conv):
                    node.op.tile_rows = _LARGEST_TILE
                    node.op.tile_cols = _round_up(_work(node, 1).channels, _COLUMNS)
                node.decide(self.name, "one task, as GRAPHOPT_SERIAL_CONV asks")
        return modified

    def _decide(self, node: Node, work: Work) -> None:
        best = best_cut(work, self._cores)
        op = node.as_op(Conv)
        op.tile_rows, op.tile_cols = best.rows, best.columns
        node.decide(
            self.name,
            f"{best.tasks} tasks of {best.rows} positions x {best.columns} channels x {work.depth} "
            f"values for {self._cores} cores, balance {best.balance(self._cores):.2f} at the "
            f"example size ({work.positions} positions, {work.groups} groups)",
        )


def best_cut(work: Work, cores: int) -> Cut:
    """The cut that ends soonest by the cost model."""
    return min(_cuts(work, cores), key=lambda cut: (cut.cost(cores), cut.tasks))


def _work(node: Node, positions: int) -> Work:
    """The sizes of a convolution; a depthwise one is one group without channels in common."""
    weight, groups = node.operands["weight"].shape, node.as_op(Conv).groups
    outer, depth = evaluate(weight[0], {}), evaluate(product(weight[1:]), {})
    if _is_depthwise(node):
        return Work(positions, 1, outer, depth)
    return Work(positions, groups, outer // groups, depth)


def _is_depthwise(node: Node) -> bool:
    groups = node.as_op(Conv).groups
    return groups == node.operands["x"].shape[1] == node.output.shape[1]


def _cuts(work: Work, cores: int) -> Iterator[Cut]:
    """What is tried: rows as equal as whole tiles allow, for some numbers of tasks."""
    units = max(1, _ceil(work.positions, _ROWS))  # an example may be empty
    most = max(_FEW_ROWS, min(_LARGEST_TILE, _WINDOW_VALUES // work.depth)) // _ROWS
    least = _ceil(units, most)
    vectors = _ceil(work.channels, _COLUMNS)
    for columns in sorted({_ceil(vectors, pieces) for pieces in range(1, vectors + 1)}):
        for lines in range(least, max(least, min(units, _ROUNDS * cores)) + 1):
            yield Cut(work, _ceil(units, lines) * _ROWS, columns * _COLUMNS)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _round_up(a: int, unit: int) -> int:
    return _ceil(a, unit) * unit
