"""Shares one arena between values that are not needed at the same time.

Lifetimes run from the node that makes a value to the last node that reads it or a view of it.
Values are placed in the order in which they appear: into the free slot whose size fits best, else
into a new one. A slot is as large as its largest value, as an expression over the dims, so that the
offsets of one compiled module are right for every input size. A node's scratch memory lives for
that node alone. Inputs, outputs and constants have memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import sympy

from graphopt.ir import Dim, Graph, Node, Value
from graphopt.layout import layout_of
from graphopt.symbolic import THREADS, evaluate

_THREADS_HINT = 4


@dataclass(eq=False)
class Slot:
    """A part of the arena.

    Attributes:
        values: what lies in it, one after the other in time.
        sizes: the distinct sizes of those in bytes; the slot is as large as the largest.
        hint_bytes: the largest at the example sizes.
    """

    values: list[Value | Node] = field(default_factory=list)
    sizes: list[Dim] = field(default_factory=list)
    hint_bytes: int = 0

    def bytes(self, sizes: dict[sympy.Symbol, int]) -> int:
        """The size at given dims."""
        return max(evaluate(size, sizes) for size in self.sizes)


@dataclass(eq=False)
class MemoryPlan:
    """Slots, and the slot of each value and of each node's scratch."""

    slots: list[Slot]
    slot_of: dict[Value | Node, int]
    unshared_bytes: int

    def bytes(self, sizes: dict[sympy.Symbol, int]) -> int:
        """Bytes of the arena at given dims and threads."""
        return sum(slot.bytes(sizes) for slot in self.slots)


def plan_memory(
    graph: Graph, bytes_of: Callable[[Value], Dim], scratch_of: Callable[[Node], Dim]
) -> MemoryPlan:
    """Plans the arena of a graph whose layouts are assigned.

    Args:
        graph: the graph.
        bytes_of: size of a value that owns memory.
        scratch_of: size of the scratch memory of a node; 0 for none.
    """
    hints = {**graph.hints(), THREADS: _THREADS_HINT}
    elsewhere = {*graph.inputs, *graph.outputs}
    last_read: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            last_read[layout_of(value).storage] = i
    slots: list[Slot] = []
    slot_of: dict[Value | Node, int] = {}
    free: set[int] = set()
    expiring: dict[int, list[int]] = {}
    total = 0

    def place(item: Value | Node, size: Dim, until: int) -> None:
        nonlocal total
        wanted = evaluate(size, hints)
        total += wanted
        best = min(free, key=lambda s: (abs(slots[s].hint_bytes - wanted), s), default=None)
        if best is None:
            slots.append(Slot())
            best = len(slots) - 1
        free.discard(best)
        slot = slots[best]
        slot.values.append(item)
        slot.hint_bytes = max(slot.hint_bytes, wanted)
        if size not in slot.sizes:
            slot.sizes.append(size)
        slot_of[item] = best
        expiring.setdefault(until, []).append(best)

    for i, node in enumerate(graph.nodes):
        scratch = scratch_of(node)
        if scratch != 0:
            place(node, scratch, i)
        for value in node.outputs:
            if layout_of(value).storage is value and value not in elsewhere:
                place(value, bytes_of(value), last_read[value])
        free.update(expiring.pop(i, []))
    return MemoryPlan(slots, slot_of, total)
