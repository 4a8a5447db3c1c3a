"""What every op says of itself: operands, attributes, results, effects, meaning and cost.

An op is a dataclass: its fields are the attributes of a node, its class attributes and methods what
holds of every node that has it. The ops are in `graphopt/ir/ops`; codegen has an emitter for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy

from graphopt.dtype import DType
from graphopt.kernels.formats import Format

if TYPE_CHECKING:
    from graphopt.ir.cost import Call
    from graphopt.ir.graph import Node, Value

Array = np.ndarray[Any, Any]
Sizes = Mapping[sympy.Symbol, int]
Operands = Mapping[str, "Value"]


class Strides(Enum):
    """How a kernel can read an operand."""

    ANY = auto()
    ROWS = auto()
    """All axes but the last count through rows at equal distance."""
    DENSE_LAST = auto()
    """The last axis has no gaps."""
    DENSE = auto()
    CHANNELS = auto()
    """The axis of channels, 1, has no gaps."""
    CHANNELS_INNERMOST = auto()
    """Rows of channels, axis 1, at equal distance, in the order of the other axes."""


#: What most operands that are numbers of a product or a row may be.
F32_ONLY = frozenset({DType.F32})
F32_OR_BF16 = frozenset({DType.F32, DType.BF16})


@dataclass(frozen=True)
class Operand:
    """An input of an op.

    Attributes:
        name: its role.
        strides: what its kernel can read.
        optional: whether a node may lack it.
        bf16: whether a kernel reads it in bf16 where it is f32 by rights.
        dtypes: element types that it may have; empty for any.
    """

    name: str
    strides: Strides = Strides.ANY
    optional: bool = False
    bf16: bool = False
    dtypes: frozenset[DType] = frozenset()


#: Metadata of attributes that dumps leave out: the type of the result shows them, or nobody reads
#: them.
HIDDEN = {"hidden": True}


@dataclass
class Op:
    """An operation; see the module.

    Attributes:
        NAME: `go.<name>`.
        OPERANDS: in order.
        REST: what every operand is, of an op that takes any number: they are named `x0`, `x1`, ...
        KERNEL: generic name of the kernel, `loop` for a generated loop, `view` for no code.
        WRITES: operands that are states and written to.
        STORES_BF16: whether its kernel can store an f32 result as bf16.
        PACKS: how its kernel can pack rows for a product, in place of storing them.
    """

    NAME: ClassVar[str] = ""
    OPERANDS: ClassVar[tuple[Operand, ...]] = ()
    REST: ClassVar[Operand | None] = None
    KERNEL: ClassVar[str] = "loop"
    WRITES: ClassVar[frozenset[str]] = frozenset()
    STORES_BF16: ClassVar[bool] = False
    PACKS: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """`go.<name>`, or `aten.<name>` of what torch runs."""
        return self.NAME

    def __str__(self) -> str:
        return self.name

    @property
    def is_view(self) -> bool:
        """Whether the result is memory of the operand, read in another way."""
        return self.KERNEL == "view"

    @property
    def is_check(self) -> bool:
        """Whether a node must run although nobody reads what it makes."""
        return False

    @property
    def decided(self) -> Format | None:
        """The format of its weights; None for an op without, or that reads them as they are."""
        return None

    @property
    def computes(self) -> str:
        """Name of the dim whose size a node finds while it runs; empty for none."""
        return ""

    @classmethod
    def operand(cls, name: str) -> Operand | None:
        """What the op says of an operand; None if it has none of that name."""
        if cls.REST is not None:
            return cls.REST if name[:1] == "x" and name[1:].isdecimal() else None
        return next((o for o in cls.OPERANDS if o.name == name), None)

    def results(self, given: Operands) -> list[Value]:
        """Values of the types and shapes that a node makes of some operands."""
        raise NotImplementedError(f"{self.name} says nothing of its results")

    def problem(self, node: Node) -> str | None:
        """What is wrong with operands and attributes that fit by type; None for nothing."""
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        """What the outputs are, in numpy.

        Floats are computed in f32 without any promise about rounding order; the promises are those
        of the kernels. Quantized rows (`qa8r`) are held as the f32 numbers that they stand for.

        Args:
            node: has this op.
            given: its operands by role, bf16 widened to f32; a state that it writes to is
                changed in place.
            sizes: of the dims that shapes and attributes name.
        """
        raise NotImplementedError(f"numpy does not run {self.name}")

    def macs(self, node: Node, call: Call) -> int:
        """Multiply-adds of products; hidden keys do not count."""
        return 0

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        """Bytes that are read of an operand, or written if it is a state that is written to.

        Args:
            node: has this op.
            name: role of the operand.
            call: sizes of its dims, and whose layouts packed operands have.
        """
        return call.stored_bytes(node.operands[name])

    def kernel(self, node: Node) -> str:
        """Generic name of the kernel that runs a node."""
        return self.KERNEL
