"""The gate for samples: whatever is given as a signal passes here before anything hears it."""

from __future__ import annotations

import abc
import os
import sys
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import numpy as np

from graphopt.errors import SamplesError, StreamEndedError

Array = np.ndarray[Any, Any]
Told = TypeVar("Told")

FULL_SCALE = 1 << 15  # of 16-bit samples
#: Largest magnitude of a sample: 12 dB over full scale, for signals that overshoot it.
LIMIT = 4.0


def check_samples(given: Any, name: str = "samples") -> Array:
    """A signal of one channel, f32[samples].

    Args:
        given: f16, f32 or f64[samples], finite and in [-1, 1) but for an overshoot up to LIMIT, in
            any layout and byte order; or i16[samples], which are divided by 32768.
        name: what the error calls it.

    Returns:
        Of f32 samples the array itself, else a copy.

    Raises:
        SamplesError: if it is anything else, with what to do.
    """
    if not isinstance(given, np.ndarray) or isinstance(given, np.ma.MaskedArray):
        raise SamplesError(name, *_no_array(given))
    if given.ndim != 1:
        raise SamplesError(name, f"has shape {given.shape}", _channel(given.shape))
    if given.dtype.kind == "i" and given.dtype.itemsize == 2:
        scaled: Array = given.astype(np.float32)
        scaled /= FULL_SCALE
        return scaled
    if given.dtype.kind != "f":
        remedy = "give i16, or f32 in [-1, 1): divide by the full scale of the samples"
        raise SamplesError(name, f"has dtype {given.dtype}", remedy)
    problem = implausible(given)
    if problem is not None:
        raise SamplesError(name, *problem)
    return given.astype(np.float32, copy=False)


def implausible(samples: Array) -> tuple[str, str] | None:
    """What is wrong with the values of floating-point samples, and what to do; None if nothing."""
    if not len(samples):
        return None
    low, high = samples.min(), samples.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        at = int(np.argmin(np.isfinite(samples)))
        remedy = "find out where that comes from, or put 0 there with np.nan_to_num"
        return f"has {samples[at]} at sample {at}", remedy
    if max(-low, high) > LIMIT:
        remedy = "samples lie in [-1, 1): divide those of 16 bits by 32768"
        return f"reaches from {low:g} to {high:g}", remedy
    return None


def check_recordings(given: Any) -> list[Array]:
    """Several signals, each as :func:`check_samples` has it.

    Raises:
        SamplesError: if one is no signal, or what is given is no list of them.
    """
    is_one = isinstance(given, str | bytes) or (isinstance(given, np.ndarray) and given.ndim < 2)
    if is_one or not isinstance(given, Iterable):
        raise SamplesError("recordings", f"is {_named(given)}", "give a list of arrays of samples")
    return [check_samples(one, f"recording {i}") for i, one in enumerate(given)]


def _no_array(given: Any) -> tuple[str, str]:
    """What it is instead, and what to do."""
    torch = sys.modules.get("torch")
    if isinstance(given, str | os.PathLike):
        remedy = "give a path to transcribe or listen, or read it with read_recording"
    elif isinstance(given, bytes | bytearray | memoryview):
        remedy = "make an array of it: np.frombuffer(data, '<i2') of 16-bit PCM"
    elif isinstance(given, list | tuple):
        remedy = "make an array of it: np.array(samples, np.float32)"
    elif torch is not None and isinstance(given, torch.Tensor):
        remedy = "give samples.numpy()"
    elif isinstance(given, np.ma.MaskedArray):
        remedy = "give samples.filled(0)"
    else:
        remedy = "give a numpy array of f32 samples in [-1, 1), or of i16"
    return f"is {_named(given)}", remedy


def _named(given: Any) -> str:
    """The kind of an object, and which one where that is short."""
    if isinstance(given, str | os.PathLike):
        return f"the path {str(given)[:200]!r}"
    return f"of type {type(given).__name__}"


def _channel(shape: tuple[int, ...]) -> str:
    """How to get one channel out of an array that has several, or none."""
    if len(shape) != 2:
        return "give one dimension"
    if 1 in shape:
        return f"give its channel, samples[{'0' if shape[0] == 1 else ':, 0'}]"
    return f"give one channel, or their mean: samples.mean({int(shape[1] < shape[0])})"


class SignalStream(abc.ABC, Generic[Told]):
    """What hears one signal piece by piece; it tells the same however samples are divided."""

    _is_over = False

    def feed(self, samples: Array) -> list[Told]:
        """What the next samples tell, in the order of the signal.

        Args:
            samples: as for :func:`check_samples`; any number of them.

        Raises:
            SamplesError: if they are none; the stream is as it was before.
            StreamEndedError: behind :meth:`finish`.
        """
        self._check_goes_on()
        return self._feed(check_samples(samples))

    def finish(self) -> list[Told]:
        """What the end of the signal tells; nothing may follow.

        Raises:
            StreamEndedError: if it has been told.
        """
        self._check_goes_on()
        self._is_over = True
        return self._finish()

    def _check_goes_on(self) -> None:
        if self._is_over:
            raise StreamEndedError(type(self).__name__)

    @abc.abstractmethod
    def _feed(self, samples: Array) -> list[Told]:
        """The same for f32 samples that passed the gate."""

    @abc.abstractmethod
    def _finish(self) -> list[Told]:
        """The same for a signal that has not ended yet."""
