"""Winograd's F(4 x 4, 3 x 3): the matrices, and the weights that `go_winograd` multiplies.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308. A tile of 4 x 4
outputs is A^T [(G w G^T) * (B^T d B)] A for a filter w of 3 x 3 and 6 x 6 pixels d: 36
multiplications a channel in place of 144. The matrices are those of Toom and Cook for polynomials
that are multiplied by their values at 0, +-5/8, +-3/2 and infinity.

The points decide about rounding (Barabasz et al., Error Analysis and Improving the Accuracy of
Winograd Convolution for Deep Neural Networks, arXiv:1803.10986). With these all constants of A and
B are exact in f32, and an f32 result of random weights and pixels errs by about twice as much as
the direct sum does; with the usual +-1 and +-2 by 4.5 times as much, with +-1 and +-1/2 likewise.
A result sums up magnitudes of at most 175 (with +-1 and +-2: 860) times the largest pixel times the
sum of a filter's magnitudes, and rounds them (channels + 11) times by 2^-24.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: GO_WINOGRAD_A and GO_WINOGRAD_B of common/winograd_tile.h: points of either sign.
NEAR, FAR = 5 / 8, 3 / 2
#: Rows and columns of a filter, of a tile of outputs, and of the pixels that it reads.
TAPS, OUTPUTS, PIXELS = 3, 4, 6
#: Values of a tile, and of transformed weights, for a channel.
VALUES = PIXELS**2
#: Channels of an image are a multiple of it.
CHANNELS = 16

_POINTS = (0.0, NEAR, -NEAR, FAR, -FAR)


def matrices() -> tuple[Array, Array, Array]:
    """A [6, 4], G [6, 3] and B [6, 6] in f64."""
    powers = np.vander(_POINTS, OUTPUTS, increasing=True)
    others = [[p for p in _POINTS if p != point] for point in _POINTS]
    scale = [
        np.prod([point - p for p in rest]) for point, rest in zip(_POINTS, others, strict=True)
    ]
    a, g, b = np.zeros((PIXELS, OUTPUTS)), np.zeros((PIXELS, TAPS)), np.zeros((PIXELS, PIXELS))
    a[:-1], a[-1, -1] = powers, 1
    g[:-1], g[-1, -1] = powers[:, :TAPS] / np.array(scale)[:, None], 1
    for column, roots in enumerate([*others, list(_POINTS)]):
        coefficients = np.poly(roots)[::-1]  # of the polynomial with these roots
        b[: len(coefficients), column] = coefficients
    return a, g, b


def transformed(weight: Array) -> Array:
    """Transformed weights, rounded once.

    Args:
        weight: f32 [out, in, 3, 3], as in torch.

    Returns:
        f32 [out, 36 * in]: rows of the right operand, the channels of a point side by side.
    """
    outer, inner = weight.shape[:2]
    made = np.empty((outer, VALUES * inner), np.float32)
    for rows in _blocks(outer):
        made[rows] = _points(weight[rows]).reshape(-1, VALUES * inner)
    return made


def _blocks(outer: int) -> Iterator[slice]:
    """Output channels that are transformed at once, in f64: few, to take little memory."""
    return (slice(first, first + 32) for first in range(0, outer, 32))


def _points(weight: Array) -> Array:
    """Transformed weights f64 [out, 36, in]."""
    _, g, _ = matrices()
    outer, inner = weight.shape[:2]
    taps = weight.astype(np.float64).reshape(outer, inner, TAPS**2)
    made: Array = np.matmul(np.kron(g, g), taps.transpose(0, 2, 1))
    return made


def rounding(weight: Array) -> float:
    """Expected error of an f32 result, of white noise by given weights.

    Both are root mean squares over positions; of output channels the worst counts. The chain of
    multiply-adds over channels makes all but a little of it: half of its sums' variance a step.

    Args:
        weight: f32 [out, in, 3, 3], as in torch.

    Returns:
        The error, relative to the result; 0 for filters of zeros, NaN if values are not finite.
    """
    a, _, b = matrices()
    inputs, outputs = (np.kron(m, m) for m in ((b**2).sum(0), (a**2).mean(1)))
    worst = 0.0
    for rows in _blocks(len(weight)):
        with np.errstate(over="ignore", invalid="ignore"):  # of weights that are not finite
            points = _points(weight[rows]).astype(np.float32).astype(np.float64)
            noise = (points**2).sum(2) @ (inputs * outputs) * weight.shape[1] / 2
            signal = (weight[rows].astype(np.float64) ** 2).sum((1, 2, 3))
            ratio = np.divide(noise, signal, out=np.zeros_like(noise), where=signal != 0)
        worst = np.maximum(worst, ratio.max())
    return float(2.0**-24 / np.sqrt(3) * np.sqrt(worst))
