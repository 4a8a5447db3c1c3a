"""What a node costs in a call: bytes that it moves, bytes out of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy

from graphopt.ir import Dim, Node, Value
from graphopt.ir.symbolic import evaluate, product
from graphopt.kernels import layouts
from graphopt.kernels.formats import ROWS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Call:
    """What is known of one call of a graph.

    Attributes:
        sizes: of every dim.
        arch: whose layouts packed operands have.
        numbers: contents of inputs that say how much of a state is in use: `past` and `start` of
            a cache, i64 [sequences] (graphopt/llm/decoder/graph.py).
    """

    sizes: Mapping[sympy.Symbol, int]
    arch: str
    numbers: Mapping[Value, Array] = field(default_factory=dict)

    def keys(self, node: Node) -> Array:
        """Rows of the cache that each sequence's last token sees, of a `go.cached_attention`."""
        past, start = (self.numbers[node.operands[role]] for role in ("past", "start"))
        tokens = evaluate(node.operands["q"].shape[1], self.sizes)
        keys: Array = np.asarray(past) + tokens - np.asarray(start)
        return keys

    def size(self, *extents: Dim) -> int:
        """Product of some extents."""
        return evaluate(product(extents), self.sizes)

    def stored_bytes(self, value: Value) -> int:
        """Bytes of a whole value; of packed rows those that there are, not of a whole panel."""
        if not value.packed:
            return self.size(*value.shape) * value.dtype.itemsize
        rule = ROWS[value.packed].layout(self.arch)
        panel = layouts.packed_lhs_bytes(rule, rule.mr, self.size(value.shape[-1]))
        return self.size(*value.shape[:-1]) * int(panel) // rule.mr


def moved_bytes(node: Node, call: Call) -> int:
    """Bytes of operands and results, each once, as they are stored (packed, quantized).

    Of a table the rows that are looked up count, of a cache those that are read or written.
    """
    given = sum(node.op.operand_bytes(node, role, call) for role in node.operands)
    return given + sum(call.stored_bytes(v) for v in node.outputs)


def memory_bytes(node: Node, call: Call) -> int:
    """Bytes that no cache of a CPU holds from one call to the next.

    These are constants, packed as kernels read them, and cached keys and values.
    """
    lasting = [
        role
        for role, value in node.operands.items()
        if value.is_constant or (value.is_state and role not in node.op.WRITES)
    ]
    return sum(node.op.operand_bytes(node, role, call) for role in lasting)
