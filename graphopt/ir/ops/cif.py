"""Continuous integrate-and-fire, which finds the number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.dtype import DType
from graphopt.ir.graph import Node, Value
from graphopt.ir.op import F32_ONLY, Array, Op, Operand, Operands, Sizes, Strides
from graphopt.ir.symbolic import found_symbol
from graphopt.kernels import reference_ops
from graphopt.kernels.arguments import CIF_COUNTS, CIF_RULES


@dataclass
class Cif(Op):
    """Frames [batch, time, channels] summed up to tokens by their weights [batch, time].

    Dong and Xu 2020, "CIF: Continuous Integrate-and-Fire for End-to-End Speech Recognition".

    Attributes:
        threshold: of the sum of weights, at which a token ends.
        rule: how FunASR's predictors differ at the end; see `kernels/reference_ops.py`.
        count: how tokens are counted.
        dim: name of the dim of tokens, which it computes.

    It makes tokens [batch, dim, channels], the weight reached after each frame [batch, time], and
    the tokens of each sequence i32 [batch].
    """

    threshold: float
    rule: str
    count: str
    dim: str

    NAME = "go.cif"
    OPERANDS = (
        Operand("hidden", Strides.DENSE_LAST, dtypes=F32_ONLY),
        Operand("alphas", dtypes=F32_ONLY),
    )
    KERNEL = "go_cif"

    @property
    def computes(self) -> str:
        """The dim of tokens."""
        return self.dim

    def results(self, given: Operands) -> list[Value]:
        batch, time, channels = given["hidden"].shape
        return [
            Value(DType.F32, (batch, found_symbol(self.dim), channels)),
            Value(DType.F32, (batch, time)),
            Value(DType.I32, (batch,)),
        ]

    def problem(self, node: Node) -> str | None:
        if self.rule not in CIF_RULES or self.count not in CIF_COUNTS:
            return f"no rule {self.rule} with count {self.count}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        hidden, alphas = given["hidden"], given["alphas"]
        return list(reference_ops.cif(hidden, alphas, self.threshold, self.rule, self.count))
