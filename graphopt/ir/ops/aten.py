"""What torch runs, until a rule lowers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphopt.ir.graph import Dim
from graphopt.ir.op import HIDDEN, Op, Operand


@dataclass
class Aten(Op):
    """An operator of torch.

    Attributes:
        target: `aten.<name>`, or another namespace.
        arguments: by name of the schema; tensors as `Ref`s into the operands.
        overload: `<namespace>.<name>.<overload>`.
        schema: of the overload, without marks of aliasing.
        size: of a number read from a tensor, the size that the model equates it with.
        dim: name of the dim that it computes; empty for none. A number that becomes a size makes
            the numbers below it, i64[dim], of which later parts learn it.
        bound: the largest that such a number can be, over dims of the inputs; None if nothing
            says it.
        is_cut: whether a larger one is as good as the bound.
    """

    target: str
    arguments: dict[str, Any]
    overload: str = field(metadata=HIDDEN, default="")
    schema: str = field(metadata=HIDDEN, default="")
    size: Dim | None = None
    dim: str = ""
    bound: Dim | None = None
    is_cut: bool = False

    REST = Operand("")
    KERNEL = "torch"

    @property
    def name(self) -> str:
        """`aten.<name>`."""
        return self.target

    @property
    def computes(self) -> str:
        """Name of the dim that it computes."""
        return self.dim

    @property
    def is_check(self) -> bool:
        """Whether it reads a number that the model equates with a size."""
        return self.size is not None
