"""Chooses how each convolution is cut into tasks for the cores.

Of all cuts of output positions (or Winograd's tiles) and output channels the one is taken that the
cost model (support/conv_cuts.py) says ends soonest, which the reason prints. Depthwise convolutions
along time tile time and channels inside of their kernel (kernels/common/depthwise.c).
"""

from __future__ import annotations

from math import prod

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Conv, Depthwise
from graphopt.ir.symbolic import evaluate, product
from graphopt.passes.base import Pass
from graphopt.passes.support.conv_cuts import Work, best_cut, largest_cut, winograd_work
from graphopt.target import Target


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
                shape = tuple(evaluate(extent, sizes) for extent in node.output.shape)
                self._decide(node, work_of(node, shape[0], shape[2:]))
                modified = True
        return modified

    def _leave_whole(self, graph: Graph) -> bool:
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, Conv | Depthwise):
                node.op.serial = modified = True
                if isinstance(node.op, Conv):
                    whole = largest_cut(work_of(node, 1, (1, 1)))
                    node.op.tile_rows, node.op.tile_cols = whole.rows, whole.columns
                node.decide(self.name, "one task, as GRAPHOPT_SERIAL_CONV asks")
        return modified

    def _decide(self, node: Node, work: Work) -> None:
        best = best_cut(work, self._cores)
        op = node.as_op(Conv)
        op.tile_rows, op.tile_cols = best.rows, best.columns
        unit = "tiles" if op.winograd else "positions"
        node.decide(
            self.name,
            f"{best.tasks} tasks of {best.rows} {unit} x {best.columns} channels x {work.depth} "
            f"values for {self._cores} cores, balance {best.balance(self._cores):.2f} at the "
            f"example size ({work.positions} {unit}, {work.groups} groups)",
        )


def work_of(node: Node, batch: int, size: tuple[int, ...]) -> Work:
    """The sizes of a convolution; a depthwise one is one group without channels in common.

    Args:
        node: has a `go.conv`.
        batch: images.
        size: (height and) width of the result.
    """
    weight, op = node.operands["weight"].shape, node.as_op(Conv)
    outer, inner, taps = (
        evaluate(product(part), {}) for part in (weight[:1], weight[1:2], weight[2:])
    )
    if op.winograd:
        return winograd_work(batch, size, inner, outer)
    positions, depth = batch * prod(size), inner * taps
    if _is_depthwise(node):
        return Work(positions, 1, outer, depth)
    return Work(positions, op.groups, outer // op.groups, depth)


def _is_depthwise(node: Node) -> bool:
    groups = node.as_op(Conv).groups
    return groups == node.operands["x"].shape[1] == node.output.shape[1]
