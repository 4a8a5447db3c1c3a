"""What the passes that choose the format of a product have in common."""

from __future__ import annotations

import numpy as np

from graphopt.errors import WeightError
from graphopt.ir import Node, Value
from graphopt.ir.op import Op

#: Depths and widths below this are left in floating point: quantizing costs more than it saves.
SMALLEST = 16


def require_finite(weight: Value) -> None:
    """Refuses a weight that is no constant, or holds NaN or infinity.

    Raises:
        WeightError: naming the weight.
    """
    if weight.data is None or not np.isfinite(weight.data).all():
        raise WeightError(weight.name)


class PackedRows:
    """Packed left operands: made once for all products that read the same value.

    Args:
        op: packs rows.
    """

    def __init__(self, op: Op) -> None:
        self._op = op
        self._made: dict[Value, Value] = {}

    def give(self, node: Node, nodes: list[Node]) -> None:
        """Lets a linear read its rows packed; the first time, the packing joins `nodes`."""
        x = node.operands["x"]
        if x not in self._made:
            nodes.append(Node.of(self._op, x, origin=node.origin))
            self._made[x] = nodes[-1].output
        node.operands["x"] = self._made[x]
