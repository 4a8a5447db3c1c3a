"""Fourier transforms of real and complex tensors, as products with matrices of cosines and sines.

A matrix is a constant where its size is. The short-time transform is a convolution, its inverse a
transposed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from graphopt.frontend.complex_parts import Complex, Rule, axes_of, axis_of, pair_of

Tensor = torch.Tensor


def _turns(rows: Any, columns: Any, size: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of 2 pi r c / size, for r < rows and c < columns."""
    static = isinstance(size, int)
    r, c = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
    angle = ((r * c) % size).to(torch.float64 if static else torch.float32) * (2 * math.pi / size)
    return torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)


def _scale(norm: str | None, size: Any, inverse: bool) -> Any:
    if norm == "ortho":
        return size**-0.5
    return 1 / size if inverse == (norm in (None, "backward")) else 1.0


def _fit(x: Tensor, size: Any, axis: int) -> Tensor:
    """Cut, or continued by zeros, to a size along an axis of a few."""
    have = x.shape[axis]
    if have == size:
        return x
    if have > size:
        return x.narrow(axis, 0, size)
    return F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [0, size - have])


def _real_matrix(size: Any, bins: Any, dtype: torch.dtype) -> Tensor:
    """[size, 2 bins]: the parts of each bin side by side."""
    cos, sin = _turns(size, bins, size, dtype)
    return torch.stack((cos, -sin), -1).flatten(1)


def _inverse_matrix(size: Any, bins: int, dtype: torch.dtype) -> Tensor:
    """[2 bins, size]: of bins of which all but the ends stand for two."""
    cos, sin = _turns(bins, size, size, dtype)
    k = torch.arange(bins)[:, None]
    twice = (2 - ((k == 0) | (2 * k == size)).to(torch.int64)).to(dtype)
    return torch.stack((twice * cos, -twice * sin), 1).flatten(0, 1)


