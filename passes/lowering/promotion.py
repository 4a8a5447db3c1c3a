"""The common type of operands, as torch promotes types."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import DType, Value
from graphopt.ir.scalar import Scalar

_WHOLE = {DType.U8: 8, DType.I8: 8, DType.I16: 16, DType.I32: 32, DType.I64: 64}
_FLOAT = [DType.BF16, DType.F16, DType.F32, DType.F64]


def promoted(arguments: Sequence[object]) -> DType:
    """The type in which torch compares or combines tensors and numbers.

    Tensors with axes decide; one without axes, and less so a number, matters where it is of a
    higher kind (bool, whole, float) than all of those.
    """
    found: DType | None = None
    for group in (
        [a.dtype for a in arguments if isinstance(a, Value) and a.rank > 0],
        [a.dtype for a in arguments if isinstance(a, Value) and a.rank == 0],
        [_of_number(a) for a in arguments if not isinstance(a, Value)],
    ):
        for dtype in group[1:]:
            group[0] = _wider(group[0], dtype)
        if group and (found is None or _kind(group[0]) > _kind(found)):
            found = group[0]
    assert found is not None, "no operands"
    return found


def _of_number(number: object) -> DType:
    if isinstance(number, bool):
        return DType.BOOL
    return DType.F32 if isinstance(number, float | Scalar) else DType.I64


def _kind(dtype: DType) -> int:
    return 2 if dtype.is_float else 0 if dtype is DType.BOOL else 1


def _wider(one: DType, other: DType) -> DType:
    """The smallest type for the numbers of both; the float if one is of whole numbers."""
    if _kind(one) != _kind(other):
        return one if _kind(one) > _kind(other) else other
    if one.is_half and other.is_half and one is not other:
        return DType.F32
    if one.is_float:
        return max(one, other, key=_FLOAT.index)
    if one is other or one is DType.BOOL:
        return one
    if _WHOLE[one] == _WHOLE[other]:
        return DType.I16  # i8 and u8
    return one if _WHOLE[one] > _WHOLE[other] else other
