"""The feature front end without torch: filter bank, stacked frames, mean and variance."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import AudioFileError
from graphopt.funasr.directory import FrontendConfig
from graphopt.funasr.filter_bank import FULL_SCALE, fbank
from graphopt.zoo.dependencies import require

Array = np.ndarray[Any, Any]


def read_wav(path: str | Path, fs: int) -> Array:
    """Samples of a WAV file, f32 in [-1, 1); the mean of its channels.

    Args:
        path: a file of 16-bit PCM samples, of any sample rate.
        fs: samples per second; files of other rates are resampled by soxr, and may overshoot.

    Raises:
        AudioFileError: if it is no such file.
        MissingDependencyError: if it is to be resampled and soxr is not installed.
    """
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise AudioFileError(path, str(error) or "it ends too early") from error
    if width != 2 or rate <= 0:
        raise AudioFileError(path, f"it has {8 * width} bits at {rate} Hz, not 16 bits")
    samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], "<i2")
    mixed: Array = samples.reshape(-1, channels).mean(1).astype(np.float32)
    mixed /= np.float32(FULL_SCALE)
    if rate == fs:
        return mixed
    resampled: Array = require("soxr", "resampling a recording").resample(mixed, rate, fs)
    return resampled


def stack_frames(frames: Array, config: FrontendConfig) -> Array:
    """Stacks of lfr_m frames around every lfr_n-th, f32[ceil(T / lfr_n), lfr_m * n_mels].

    The first and last frame stand for those before and behind.
    """
    count = -(-len(frames) // config.lfr_n)
    before = (config.lfr_m - 1) // 2
    behind = max(0, (count - 1) * config.lfr_n + config.lfr_m - before - len(frames))
    padded = np.pad(frames, ((before, behind), (0, 0)), "edge").reshape(-1)
    width = config.lfr_m * config.n_mels
    stacks = np.lib.stride_tricks.sliding_window_view(padded, width)
    stacked: Array = stacks[:: config.lfr_n * config.n_mels][:count].copy()
    return stacked


def features(samples: Array, config: FrontendConfig, cmvn: Array | None) -> Array:
    """What an encoder takes for a signal: f32[T, lfr_m * n_mels].

    A signal shorter than a window has no rows.

    Args:
        samples: f32 in [-1, 1).
        config: the front end.
        cmvn: f32[2, lfr_m * n_mels], what is added, and by what the sum is multiplied.
    """
    if len(samples) * 1000 < config.frame_length * config.fs:
        return np.zeros((0, config.lfr_m * config.n_mels), np.float32)
    stacked = stack_frames(fbank(samples, config), config)
    if cmvn is not None:
        stacked += cmvn[0]
        stacked *= cmvn[1]
    return stacked
