"""Numbers as graphs store them, and as numpy computes with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.dtype import DType, truncate
from graphopt.kernels import reference

Array = np.ndarray[Any, Any]

#: Packing of quantized rows.
QUANTIZED = "qa8r"


def widen(array: Array, dtype: DType) -> Array:
    """A stored array as numbers: bf16 bits and f16 become f32."""
    if dtype is DType.F16:
        return array.astype(np.float32)
    if dtype is not DType.BF16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def narrow(array: Array, dtype: DType) -> Array:
    """Numbers as stored; f32 is rounded to nearest even bf16 or f16."""
    if array.dtype.kind == "f" and not dtype.is_float and dtype is not DType.BOOL:
        return np.asarray(truncate(array, dtype))
    if dtype is DType.F16:
        with np.errstate(over="ignore"):
            return array.astype(np.float32).astype(np.float16)
    if dtype is not DType.BF16:
        return array.astype(dtype.numpy)
    rounded: Array = reference.bf16_from_f32(array).reshape(array.shape)
    return rounded


def quantize_rows(x: Array, together: int = 1) -> Array:
    """What is left of f32 rows after quantization, of which `together` each share a range."""
    rows = reference.quantize_rows(x.reshape(-1, x.shape[-1]), together)
    numbers = rows.scale[:, None] * (rows.q - rows.zp[:, None]).astype(np.float32)
    quantized: Array = numbers.reshape(x.shape)
    return quantized
