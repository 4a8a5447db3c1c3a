"""What the passes that choose the scheme of a product have in common."""

from __future__ import annotations

import numpy as np

from graphopt.errors import WeightError
from graphopt.ir import DType, Node, Value

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
    """Packed left operands: made by `op` once for all products that read the same value."""

    def __init__(self, op: str, dtype: DType, packed: str) -> None:
        self._op, self._dtype, self._packed = op, dtype, packed
        self._made: dict[Value, Value] = {}

    def give(self, node: Node, nodes: list[Node]) -> None:
        """Lets `node` read its first input packed; the first time, the packing joins `nodes`."""
        x = node.inputs[0]
        if x not in self._made:
            self._made[x] = Value(self._dtype, x.shape, packed=self._packed)
            nodes.append(Node(self._op, [x], [self._made[x]], {}, node.origin))
        node.inputs[0] = self._made[x]


def quantized_rows() -> PackedRows:
    """Rows in int8 with a scale and a zero point each."""
    return PackedRows("go.quantize_rows", DType.I8, "qa8r")
