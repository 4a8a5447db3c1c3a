"""Speech made by espeak-ng: voices to learn from, and voices that are only for tests.

A voice is a language of espeak-ng with one of its variants, which change pitch, formants,
breathiness and rhythm. The held-out variants share few settings with any other.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import MissingToolError
from graphopt.zoo.recognizer.phrases import ENGLISH, MANDARIN, Part, Rng, draw_parts

SAMPLE_RATE = 16000
Signal = np.ndarray[Any, np.dtype[np.float32]]

# Left out are whispers, which have no tone and so no Mandarin, and `Demonic` and `fast`.
_HELD_OUT = "m2 f3 Alicia Andrea Denis Henrique boris ed grandma grandpa quincy shelby"
_TRAINING = (
    "Alex Andy Annie AnxiousAndy Diogo Gene Gene2 Hugo Jacky Lee Marco Mario Michael Mike Nguyen "
    "RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky UniRobot adam anika anikaRobot announcer "
    "antonio aunty belinda benjamin caleb croak david edward edward2 f1 f2 f4 f5 gustave iven "
    "iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 linda m1 m3 m4 m5 "
    "m6 m7 m8 marcelo max michel miguel norbert pablo paul pedro rob robert robosoft robosoft2 "
    "robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8 sandro steph steph2 steph3 travis "
    "victor zac"
)
HELD_OUT_VARIANTS, TRAINING_VARIANTS = _HELD_OUT.split(), _TRAINING.split()
# `cmn` would read Chinese characters as English letters; this one reads them as Mandarin.
_LANGUAGES = {
    MANDARIN: ("cmn-latn-pinyin",),
    ENGLISH: ("en-us", "en-us", "en-gb", "en-gb-x-rp"),
}
_WAV_HEADER = 44  # bytes; espeak-ng writes 16-bit mono
_ESPEAK_RATE = 22050


@dataclass(frozen=True)
class Utterance:
    """Something to say and how.

    Attributes:
        parts: Language and text of each phrase, said one after another.
        accents: espeak-ng's name of the language for each phrase.
        variant: espeak-ng's voice variant.
        speed: Words a minute.
        pitch: 0 to 99; 50 is the variant's own.
    """

    parts: tuple[Part, ...]
    accents: tuple[str, ...]
    variant: str
    speed: int
    pitch: int

    @property
    def text(self) -> str:
        """What is said: words with spaces, Chinese characters without."""
        return " ".join(text for _, text in self.parts)


def recorded_utterances() -> list[Utterance]:
    """The few short utterances of held-out voices that are kept as recordings."""
    mandarin, english = _LANGUAGES[MANDARIN][0], _LANGUAGES[ENGLISH][0]
    return [
        Utterance(((MANDARIN, "打开客厅的灯"),), (mandarin,), "m2", 170, 50),
        Utterance(((ENGLISH, "turn off the kitchen light"),), (english,), "f3", 170, 50),
        Utterance(
            ((MANDARIN, "下一首"), (ENGLISH, "seven")), (mandarin, english), "quincy", 170, 50
        ),
    ]


def draw_utterance(rng: Rng, variant: str) -> Utterance:
    """A random utterance in a voice variant."""
    parts = draw_parts(rng)
    accents = tuple(str(rng.choice(_LANGUAGES[language])) for language, _ in parts)
    speed, pitch = int(rng.integers(120, 191)), int(rng.integers(30, 71))
    return Utterance(parts, accents, variant, speed, pitch)


def held_out_utterances(per_variant: int = 20, seed: int = 1) -> list[Utterance]:
    """The utterances that a recognizer is judged by, in voices that it never heard."""
    rng = np.random.default_rng(seed)
    return [draw_utterance(rng, v) for v in HELD_OUT_VARIANTS for _ in range(per_variant)]


def synthesize(utterance: Utterance) -> Signal:
    """Speech of an utterance, f32[samples] in [-1, 1] at 16 kHz; equal for equal utterances.

    Raises:
        MissingToolError: If espeak-ng is not installed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise MissingToolError("espeak-ng", "espeak-ng")
    said = []
    for accent, (_, text) in zip(utterance.accents, utterance.parts, strict=True):
        voice = f"{accent}+{utterance.variant}"
        command = [program, "-v", voice, "-s", str(utterance.speed), "-p", str(utterance.pitch)]
        wav = subprocess.run([*command, "--stdout", text], capture_output=True, check=True).stdout
        samples = np.frombuffer(wav[_WAV_HEADER:], np.int16).astype(np.float32) / np.float32(32768)
        said.append(_resample(samples))
    return np.clip(np.concatenate(said), -1, 1)


def add_noise(speech: Signal, snr_db: float, rng: Rng) -> Signal:
    """Speech in noise whose spectrum falls by a random 0 to 6 dB an octave.

    Args:
        speech: f32[samples].
        snr_db: Power of the speech over that of the noise, decibels.
        rng: Where the noise comes from.
    """
    spectrum = np.fft.rfft(rng.standard_normal(len(speech)))
    spectrum /= np.arange(1, len(spectrum) + 1) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(speech))
    power = np.mean(speech**2) / 10 ** (snr_db / 10)
    noise *= np.sqrt(power / np.mean(noise**2))
    return np.clip(speech + noise, -1, 1).astype(np.float32)


def _resample(samples: Signal) -> Signal:
    """From espeak-ng's rate to 16 kHz by cutting the spectrum off at 8 kHz."""
    length = len(samples) * SAMPLE_RATE // _ESPEAK_RATE
    spectrum = np.fft.rfft(samples)[: length // 2 + 1]
    return (np.fft.irfft(spectrum, length) * (length / len(samples))).astype(np.float32)
