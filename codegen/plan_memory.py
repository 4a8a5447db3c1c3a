"""Shares one arena between values that are not needed at the same time.

Lifetimes run from the node that makes a value to the last node that reads it or a view of it.
Values are placed by their size at the example dims, the largest first: into the smallest slot that
is free while they live, else into a new one ("greedy by size" of Pisarchyk and Lee, "Efficient
Memory Management for Deep Neural Net Inference", 2020). A slot is as large as its largest value, as
an expression over the dims, so that the offsets of one compiled module are right for every input
size. A node's scratch memory lives for that node alone. Inputs, outputs and constants have memory
of their own.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import sympy

from graphopt.ir import Dim, Graph, Node, Value
from graphopt.ir.layout import layout_of
from graphopt.ir.printer import name_values
from graphopt.ir.symbolic import THREADS, evaluate

THREADS_HINT = 4


@dataclass(eq=False)
class Slot:
    """A part of the arena.

    Attributes:
        sizes: the distinct sizes in bytes of what lies in it; the slot is as large as the largest.
        hint_bytes: the largest at the example sizes.
        lives: first and last node of each of those, in order.
    """

    sizes: list[Dim] = field(default_factory=list)
    hint_bytes: int = 0
    lives: list[tuple[int, int]] = field(default_factory=list)

    def bytes(self, sizes: dict[sympy.Symbol, int]) -> int:
        """The size at given dims."""
        return max(evaluate(size, sizes) for size in self.sizes)

    def is_free(self, first: int, last: int) -> bool:
        """Whether nothing in it lives between two nodes, these included."""
        at = bisect(self.lives, last, key=lambda life: life[0])
        return at == 0 or self.lives[at - 1][1] < first


@dataclass(eq=False)
class MemoryPlan:
    """What lies where.

    Attributes:
        slots: parts of the arena.
        slot_of: the slot of each value and of each node's scratch.
        lives: of each of those its size in bytes, and the first and last node that need it.
        unshared_bytes: of all of them together, at the example sizes.
    """

    slots: list[Slot]
    slot_of: dict[Value | Node, int]
    lives: dict[Value | Node, tuple[Dim, tuple[int, int]]]
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
    hints = {**graph.hints(), THREADS: THREADS_HINT}
    wanted = [
        (evaluate(size, hints), life, item, size)
        for item, size, life in _items(graph, bytes_of, scratch_of)
    ]
    slots: list[Slot] = []
    slot_of: dict[Value | Node, int] = {}
    for count, life, item, size in sorted(wanted, key=lambda one: (-one[0], one[1])):
        free = [number for number, slot in enumerate(slots) if slot.is_free(*life)]
        best = min(free, key=lambda number: slots[number].hint_bytes, default=len(slots))
        if best == len(slots):
            slots.append(Slot(hint_bytes=count))
        insort(slots[best].lives, life)
        if size not in slots[best].sizes:
            slots[best].sizes.append(size)
        slot_of[item] = best
    lives = {item: (size, life) for _, life, item, size in wanted}
    return MemoryPlan(slots, slot_of, lives, sum(count for count, *_ in wanted))


def _items(
    graph: Graph, bytes_of: Callable[[Value], Dim], scratch_of: Callable[[Node], Dim]
) -> Iterator[tuple[Value | Node, Dim, tuple[int, int]]]:
    """What needs memory of the arena: its size, and the first and the last node of its life."""
    elsewhere = {*graph.inputs, *graph.outputs}
    last_read: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            last_read[layout_of(value).storage] = i
    for i, node in enumerate(graph.nodes):
        scratch = scratch_of(node)
        if scratch != 0:
            yield node, scratch, (i, i)
        for value in node.outputs:
            if layout_of(value).storage is value and value not in elsewhere:
                yield value, bytes_of(value), (i, last_read[value])


def print_memory(graph: Graph, plan: MemoryPlan) -> str:
    """Each slot: its size in bytes, the largest of what lies in it, and what that is.

    A node's scratch memory is named by the value that the node makes.
    """
    names = name_values(graph)
    inside: dict[int, list[str]] = {}
    for item, number in plan.slot_of.items():
        if isinstance(item, Value):
            text = names[item]
        else:
            text = f"scratch of {names[item.outputs[0]] if item.outputs else item.op}"
        inside.setdefault(number, []).append(text)
    lines = []
    for number, slot in enumerate(plan.slots):
        sizes = ", ".join(str(size) for size in slot.sizes)
        largest = sizes if len(slot.sizes) == 1 else f"the largest of {sizes}"
        lines.append(f"slot{number}: {largest} bytes: {', '.join(inside[number])}")
    return "\n".join(lines) + "\n"
