"""How packed GEMM operands lie in memory, and how much of it they take.

All levels of one architecture share their layouts, so weights are packed once per
architecture. formats.py has the layouts of each format, packing.py says what the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """Packed operands of the GEMMs of one format.

    ``mr`` rows (LHS) or ``nr`` columns (RHS) make a panel; along k, ``kr``
    consecutive values of one row or column lie together; k is zero padded to a
    multiple of ``k_multiple``. ``biased``: RHS int8 is stored as q + 128 and int4 as
    q + 8, and the tails of their panels are those of packing.py for such a layout.

    Attributes:
        mr: rows of a panel.
        nr: columns of a panel.
        kr: adjacent values along k.
        k_multiple: k is padded to one.
        bits: of a value of the RHS; of the LHS too, where there is one.
        tail: bytes behind each column of a panel.
        row_tail: bytes behind each row of a panel.
        block_tail: bytes behind each block of each column; such panels are rounded up to 64 bytes.
        biased: see above.
    """

    mr: int
    nr: int
    kr: int
    k_multiple: int
    bits: int
    tail: int = 0
    row_tail: int = 0
    block_tail: int = 0
    biased: bool = False

    def scale_places(self) -> list[int]:
        """Where among the nr scales of a block of "qs4b" that of each column lies (packing.py)."""
        if self.biased:
            return list(range(self.nr))
        half = self.nr // 2
        return [column % half * 2 + column // half for column in range(self.nr)]

    @property
    def step(self) -> int:
        """Values along k that lie between a value of a column and the start of the next column."""
        return self.kr * max(8 // self.bits, 1)


def ceil_div(a: Any, b: int) -> Any:
    """Ceiling of a / b, for integers and for sympy expressions."""
    return (a + (b - 1)) // b


def packed_lhs_bytes(
    rule: Layout, m: Any, k: Any, ceil_div: Callable[[Any, int], Any] = ceil_div
) -> Any:
    """Bytes of a packed LHS; see packing.py.

    Args:
        rule: layout of bf16 or int8.
        m: rows, an int or an expression.
        k: depth, likewise.
        ceil_div: ceiling division that understands ``m`` and ``k``.

    Raises:
        ValueError: for f32, whose GEMM reads its rows unpacked.
    """
    if rule.bits == 32:
        raise ValueError("the f32 GEMM takes its left operand unpacked")
    rows = m if rule.mr == 1 else ceil_div(m, rule.mr) * rule.mr
    depth = ceil_div(k, rule.k_multiple) * rule.k_multiple
    return rows * (depth * (rule.bits // 8) + rule.row_tail)


def packed_rhs_bytes(
    rule: Layout,
    n: Any,
    k: Any,
    ceil_div: Callable[[Any, int], Any] = ceil_div,
    group: int = 0,
) -> Any:
    """Bytes of a packed RHS, in whole panels; see packing.py.

    Args:
        rule: its layout.
        n: columns, an int or an expression.
        k: depth, likewise.
        ceil_div: ceiling division that understands ``n`` and ``k``.
        group: length of blocks, which must divide ``k``; read where blocks have tails.
    """
    panels = ceil_div(n, rule.nr)
    depth = ceil_div(k, rule.k_multiple) * rule.k_multiple
    values = ceil_div(depth, 8 // rule.bits) if rule.bits < 8 else depth * (rule.bits // 8)
    if not rule.block_tail:
        return panels * rule.nr * (values + rule.tail)
    column = values + rule.block_tail * ceil_div(k, group) + rule.tail
    return panels * ceil_div(rule.nr * column, 64) * 64
