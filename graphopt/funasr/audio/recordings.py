"""Recordings of any format as samples of one channel at a model's rate."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphopt.dependencies import require
from graphopt.errors import AudioFileError, OutOfMemoryError
from graphopt.funasr.audio.samples import implausible
from graphopt.funasr.audio.wav import find_samples

Array = np.ndarray[Any, Any]

_RATES = (1000, 768000)  # the least and the largest that a recording has
_BLOCK = 1 << 16  # frames


def read_recording(path: str | Path, fs: int) -> Array:
    """Samples of a recording, f32[samples] in [-1, 1); the mean of its channels.

    Args:
        path: a WAV file of integers or floats; with soundfile installed, any file that libsndfile
            reads, such as FLAC, Ogg, MP3 and coded WAV.
        fs: samples per second; files of other rates are resampled by soxr, and may overshoot.

    Raises:
        AudioFileError: if there is no file, or none that can be read.
        OutOfMemoryError: without memory for its samples.
        MissingDependencyError: if it needs soundfile, or is to be resampled, and soundfile or soxr
            is not installed.
    """
    if not isinstance(path, str | os.PathLike):
        kind = type(path).__name__
        raise AudioFileError(kind, "it is no path", "give arrays of samples to recognize or feed")
    try:
        with _open(path) as file, np.errstate(all="ignore"):  # what overflows is found below
            rate, blocks = _blocks(path, file)
            mixed = map(_mixed, blocks)
            samples = _joined(mixed if rate == fs else _resampled(mixed, rate, fs))
    except MemoryError as error:
        raise OutOfMemoryError(f"none for the samples of {path}") from error
    except OSError as error:
        raise AudioFileError(path, error.strerror or str(error), _LOOK) from error
    except ValueError as error:
        if isinstance(error, AudioFileError):
            raise
        raise AudioFileError(path, str(error)) from error
    problem = implausible(samples)
    if problem is not None:
        raise AudioFileError(path, f"it {problem[0]}", problem[1])
    return samples


_LOOK = "look whether the path is right and may be read"


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file that is not empty; nothing else is opened, and so nothing can block.

    Raises:
        AudioFileError: naming what it is instead.
        OSError, ValueError: if there is none.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise AudioFileError(path, "it is a directory", "give the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise AudioFileError(path, "it is no file", "write what comes from there into a file first")
    if not status.st_size:
        raise AudioFileError(path, "it is empty", "record or copy it again")
    return open(path, "rb")


def _blocks(path: str | os.PathLike[str], file: BinaryIO) -> tuple[int, Iterable[Array]]:
    """The rate of a recording, and blocks of f32[frames, channels].

    Raises:
        ValueError: saying why it cannot be read.
        MissingDependencyError: if it needs soundfile, which is not installed.
    """
    wav = find_samples(file)
    if wav is not None:
        _check_rate(wav.rate)
        return wav.rate, wav.read(file)
    name = Path(path).name
    soundfile = require("soundfile", f"reading {name}, which is no WAV file of plain numbers,")
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # where soundfile begins to read
    try:
        coded = soundfile.SoundFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"soundfile cannot read it: {error.error_string.rstrip('.')}") from error
    _check_rate(coded.samplerate)
    return coded.samplerate, _decoded(soundfile, coded)


def _decoded(soundfile: Any, coded: Any) -> Iterator[Array]:
    """Blocks of a file that is open in soundfile.

    Raises:
        ValueError: if it ends before its samples do.
    """
    with coded:
        try:
            while len(block := coded.read(_BLOCK, "float32", always_2d=True)):
                yield block
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"soundfile cannot read it: {error.error_string.rstrip('.')}"
            ) from error


def _check_rate(rate: int) -> None:
    least, most = _RATES
    if not least <= rate <= most:
        raise ValueError(f"it says {rate} samples a second, not {least} to {most}")


def _resampled(blocks: Iterable[Array], rate: int, fs: int) -> Iterator[Array]:
    """Blocks of f32[samples] at another rate: the bits of resampling the whole at once."""
    stream = require("soxr", "resampling a recording").ResampleStream(rate, fs, 1, "float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _mixed(block: Array) -> Array:
    """The mean of the channels of f32[frames, channels]."""
    mixed: Array = block[:, 0].copy()
    for channel in block.T[1:]:
        mixed += channel
    mixed /= block.shape[1]
    return mixed


def _joined(blocks: Iterable[Array]) -> Array:
    """Blocks as one array, which grows in place: no more memory than it has in the end."""
    joined = np.zeros(0, np.float32)
    for block in blocks:
        begin = len(joined)
        joined.resize(begin + len(block), refcheck=False)
        joined[begin:] = block
    return joined
