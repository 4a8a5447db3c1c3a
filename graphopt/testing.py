"""Tolerances of graphopt's tests, each with its reason, and the measures that they bound.

Integer results (packing, int32 sums, gathers, copies) are compared exactly and need no tolerance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FP32_RELATIVE = 2e-5
"""Largest error over largest magnitude, for a few f32 ops in a row. An f32 sum of k terms in
another order differs by about sqrt(k) * 6e-8 of its terms' magnitude; 1000 terms give 2e-6, and a
norm or softmax on top of them at most about ten times that."""

FP32_SAME = 2e-6
"""The same for the same f32 operations in the same order except for contraction, reciprocals and
elementary functions, which are within a few units of 6e-8."""

BF16_RELATIVE = 2.0**-7
"""bf16 keeps 8 bits: rounding to nearest errs by 2**-9. A product of two rounded factors errs by
2**-8, and storing the result adds 2**-9; sums average errors and do not add them."""

INT8_SQNR = 30.0
"""dB. 255 steps over eight standard deviations of normally distributed numbers leave 41 dB; both
factors rounded leave 38 dB. Rows with one large element lose a few more; a wrong scale, zero point
or channel loses tens."""

EMULATED_BF16 = 1e-2
"""A model of a few layers with bf16 products, on Arm's BFMMLA against x86. BFMMLA rounds each sum
of two products to odd, x86 every f32 sum to nearest: the last bits of f32 differ, and a few values
then fall to the other side of a bf16 rounding, an error of 2**-8 of that value. The scalar level,
and fp32 and int8 on every level, are equal to the bit; so are the levels of x86, as VDPBF16PS
rounds every multiply-add to nearest."""

EMULATED_INT8_BF16 = 5e-2
"""The same where attention alone has bf16 products (int8+bf16): what differs falls to the other
side of roundings to int8, 1/255 of a row's range, in every layer that follows, so that two levels
differ by as much as each of them from f32, 2e-2 to 4e-2 in a few layers of random weights."""


def relative_error(got: Array, reference: Array) -> float:
    """Largest absolute difference over the largest magnitude of the reference.

    Infinite if the shapes differ, or if NaN or infinity are in different places; 0 for empty
    arrays.
    """
    if got.shape != reference.shape:
        return math.inf
    if got.size == 0:
        return 0.0
    x, y = got.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(y)
    if (
        not np.array_equal(x[~finite], y[~finite], equal_nan=True)
        or not np.isfinite(x[finite]).all()
    ):
        return math.inf
    if not finite.any():
        return 0.0
    scale = float(np.abs(y[finite]).max())
    error = float(np.abs(x[finite] - y[finite]).max())
    return error / scale if scale else (math.inf if error else 0.0)


def sqnr(got: Array, reference: Array) -> float:
    """Signal to quantization noise ratio in dB: energy of the reference over that of the error."""
    y = reference.astype(np.float64)
    noise = float(((got.astype(np.float64) - y) ** 2).sum())
    signal = float((y**2).sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
