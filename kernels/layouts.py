"""How packed GEMM operands lie in memory, and how much of it they take.

All levels of one architecture share their layouts, so weights are packed once per
architecture. packing.py says what the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """Packed operands of one GEMM scheme.

    ``mr`` rows (LHS) or ``nr`` columns (RHS) make a panel; along k, ``kr``
    consecutive values of one row or column lie together; k is zero padded to a
    multiple of ``k_multiple``. ``biased``: RHS int8 is stored as q + 128 and int4 as
    q + 8, and the tails of their panels are those of packing.py for such a layout. The
    int4 schemes take the packed LHS of "qa8".
    """

    scheme: str
    mr: int
    nr: int
    kr: int
    k_multiple: int
    biased: bool = False

    def scale_places(self) -> list[int]:
        """Where among the nr scales of a block of "qs4b" that of each column lies (packing.py)."""
        if self.biased:
            return list(range(self.nr))
        half = self.nr // 2
        return [column % half * 2 + column // half for column in range(self.nr)]


_ROWS: dict[str, tuple[Layout, ...]] = {
    "x86_64": (
        Layout("f32", 1, 16, 1, 1),
        Layout("bf16", 1, 16, 2, 8),
        Layout("qa8", 1, 16, 4, 32, biased=True),
        Layout("qs4c", 1, 16, 4, 32, biased=True),
        Layout("qs4b", 1, 16, 4, 32, biased=True),
    ),
    "aarch64": (
        Layout("f32", 1, 16, 1, 1),
        Layout("bf16", 8, 8, 4, 8),
        Layout("qa8", 8, 8, 8, 32),
        Layout("qs4c", 8, 8, 8, 32),
        Layout("qs4b", 8, 8, 8, 32),
    ),
}


def layout(arch: str, scheme: str) -> Layout:
    """Return the packed layout of ``scheme`` (f32, bf16, qa8, qs4c or qs4b) on ``arch``."""
    for row in _ROWS[arch]:
        if row.scheme == scheme:
            return row
    raise KeyError(f"no packed layout {scheme!r} on {arch}")


def ceil_div(a: Any, b: int) -> Any:
    """Ceiling of a / b, for integers and for sympy expressions."""
    return (a + (b - 1)) // b


def packed_lhs_bytes(
    rule: Layout, m: Any, k: Any, ceil_div: Callable[[Any, int], Any] = ceil_div
) -> Any:
    """Bytes of a packed LHS; see packing.py.

    Args:
        rule: layout of the scheme, "bf16" or "qa8".
        m: rows, an int or an expression.
        k: depth, likewise.
        ceil_div: ceiling division that understands ``m`` and ``k``.

    Raises:
        ValueError: for "f32", whose GEMM reads its rows unpacked.
    """
    if rule.scheme == "f32":
        raise ValueError("the f32 GEMM takes its left operand unpacked")
    rows = m if rule.mr == 1 else ceil_div(m, rule.mr) * rule.mr
    depth = ceil_div(k, rule.k_multiple) * rule.k_multiple
    return rows * (depth * 2 if rule.scheme == "bf16" else depth + 16)


def packed_rhs_bytes(
    rule: Layout,
    n: Any,
    k: Any,
    ceil_div: Callable[[Any, int], Any] = ceil_div,
    group: int = 0,
) -> Any:
    """Bytes of a packed RHS, in whole panels; see packing.py.

    Args:
        rule: layout of the scheme.
        n: columns, an int or an expression.
        k: depth, likewise.
        ceil_div: ceiling division that understands ``n`` and ``k``.
        group: block length of "qs4b", which must divide ``k``; other schemes do not read it.
    """
    panels = ceil_div(n, rule.nr)
    depth = ceil_div(k, rule.k_multiple) * rule.k_multiple
    if rule.scheme == "qs4b":
        column = ceil_div(depth, 2) + 2 * ceil_div(k, group) + 4
        return panels * ceil_div(rule.nr * column, 64) * 64
    tail = 8 if rule.biased else 16
    per_column = {
        "f32": depth * 4,
        "bf16": depth * 2,
        "qa8": depth + tail,
        "qs4c": ceil_div(depth, 2) + tail,
    }
    return panels * rule.nr * per_column[rule.scheme]
