"""What the passes that choose the format of a product have in common."""

from __future__ import annotations

import numpy as np

from graphopt.errors import WeightError
from graphopt.ir import DType, Node, Value
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


def came_in_blocks(node: Node) -> bool:
    """Whether the weights of a linear came quantized, with a bf16 scale per block."""
    scale = node.operands.get("scale")
    return scale is not None and scale.dtype is DType.BF16


def block_length(node: Node) -> int:
    """Weights of a linear along its depth that share a scale; 0 for a scale per channel."""
    depth, scale = node.operands["weight"].shape[1], node.operands["scale"]
    assert isinstance(depth, int)
    if scale.rank == 1:
        return 0
    blocks = scale.shape[1]
    assert isinstance(blocks, int)
    return depth // blocks


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
