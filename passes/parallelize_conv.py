"""Chooses how each convolution is cut into tasks for the cores.

A convolution offers its output positions (batch, rows, columns) and groups as parallel axes. One
task is `tile_rows` positions: few enough that every core gets several (balance), enough that
gathering the input and starting a task stay small beside the arithmetic. The cost model, which the
reason prints:

    tasks   = groups x ceil(positions / tile_rows)
    balance = tasks / (cores x ceil(tasks / cores))
    work    = tile_rows x MACs per position of a group

tile_rows is the largest power of two, from 256 down, whose work is at least 16 Ki MACs and whose
balance at the example size is at least 0.9; if none is balanced, the best balanced.
Depthwise convolution along time tiles time and channels inside its kernel
(kernels/common/depthwise.c).
"""

from __future__ import annotations

from graphopt.ir import Graph, Node
from graphopt.ir.ops import Conv, Depthwise
from graphopt.ir.symbolic import evaluate, product
from graphopt.passes.base import Pass
from graphopt.target import Target

_LARGEST_TILE = 256
_SMALLEST_TILE = 8
_LEAST_WORK = 16 << 10
_BALANCED = 0.9


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
                weight, out, groups = node.operands["weight"], node.output, node.op.groups
                positions = evaluate(product((out.shape[0], *out.shape[2:])), sizes)
                macs = evaluate(product(weight.shape), {}) // groups
                self._decide(node, positions, groups, macs)
                modified = True
        return modified

    def _leave_whole(self, graph: Graph) -> bool:
        modified = False
        for node in graph.nodes:
            if isinstance(node.op, Conv | Depthwise):
                node.op.serial = modified = True
                if isinstance(node.op, Conv):
                    node.op.tile_rows = _LARGEST_TILE
                node.decide(self.name, "one task, as GRAPHOPT_SERIAL_CONV asks")
        return modified

    def _decide(self, node: Node, positions: int, groups: int, macs: int) -> None:
        best: tuple[float, int, int] | None = None
        tile = _LARGEST_TILE
        while tile >= _SMALLEST_TILE and (best is None or tile * macs >= _LEAST_WORK):
            tasks = groups * max(1, -(-positions // tile))  # an example may be empty
            balance = tasks / (self._cores * -(-tasks // self._cores))
            if best is None or balance > best[0]:
                best = (balance, tile, tasks)
            if balance >= _BALANCED:
                break
            tile //= 2
        assert best is not None
        balance, tile, tasks = best
        node.as_op(Conv).tile_rows = tile
        node.decide(
            self.name,
            f"{tasks} tasks of {tile} positions x {macs} MACs for {self._cores} cores, "
            f"balance {balance:.2f} at the example size ({positions} positions, {groups} groups)",
        )
