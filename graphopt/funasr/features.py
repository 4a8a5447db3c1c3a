"""The feature front end without torch: filter bank, stacked frames, mean and variance.

Filter banks come from kaldi-native-fbank with the settings of FunASR's `WavFrontend`.
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import AudioFileError
from graphopt.funasr.directory import FrontendConfig
from graphopt.zoo.dependencies import require

Array = np.ndarray[Any, Any]

_FULL_SCALE = 1 << 15  # of 16-bit samples


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
    mixed /= np.float32(_FULL_SCALE)
    if rate == fs:
        return mixed
    resampled: Array = require("soxr", "resampling a recording").resample(mixed, rate, fs)
    return resampled


def fbank(samples: Array, config: FrontendConfig) -> Array:
    """Log mel filter bank, f32[frames, n_mels], of f32 samples in [-1, 1)."""
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
    bank = knf.OnlineFbank(options)
    scale = np.float32(_FULL_SCALE if config.upsacle_samples else 1)
    bank.accept_waveform(config.fs, samples * scale)
    bank.input_finished()
    rows = [bank.get_frame(i) for i in range(bank.num_frames_ready)]
    return np.array(rows, np.float32).reshape(-1, config.n_mels)


def stack_frames(frames: Array, config: FrontendConfig) -> Array:
    """Stacks of lfr_m frames around every lfr_n-th, f32[ceil(T / lfr_n), lfr_m * n_mels].

    The first and last frame stand for those before and behind.
    """
    count = -(-len(frames) // config.lfr_n)
    first = np.arange(count) * config.lfr_n - (config.lfr_m - 1) // 2
    at = np.clip(first[:, None] + np.arange(config.lfr_m), 0, len(frames) - 1)
    stacked: Array = frames[at].reshape(count, -1)
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
    return stacked if cmvn is None else (stacked + cmvn[0]) * cmvn[1]
