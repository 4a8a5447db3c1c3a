"""Ways to round weights to int4, and what each of them loses.

`nearest` looks at a weight alone (kernels/reference.py). `scale-search` chooses the scale of each
block among many by its squared error, weighted with the mean square of the inputs that the
weights multiply. `gptq` rounds one input channel after the other and lets the later ones make up
for the error in the products: Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import CalibrationError, UnknownPrecisionError
from graphopt.ir.loss import Loss
from graphopt.kernels.reference import (
    bf16_from_f32,
    dequantize,
    f32_from_bf16,
    quantize_blocks_int4,
    quantize_channels_int4,
)

Array = np.ndarray[Any, Any]

METHODS = ("nearest", "scale-search", "gptq")

#: What the value of largest magnitude of a block may become; q beyond [-8, 7] is clipped.
_EXTREMES = (*np.arange(-11.0, -5.9, 0.5), *np.arange(5.5, 8.6, 0.5))
_REFINEMENTS = 2
_SMALLEST_SCALE = np.float32(2.0**-100)
_CHUNK = 1 << 16  # values at once: their temporaries stay in the cache
_DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper
_COLUMNS = 128  # input channels between two updates of all later ones, with a scale per channel


def check_rounding(method: str) -> None:
    """Raises UnknownPrecisionError for an unknown method."""
    if method not in METHODS:
        raise UnknownPrecisionError(f"rounding={method}", METHODS)


@dataclass(frozen=True, eq=False)
class Rounding:
    """How weights become int4.

    Attributes:
        method: one of `METHODS`.
        calibration: inputs for one run of the graph, in its order; `gptq` needs them.
        returned: whether linears whose result the graph returns become int4 too: the head of a
            language model, where int8 costs little and int4 is seen in every token.

    Raises:
        UnknownPrecisionError: for another method.
        CalibrationError: for `gptq` without calibration.
    """

    method: str = "nearest"
    calibration: Sequence[Array] | None = None
    returned: bool = False

    def __post_init__(self) -> None:
        check_rounding(self.method)
        if self.method == "gptq" and self.calibration is None:
            raise CalibrationError("rounding by gptq needs text")


NEAREST = Rounding()


@dataclass(frozen=True)
class Rounded:
    """Weights on their grid: value j of a row is `scale[j // group] * q[j]`.

    Attributes:
        q: int8 [n, k] in [-8, 7].
        scale: bf16 bits [n, k / group], or f32 [n] with one scale per channel.
    """

    q: Array
    scale: Array

    def dense(self) -> Array:
        """The numbers that the weights stand for, f32 [n, k]."""
        scale = self.scale if self.scale.ndim == 1 else f32_from_bf16(self.scale)
        return dequantize(self.q, scale)


def round_weights(w: Array, group: int, method: str, hessian: Array | None = None) -> Rounded:
    """Rounds weights to int4.

    Args:
        w: f32 [n, k], finite.
        group: values that share a bf16 scale; 0 for an f32 scale per channel.
        method: one of `METHODS`.
        hessian: X^T X of calibration inputs X, f32 [k, k]: half of the second derivative of the
            squared error of the products X W^T. `gptq` needs it.
    """
    if method == "nearest":
        if not group:
            channels = quantize_channels_int4(w)
            return Rounded(channels.q, channels.scale)
        blocks = quantize_blocks_int4(w, group)
        return Rounded(blocks.q, blocks.scale)
    if method == "scale-search":
        return _scale_search(w, group, None if hessian is None else np.diag(hessian))
    assert hessian is not None, "gptq needs calibration"
    return _gptq(w, group, hessian)


def loss_of(w: Array, dense: Array, hessian: Array | None = None) -> Loss:
    """What is lost when rounded weights stand for the given ones.

    Args:
        w: the given weights, f32 [n, k].
        dense: the numbers that the rounded ones stand for, f32 [n, k].
        hessian: as for `round_weights`; None leaves the loss of the outputs unknown.
    """
    error = w - dense
    weights = _share(float(np.vdot(error, error)), float(np.vdot(w, w)))
    if hessian is None:
        return Loss(weights)
    squares = [float(np.vdot(m @ hessian, m)) for m in (error, w)]
    return Loss(weights, _share(*squares))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _scale_search(w: Array, group: int, importance: Array | None) -> Rounded:
    n, k = w.shape
    length = group or k
    weight = np.ones(k, np.float32) if importance is None else importance.astype(np.float32)
    per_block = weight.reshape(-1, length)
    blocks = w.reshape(n, -1, length)
    q, scale = np.empty(blocks.shape, np.int8), np.empty(blocks.shape[:2], np.float32)
    step = max(1, _CHUNK // k)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        scale[rows] = search_scales(blocks[rows], per_block, bf16=bool(group))
        q[rows] = _steps(blocks[rows], scale[rows]).astype(np.int8)
    return _rounded(q.reshape(n, k), scale, group)


def search_scales(w: Array, importance: Array, bf16: bool) -> Array:
    """The scale of each block with the least weighted squared error of those that are tried.

    Args:
        w: f32 [..., length].
        importance: of each squared error, f32, broadcast against `w`.
        bf16: whether scales are bf16.

    Returns:
        f32 [...]; 0 for blocks of zeros.
    """
    where = np.abs(w).argmax(axis=-1)[..., None]
    extreme = np.take_along_axis(w, where, axis=-1)[..., 0]
    best = np.zeros(extreme.shape, np.float32)
    least = np.full(extreme.shape, np.inf, np.float32)

    def consider(candidate: Array) -> None:
        scale = _storable(candidate, bf16)
        miss = w - _steps(w, scale) * scale[..., None]
        error = np.sum(importance * miss * miss, axis=-1)
        better = error < least
        least[better], best[better] = error[better], scale[better]

    for target in _EXTREMES:
        consider(extreme / np.float32(target))
    for _ in range(_REFINEMENTS):  # the scale of least squares for the values that it gave
        q = _steps(w, best)
        size = np.sum(importance * q * q, axis=-1)
        consider(np.sum(importance * q * w, axis=-1) / np.where(size == 0, np.inf, size))
    return best


def _storable(scale: Array, bf16: bool) -> Array:
    kept = f32_from_bf16(bf16_from_f32(scale)) if bf16 else scale.astype(np.float32)
    return np.where(np.abs(kept) < _SMALLEST_SCALE, np.float32(0), kept)


def _steps(w: Array, scale: Array) -> Array:
    """Values [..., length] over their scale [...], rounded to [-8, 7], as f32."""
    steps = w / np.where(scale == 0, np.float32(np.inf), scale)[..., None]
    return np.asarray(np.clip(np.rint(steps, out=steps), -8, 7, out=steps))


def _rounded(q: Array, scale: Array, group: int) -> Rounded:
    n = len(q)
    return Rounded(q, bf16_from_f32(scale) if group else scale.reshape(n))


def _gptq(w: Array, group: int, hessian: Array) -> Rounded:
    """Rounds channel by channel, [k, n] in memory so that a channel is a row."""
    n, k = w.shape
    factor = _inverse_factor(hessian)
    left = np.ascontiguousarray(w.T)
    q, length = np.empty((k, n), np.int8), group or _COLUMNS
    importance = np.square(1 / np.diag(factor))  # of an error that later channels make up for
    whole = None if group else search_scales(w, importance, bf16=False)
    scales = []
    for start in range(0, k, length):
        end = min(start + length, k)
        block, inner = left[start:end], factor[start:end, start:end]
        scale = whole
        if scale is None:
            scale = search_scales(np.ascontiguousarray(block.T), importance[start:end], bf16=True)
            scales.append(scale)
        errors = _round_block(block, inner, scale, q[start:end])
        left[end:] -= factor[start:end, end:].T @ errors
    scale = np.stack(scales, axis=1) if whole is None else whole
    return _rounded(np.ascontiguousarray(q.T), scale, group)


def _round_block(w: Array, factor: Array, scale: Array, q: Array) -> Array:
    """Fills q [length, n] and returns the errors that are left to later channels."""
    errors = np.empty_like(w)
    divisor = np.where(scale == 0, np.float32(np.inf), scale)
    for i, row in enumerate(w):
        steps = np.clip(np.rint(row / divisor), -8, 7)
        q[i] = steps.astype(np.int8)
        np.divide(row - steps * scale, factor[i, i], out=errors[i])
        w[i + 1 :] -= np.multiply.outer(factor[i, i + 1 :], errors[i])
    return errors


def _inverse_factor(hessian: Array) -> Array:
    """U, upper triangular, with U^T U the inverse of the damped Hessian: f32 [k, k].

    The Hessian backwards is L L^T, so U is the inverse of L backwards.
    """
    damped = hessian.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    mean = diagonal.mean()
    diagonal += _DAMPING * (mean if mean > 0 else 1.0)  # a channel that is always 0, too
    lower = np.linalg.cholesky(damped[::-1, ::-1])
    inverse = np.linalg.solve(lower, np.eye(len(lower)))
    factor: Array = np.triu(inverse[::-1, ::-1]).astype(np.float32)
    return factor
