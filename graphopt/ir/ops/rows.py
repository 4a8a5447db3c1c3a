"""Ops that work on rows: norms, softmax, and packing for a product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.dtype import DType
from graphopt.ir.graph import Node, Value
from graphopt.ir.numbers import QUANTIZED, quantize_rows
from graphopt.ir.op import F32_ONLY, F32_OR_BF16, Array, Op, Operand, Operands, Sizes, Strides
from graphopt.ir.ops.contractions import doubled

_ROWS = Operand("x", Strides.ROWS, bf16=True, dtypes=F32_OR_BF16)


@dataclass
class QuantizeRows(Op):
    """Rows in int8, with a scale and a zero point each, packed for a product."""

    NAME = "go.quantize_rows"
    OPERANDS = (_ROWS,)
    KERNEL = "go_quantize_rows"

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.I8, given["x"].shape, packed=QUANTIZED)]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [quantize_rows(given["x"])]


@dataclass
class PackRows(Op):
    """Rows in bf16, packed for a product."""

    NAME = "go.pack_rows"
    OPERANDS = (_ROWS,)
    KERNEL = "go_pack_bf16"

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.BF16, given["x"].shape, packed="bf16")]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [given["x"]]


@dataclass
class SplitRows(Op):
    """Each row of x [.., k], and what quantizing it leaves over: [.., 2, k]."""

    NAME = "go.split_rows"
    OPERANDS = (Operand("x", Strides.ROWS, dtypes=F32_ONLY),)
    KERNEL = "go_split"

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.F32, doubled(given["x"].shape))]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x = given["x"]
        return [np.stack([x, x - quantize_rows(x)], -2)]


@dataclass
class Norm(Op):
    """Layer norm of rows, or with `rms` their division by the root of the mean square.

    Attributes:
        eps: added to the variance.
        rms: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
        writes: its outputs: `dst`, the rows, or `packed`, the rows quantized, or both.
    """

    eps: float
    rms: bool
    writes: tuple[str, ...] = ("dst",)

    NAME = "go.norm"
    OPERANDS = (
        _ROWS,
        Operand("weight", optional=True, dtypes=F32_ONLY),
        Operand("bias", optional=True, dtypes=F32_ONLY),
    )
    KERNEL = "go_norm"
    STORES_BF16 = True
    PACKS = frozenset({QUANTIZED})

    def results(self, given: Operands) -> list[Value]:
        shape = given["x"].shape
        made = {
            "dst": Value(DType.F32, shape),
            "packed": Value(DType.I8, shape, packed=QUANTIZED),
        }
        return [made[written] for written in self.writes]

    def problem(self, node: Node) -> str | None:
        x = node.operands["x"]
        for role in ("weight", "bias"):
            value = node.operands.get(role)
            if value is not None and value.shape != x.shape[-1:]:
                return f"a {role} of {value.shape} for rows of {x.shape[-1:]}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x = given["x"]
        if not self.rms:
            x = x - x.mean(-1, keepdims=True)
        y: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.eps))
        if "weight" in given:
            y = y * given["weight"]
        if "bias" in given:
            y = y + given["bias"]
        return [quantize_rows(y) if value.packed else y for value in node.outputs]


@dataclass
class Softmax(Op):
    """Softmax of rows, or its logarithm."""

    log: bool

    NAME = "go.softmax"
    OPERANDS = (_ROWS,)
    KERNEL = "go_softmax"

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.F32, given["x"].shape)]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x = given["x"]
        with np.errstate(invalid="ignore"):
            shifted = x - x.max(-1, keepdims=True, initial=-np.inf)
            total = np.exp(shifted).sum(-1, keepdims=True)
            return [shifted - np.log(total) if self.log else np.exp(shifted) / total]


#: What packs rows, by how they are packed (kernels/formats.py); None for rows that are not.
PACKING: dict[str, type[QuantizeRows | PackRows] | None] = {
    "": None,
    "bf16": PackRows,
    "qa8r": QuantizeRows,
}
