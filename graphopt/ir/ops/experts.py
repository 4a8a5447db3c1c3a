"""The product of a mixture of experts: each row by the matrix of its expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import InputValueError
from graphopt.ir.graph import Node, Value
from graphopt.ir.op import F32_ONLY, Array, Op, Operand, Operands, Sizes, Strides
from graphopt.kernels.formats import F32

if TYPE_CHECKING:
    from graphopt.ir.cost import Call

#: What a run says of ends that do not ascend to the number of rows.
UNSORTED = "the rows of an expert end outside of those that are left"


@dataclass
class GroupedMatmul(Op):
    """Rows of x [m, k] times weight [e, n, k] transposed: rows up to `ends[0]` by the first matrix.

    Rows behind the last end are 0. An end that is before the one in front of it, or behind the
    last row, fails the run.
    """

    NAME = "go.grouped_matmul"
    OPERANDS = (
        Operand("x", Strides.ROWS, dtypes=F32_ONLY),
        Operand("weight", dtypes=F32_ONLY),
        Operand("ends", Strides.DENSE, dtypes=frozenset({DType.I32, DType.I64})),
    )
    KERNEL = "go_gemm_f32"

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.F32, (given["x"].shape[0], given["weight"].shape[1]))]

    def problem(self, node: Node) -> str | None:
        x, weight, ends = (node.operands[name] for name in ("x", "weight", "ends"))
        if weight.rank != 3 or not weight.is_constant:
            return "its weight is no constant matrix for each expert"
        if x.rank != 2 or x.shape[1] != weight.shape[2]:
            return f"rows of {x.shape} beside a weight of {weight.shape}"
        if ends.shape != weight.shape[:1]:
            return f"ends {ends.shape} of a weight {weight.shape}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x, weight = given["x"], given["weight"]
        y = np.zeros((len(x), weight.shape[1]), np.float32)
        begin = 0
        for matrix, end in zip(weight, given["ends"].tolist(), strict=True):
            if not begin <= end <= len(x):
                raise InputValueError(UNSORTED, len(x), end)
            y[begin:end] = x[begin:end] @ matrix.T
            begin = end
        return [y]

    def macs(self, node: Node, call: Call) -> int:
        return call.size(*node.output.shape, node.operands["weight"].shape[2])

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        if name != "weight":
            return super().operand_bytes(node, name, call)
        experts, n, k = node.operands["weight"].shape
        return int(experts) * F32.packed_bytes(call.arch, n, k)
