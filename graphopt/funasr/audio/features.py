"""The feature front end without torch: filter bank, stacked frames, mean and variance.

Filter banks come from kaldi-native-fbank with the settings of FunASR's `WavFrontend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphopt.dependencies import require
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.samples import FULL_SCALE, check_samples

Array = np.ndarray[Any, Any]

#: Applies a function to every item of a sequence.
Each = Callable[[Callable[[int], Array], Sequence[int]], Iterable[Array]]

_PIECE = 500  # frames of one filter bank: it takes 5 ms, of which making the bank is 0.1


class FilterBank:
    """Log mel filter banks of a signal, as far as it has come.

    Args:
        config: the front end.
    """

    def __init__(self, config: FrontendConfig) -> None:
        knf = require("kaldi_native_fbank", "computing features")
        options = knf.FbankOptions()
        frames = options.frame_opts
        frames.samp_freq = config.fs
        frames.dither = config.dither
        frames.window_type = config.window
        frames.frame_shift_ms = float(config.frame_shift)
        frames.frame_length_ms = float(config.frame_length)
        frames.snip_edges = config.snip_edges
        options.mel_opts.num_bins = config.n_mels
        options.energy_floor = 0.0
        self._bank = knf.OnlineFbank(options)
        self._fs, self._n_mels = config.fs, config.n_mels
        self._scale = np.float32(FULL_SCALE if config.upsacle_samples else 1)
        self._taken = 0

    def take(self, samples: Array, is_final: bool = False) -> Array:
        """The frames that the next samples complete, f32[frames, n_mels].

        Args:
            samples: of the signal.
            is_final: whether nothing follows.

        Raises:
            SamplesError: if they are none, as for `check_samples`.
        """
        samples = check_samples(samples)
        # The library reads a sequence. An array makes a numpy scalar of each sample; its
        # memoryview a float, in half the time.
        self._bank.accept_waveform(self._fs, (samples * self._scale).data)
        if is_final:
            self._bank.input_finished()
        begin, self._taken = self._taken, self._bank.num_frames_ready
        rows = [self._bank.get_frame(i) for i in range(begin, self._taken)]
        made = np.array(rows, np.float32).reshape(-1, self._n_mels)
        self._bank.pop(len(made))
        return made


def check_front_end(config: FrontendConfig) -> None:
    """Refuses settings of which there is no filter bank.

    Raises:
        ValueError: saying why.
        MissingDependencyError: if kaldi-native-fbank is not installed.
    """
    if not config.shift_samples:
        raise ValueError(f"frames of {config.fs} Hz are no sample apart")
    try:
        FilterBank(config)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"there is no such filter bank: {error}") from error


def fbank(samples: Array, config: FrontendConfig, each: Each = map) -> Array:
    """Log mel filter bank, f32[frames, n_mels], the same at any `each`.

    Args:
        samples: f32 in [-1, 1).
        config: the front end.
        each: applies a function to every item of a sequence, such as :meth:`LoadedModule.map`.
    """
    return _frames(samples, config, 0, count_frames(len(samples), config), each)


def count_frames(samples: int, config: FrontendConfig) -> int:
    """Frames of the filter bank of a signal of so many samples."""
    shift, window = config.shift_samples, config.window_samples
    if not config.snip_edges:
        return (samples + shift // 2) // shift
    return 0 if samples < window else (samples - window) // shift + 1


def _frames(samples: Array, config: FrontendConfig, begin: int, end: int, each: Each) -> Array:
    """Some of the frames that `fbank` gives for all of the samples."""
    shift = config.shift_samples
    count = max(1, end - begin) if config.dither else _PIECE  # noise is that of one bank
    margin = -(-config.window_samples // shift)  # frames beyond which no window reaches

    def piece(first: int) -> Array:
        before = max(0, first - margin)
        signal = samples[before * shift : (first + count + margin) * shift]
        made: Array = FilterBank(config).take(signal, True)[first - before :]
        return made[: min(count, end - first)]

    empty = np.zeros((0, config.n_mels), np.float32)
    return np.concatenate([empty, *each(piece, range(begin, end, count))])


def stack_frames(frames: Array, config: FrontendConfig) -> Array:
    """Stacks of lfr_m frames around every lfr_n-th, f32[ceil(T / lfr_n), lfr_m * n_mels].

    The first and last frame stand for those before and behind.
    """
    at = _stacked_frames(config, len(frames), 0, -(-len(frames) // config.lfr_n))
    stacked: Array = frames[at].reshape(len(at), -1)
    return stacked


def _stacked_frames(config: FrontendConfig, frames: int, begin: int, end: int) -> Array:
    """Which frames some of the stacks of a signal have, i64[end - begin, lfr_m]."""
    first = np.arange(begin, end) * config.lfr_n - (config.lfr_m - 1) // 2
    at: Array = np.clip(first[:, None] + np.arange(config.lfr_m), 0, frames - 1)
    return at


def normalize(stacked: Array, cmvn: Array | None) -> Array:
    """Frames f32[T, n] with their shift and scale f32[2, n], in the same memory."""
    if cmvn is not None:
        stacked += cmvn[0]
        stacked *= cmvn[1]
    return stacked


def features(samples: Array, config: FrontendConfig, cmvn: Array | None, each: Each = map) -> Array:
    """What an encoder takes for a signal: f32[T, lfr_m * n_mels].

    A signal shorter than a window has no rows.

    Args:
        samples: of the signal, as for `check_samples`.
        config: the front end.
        cmvn: f32[2, lfr_m * n_mels], what is added, and by what the sum is multiplied.
        each: as for :func:`fbank`.

    Raises:
        SamplesError: if they are none.
    """
    samples = check_samples(samples)
    return feature_rows(samples, config, cmvn, 0, count_features(len(samples), config), each)


def count_features(samples: int, config: FrontendConfig) -> int:
    """Rows of :func:`features` of a signal of so many samples."""
    if samples * 1000 < config.frame_length * config.fs:
        return 0
    return -(-count_frames(samples, config) // config.lfr_n)


def feature_rows(
    samples: Array, config: FrontendConfig, cmvn: Array | None, begin: int, end: int, each: Each
) -> Array:
    """Some of the rows that :func:`features` gives for all of the samples, computed alone.

    Args:
        samples: f32[samples] that passed the gate.
        config: the front end.
        cmvn: as for :func:`features`.
        begin: the first of the rows.
        end: behind the last.
        each: as for :func:`fbank`.
    """
    if end <= begin:
        return np.zeros((0, config.lfr_m * config.n_mels), np.float32)
    at = _stacked_frames(config, count_frames(len(samples), config), begin, end)
    first, last = int(at[0, 0]), int(at[-1, -1])
    frames = _frames(samples, config, first, last + 1, each)
    return normalize(frames[at - first].reshape(end - begin, -1), cmvn)