def _rfft(x: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    axis = axis_of(x, dim)
    size = x.shape[axis] if n is None else n
    rows = _fit(x, size, axis).movedim(axis, -1)
    bins = size // 2 + 1
    parts = rows @ (_real_matrix(size, bins, x.dtype) * _scale(norm, size, False))
    return Complex.of(parts.unflatten(-1, (bins, 2)).movedim(-2, axis))


def _irfft(z: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    axis = axis_of(z, dim)
    size = 2 * (z.shape[axis] - 1) if n is None else n
    bins = size // 2 + 1
    rows = _fit(pair_of(z), bins, axis).movedim(axis, -2).flatten(-2)
    matrix = _inverse_matrix(size, bins, rows.dtype) * _scale(norm, size, True)
    return (rows @ matrix).movedim(-1, axis)


def _fft(inverse: bool) -> Callable[..., Any]:
    def rule(z: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
        real = (torch.float32, torch.float64)
        if not isinstance(z, Tensor) or not (z.is_complex() or z.dtype in real):
            return NotImplemented
        axis = axis_of(z, dim)
        size = z.shape[axis] if n is None else n
        rows = _fit(pair_of(z), size, axis).movedim(axis, -2).flatten(-2)
        cos, sin = _turns(size, size, size, rows.dtype)
        sin = sin if inverse else -sin
        of_real, of_imag = torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)
        matrix = torch.stack((of_real, of_imag), 1).flatten(2).flatten(0, 1)
        parts = rows @ (matrix * _scale(norm, size, inverse))
        return Complex.of(parts.unflatten(-1, (size, 2)).movedim(-2, axis))

    return rule


def _windowed(window: Tensor | None, length: int, size: int, like: Tensor) -> Tensor:
    window = torch.ones(length, dtype=like.dtype) if window is None else window
    left = (size - length) // 2
    return F.pad(window, (left, size - length - left))


def _stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    real = input.dtype is torch.float32 and not (window is not None and window.is_complex())
    if not real or onesided is False or align_to_window or input.dim() > 2:
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    signal = input[None, None] if input.dim() == 1 else input[:, None]
    if center:
        signal = F.pad(signal, (n_fft // 2, n_fft // 2), mode=pad_mode)
    bins = n_fft // 2 + 1
    shape = _windowed(window, win_length or n_fft, n_fft, input)
    filters = (_real_matrix(n_fft, bins, input.dtype) * shape[:, None]).t()
    filters = filters * n_fft**-0.5 if normalized else filters
    parts = F.conv1d(signal, filters[:, None].contiguous(), stride=hop)
    pair = parts.unflatten(1, (bins, 2)).transpose(2, 3)  # type: ignore[no-untyped-call]
    pair = pair[0] if input.dim() == 1 else pair
    return Complex.of(pair) if return_complex else pair


def _istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Any:
    pair = pair_of(input)
    bins = n_fft // 2 + 1
    if return_complex or onesided is False or pair.dtype is not torch.float32:
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    batched = pair if pair.dim() == 4 else pair[None]
    parts = batched.transpose(2, 3).flatten(1, 2)  # [B, 2 bins, frames]
    shape = _windowed(window, win_length or n_fft, n_fft, pair)
    filters = _inverse_matrix(n_fft, bins, pair.dtype) * shape / n_fft
    filters = filters * n_fft**0.5 if normalized else filters
    signal = F.conv_transpose1d(parts, filters[:, None], stride=hop)
    ones = torch.ones_like(parts[:1, :1])
    weight = F.conv_transpose1d(ones, (shape * shape)[None, None], stride=hop)
    start = n_fft // 2 if center else 0
    end = signal.shape[-1] - start if length is None else start + length
    if length is not None:
        whole = torch.sym_max(end, signal.shape[-1])  # type: ignore[no-untyped-call]
        signal, weight = (_fit(x, whole, 2) for x in (signal, weight))
    result = signal[:, 0, start:end] / weight[:, 0, start:end]
    return result if pair.dim() == 4 else result[0]


def _several(
    last: Rule | None, one: Rule, default: tuple[int, ...] | None, inverse: bool = False
) -> Rule:
    """Transforms along several axes, one after the other.

    Args:
        last: along the last of them, of real numbers (or to them, where it is the end); None for
            `one`.
        one: along each of the others, of complex numbers.
        default: axes, if none are given; None for all.
        inverse: whether `last` is the end and not the beginning.
    """

    def rule(x: Any, s: Any = None, dim: Any = default, norm: str | None = None) -> Any:
        if dim is None and s is not None:
            dim = range(-len(s), 0)
        axes = axes_of(x, dim)
        sizes = [None] * len(axes) if s is None else [None if n == -1 else n for n in s]
        steps = [(one, n, axis) for n, axis in zip(sizes, axes, strict=True)]
        if last is not None:
            *steps, (_, n, axis) = steps
            steps.insert(len(steps) if inverse else 0, (last, n, axis))
        for transform, n, axis in steps:
            x = transform(x, n, axis, norm)
            if x is NotImplemented:
                break
        return x

    return rule


def _shifted(sign: int) -> Rule:
    def rule(z: Any, dim: Any = None) -> Complex:
        axes = axes_of(z, dim)
        halves = [z.shape[a] // 2 if sign > 0 else (z.shape[a] + 1) // 2 for a in axes]
        return Complex.of(pair_of(z).roll(halves, axes))

    return rule


_FFT, _IFFT = _fft(inverse=False), _fft(inverse=True)
_PLANE = (-2, -1)
#: Functions that make complex tensors of real ones, or take such too.
MADE: dict[str, Rule] = {
    "stft": _stft,
    "rfft": _rfft,
    "rfft2": _several(_rfft, _FFT, _PLANE),
    "rfftn": _several(_rfft, _FFT, None),
    "fft": _FFT,
    "fft2": _several(None, _FFT, _PLANE),
    "fftn": _several(None, _FFT, None),
    "ifft": _IFFT,
    "ifft2": _several(None, _IFFT, _PLANE),
    "ifftn": _several(None, _IFFT, None),
}
#: Functions of complex tensors.
RULES: dict[str, Rule] = {
    "istft": _istft,
    "irfft": _irfft,
    "irfft2": _several(_irfft, _IFFT, _PLANE, inverse=True),
    "irfftn": _several(_irfft, _IFFT, None, inverse=True),
    "fftshift": _shifted(1),
    "ifftshift": _shifted(-1),
}
