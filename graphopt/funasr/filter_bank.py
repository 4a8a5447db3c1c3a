"""Kaldi's log mel filter bank of a signal, many frames at once.

The definition is that of Kaldi's `compute-fbank-feats` (feat/feature-window.cc and
feat/mel-computations.cc) with its defaults: of each window, without its mean and with a
pre-emphasis of 0.97, weighted and padded to a power of two, the logarithms of the energies of
triangular filters between 20 Hz and half the sample rate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphopt.funasr.directory import FrontendConfig

Array = np.ndarray[Any, Any]

_EMPHASIS = np.float32(0.97)
_LOWEST = 20.0  # Hz
_BLOCK = 128  # frames whose windows stay in the cache
_FLOOR = np.finfo(np.float32).eps

FULL_SCALE = 1 << 15  # of 16-bit samples

#: By the names of `directory.WINDOWS`, the weight at a place of the window, 0 to 2 pi.
_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "hamming": lambda x: 0.54 - 0.46 * np.cos(x),
    "hanning": lambda x: 0.5 - 0.5 * np.cos(x),
    "povey": lambda x: (0.5 - 0.5 * np.cos(x)) ** 0.85,
    "blackman": lambda x: 0.42 - 0.5 * np.cos(x) + 0.08 * np.cos(2 * x),
    "rectangular": np.ones_like,
}


def fbank(samples: Array, config: FrontendConfig) -> Array:
    """Log energies f32[frames, n_mels] of a signal, f32[N] in [-1, 1).

    Frames are those whose windows lie within the signal; without `snip_edges` there is one for
    every shift, and the signal is mirrored at its ends. With `dither` they are random.
    """
    length = int(config.fs * config.frame_length / 1000)
    shift = int(config.fs * config.frame_shift / 1000)
    signal = samples if config.snip_edges else _mirrored(samples, length, shift)
    if len(signal) < length:
        return np.zeros((0, config.n_mels), np.float32)
    if config.upsacle_samples:
        signal = signal * np.float32(FULL_SCALE)
    if config.dither:
        noise = np.random.default_rng().standard_normal(len(signal), np.float32)
        signal = signal + np.float32(config.dither) * noise
    windows = np.lib.stride_tricks.sliding_window_view(signal, length)[::shift]
    # Of the whole signal, which is less than that of windows that overlap.
    emphasized = signal.copy()
    emphasized[1:] -= _EMPHASIS * signal[:-1]
    tails = np.lib.stride_tricks.sliding_window_view(emphasized, length)[::shift]
    energies = np.empty((len(windows), config.n_mels), np.float32)
    for begin in range(0, len(windows), _BLOCK):
        end = begin + _BLOCK
        energies[begin:end] = _energies(windows[begin:end], tails[begin:end], config)
    return np.log(np.maximum(energies, _FLOOR, out=energies), out=energies)


def _energies(windows: Array, emphasized: Array, config: FrontendConfig) -> Array:
    """f32[frames, n_mels] of windows f32[frames, length], as they are and emphasized.

    The mean of a window is taken off behind the emphasis, which leaves 0.03 of it.
    """
    length = windows.shape[1]
    left = (1 - _EMPHASIS) * windows.mean(1, keepdims=True)
    padded = np.zeros((len(windows), _size(length)), np.float32)
    signal = np.subtract(emphasized, left, out=padded[:, :length])
    signal[:, :1] = (1 - _EMPHASIS) * windows[:, :1] - left
    signal *= _window(config.window, length)
    spectrum = np.fft.rfft(padded).T
    return _Filters.of(config.n_mels, config.fs, length).sums(spectrum.real**2 + spectrum.imag**2).T


class _Filters:
    """Triangles that are even on the mel scale, each from the peak of the last to that of the next.

    Their edges divide the frequencies into sections, in each of which one filter rises and another
    falls. A product with the matrix of weights, nearly all of them zero, would be slower: numpy's
    BLAS wakes its threads for it.
    """

    def __init__(self, count: int, fs: int, length: int) -> None:
        # Kaldi leaves out half the sample rate itself.
        mel = 1127 * np.log1p(np.arange(_size(length) // 2) * fs / _size(length) / 700)
        lowest, highest = (1127 * np.log1p(f / 700) for f in (_LOWEST, fs / 2))
        place = (mel - lowest) / (highest - lowest) * (count + 1)
        first, section = int(np.searchsorted(place, 0)), np.floor(place)
        self._used = slice(first, len(mel))
        self._rising = (place - section)[first:, None].astype(np.float32)
        edges = np.searchsorted(section[first:], np.arange(count + 1))
        self._is_empty = np.append(edges[1:], len(mel) - first) == edges
        self._edges = np.minimum(edges, len(mel) - first - 1)

    @staticmethod
    @functools.cache
    def of(count: int, fs: int, length: int) -> _Filters:
        """The filters of some configuration."""
        return _Filters(count, fs, length)

    def sums(self, power: Array) -> Array:
        """f32[n_mels, frames] of powers f32[size / 2 + 1, frames]."""
        used = np.ascontiguousarray(power[self._used])
        rising = used * self._rising
        up, down = (np.add.reduceat(x, self._edges) for x in (rising, used - rising))
        up[self._is_empty], down[self._is_empty] = 0, 0
        sums: Array = up[:-1] + down[1:]
        return sums


def _size(length: int) -> int:
    """Of the Fourier transform of a window."""
    return 1 << (length - 1).bit_length()


def _mirrored(samples: Array, length: int, shift: int) -> Array:
    """The signal mirrored at its ends, so that there is a frame for every shift."""
    count = (len(samples) + shift // 2) // shift
    first = shift // 2 - length // 2
    at = np.arange(first, first + (count - 1) * shift + length)
    at = np.where(at < 0, -at - 1, at)
    return samples[np.where(at >= len(samples), 2 * len(samples) - 1 - at, at)]


@functools.cache
def _window(name: str, length: int) -> Array:
    return _WEIGHTS[name](2 * np.pi * np.arange(length) / (length - 1)).astype(np.float32)
