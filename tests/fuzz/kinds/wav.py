"""WAV files."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from fuzz.files import Kind
from mutations import Mutation, accidents, number

from graphopt.funasr.audio.recordings import read_recording

RATE, HEADER = 16000, 44  # bytes before the samples


def make(path: Path) -> None:
    tone = 0.3 * np.sin(np.arange(RATE // 4) / 9)
    with path.open("wb") as file:
        soundfile.write(file, tone, RATE, "PCM_16", format="WAV")


def rewritten(kind: str, subtype: str) -> Callable[[Path, random.Random], None]:
    """Another format, in which something extreme stands in the header."""

    def change(path: Path, rng: random.Random) -> None:
        tone = np.float32([0.1, -0.2]) * rng.randint(1, 3)
        with path.open("wb") as file:
            soundfile.write(file, np.tile(tone, (2000, 1)), RATE, subtype, format=kind)
        for _ in range(rng.randint(0, 2)):
            number(path, rng)

    return change


def header(path: Path, rng: random.Random) -> None:
    """Some other bytes before the samples."""
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(HEADER)] = rng.choice([0, 1, 2, 3, 255, rng.randrange(256)])
    path.write_bytes(data)


def use(path: Path) -> None:
    samples = read_recording(path, RATE)
    assert samples.ndim == 1 and np.isfinite(samples).all()


_FORMATS = [("WAV", s) for s in ("PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")]
_FORMATS += [("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]
_FORMATS += [("AIFF", "PCM_16"), ("MP3", "MPEG_LAYER_III")]

KIND = Kind(
    make,
    [
        *accidents(is_refused=False),
        *[Mutation("header", header)] * 8,
        *[Mutation("format", rewritten(kind, subtype)) for kind, subtype in _FORMATS],
    ],
    use,
)
