"""Element types, as numpy, C and messages call them. Needs numpy alone, as the loader does."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np


class DType(enum.Enum):
    """Element types. The order is that of `go_dtype` in `go_kernel.h`."""

    F32 = "f32"
    BF16 = "bf16"
    F64 = "f64"
    BOOL = "bool"
    U8 = "u8"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    F16 = "f16"

    @property
    def code(self) -> int:
        """The value of the C enumerator."""
        return list(DType).index(self)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _ITEMSIZE[self]

    @property
    def is_float(self) -> bool:
        """True for f32, bf16, f64 and f16."""
        return self.is_half or self in (DType.F32, DType.F64)

    @property
    def is_half(self) -> bool:
        """True for floats of 16 bits, which are computed with in f32."""
        return self in (DType.BF16, DType.F16)

    @property
    def c_type(self) -> str:
        """The C type of one element in memory."""
        return _C_TYPE[self]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype; bf16 is held as its 16 bits."""
        return np.dtype(_NUMPY[self])

    @staticmethod
    def of(array: np.ndarray[Any, Any]) -> DType:
        """The dtype of a numpy array; raises KeyError for one that the IR does not have."""
        return _FROM_NUMPY[array.dtype]


_ITEMSIZE = {
    DType.F32: 4,
    DType.BF16: 2,
    DType.F64: 8,
    DType.BOOL: 1,
    DType.U8: 1,
    DType.I8: 1,
    DType.I16: 2,
    DType.I32: 4,
    DType.I64: 8,
    DType.F16: 2,
}
_C_TYPE = {
    DType.F32: "float",
    DType.BF16: "uint16_t",
    DType.F64: "double",
    DType.BOOL: "uint8_t",
    DType.U8: "uint8_t",
    DType.I8: "int8_t",
    DType.I16: "int16_t",
    DType.I32: "int32_t",
    DType.I64: "int64_t",
    DType.F16: "uint16_t",
}
_NUMPY = {
    DType.F32: np.float32,
    DType.BF16: np.uint16,
    DType.F64: np.float64,
    DType.BOOL: np.bool_,
    DType.U8: np.uint8,
    DType.I8: np.int8,
    DType.I16: np.int16,
    DType.I32: np.int32,
    DType.I64: np.int64,
    DType.F16: np.float16,
}
_FROM_NUMPY = {np.dtype(v): k for k, v in _NUMPY.items() if k is not DType.BF16}


def truncate(array: Any, dtype: DType) -> Any:
    """Floats as whole numbers, towards zero, with the bits that torch gives on x86.

    There, NaN and what the instruction's result (i64 for i64 and u8, else i32) cannot hold become
    its smallest number; narrower types keep the low bits of that result.
    """
    wide, least = (
        (np.int64, -(2.0**63)) if dtype in (DType.I64, DType.U8) else (np.int32, -(2.0**31))
    )
    with np.errstate(invalid="ignore"):
        whole = np.trunc(np.asarray(array, np.float64))
        fits = (whole >= least) & (whole < -least)
    return np.where(fits, whole, least).astype(wide).astype(dtype.numpy)
