"""Speech to text by a package, without torch and FunASR."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import PackageCorruptError, PackageError
from graphopt.funasr.directory import FrontendConfig
from graphopt.funasr.features import features, read_wav
from graphopt.funasr.text import tokens_to_text
from graphopt.funasr.vad import Segment, VadConfig, blocks_of, segments
from graphopt.loaded import LoadedModule, load

Array = np.ndarray[Any, Any]

DESCRIPTION = "recognizer.json"
FORMAT = 1


@dataclass(frozen=True)
class _Model:
    """A compiled model behind its front end."""

    module: LoadedModule
    frontend: FrontendConfig
    cmvn: Array | None

    def features(self, samples: Array) -> Array:
        return features(samples, self.frontend, self.cmvn)


@dataclass(frozen=True)
class VoiceDetector(_Model):
    """Where speech is.

    Attributes:
        config: settings of the decisions.
    """

    config: VadConfig

    def find(self, samples: Array) -> list[Segment]:
        """Start and end of each segment of speech in f32 samples in [-1, 1), milliseconds."""
        feats = self.features(samples)
        if not len(feats):
            return []
        scores = self.module(feats[None], self._empty_cache())
        fs, frames = self.frontend.fs, len(feats)
        shift = int(self.frontend.frame_shift * fs / 1000)
        length = int(self.frontend.frame_length * fs / 1000)
        latency = self.frontend.lfr_m // 2
        blocks = blocks_of(frames, len(samples), fs, latency, shift, length)
        return segments(scores[0], blocks, self.config)

    def _empty_cache(self) -> dict[str, Array]:
        """Zeros for the frames before the first."""
        ports = self.module.manifest.inputs[1:]
        prefix = "cache_"
        return {
            port.name.removeprefix(prefix): np.zeros(
                [extent if isinstance(extent, int) else 1 for extent in port.shape], np.float32
            )
            for port in ports
        }


@dataclass(frozen=True)
class Recognizer(_Model):
    """What is said.

    Attributes:
        tokens: the vocabulary.
        special: token ids that are no text.
        detector: finds speech in long recordings, or None: all of it is one utterance.
    """

    tokens: tuple[str, ...]
    special: frozenset[int]
    detector: VoiceDetector | None

    def transcribe(self, wav: str | Path) -> str:
        """The text of a WAV file of 16-bit samples; empty if nothing is said.

        Raises:
            AudioFileError: if it is no such file, or of another sample rate.
        """
        return self.recognize(read_wav(wav, self.frontend.fs))

    def recognize(self, samples: Array) -> str:
        """The text of f32 samples in [-1, 1), its segments of speech separated by spaces."""
        if self.detector is None:
            return self._utterance(samples)
        per_ms = self.frontend.fs / 1000
        parts = [
            self._utterance(samples[int(start * per_ms) : int(end * per_ms)])
            for start, end in self.detector.find(samples)
        ]
        return " ".join(part for part in parts if part)

    def _utterance(self, samples: Array) -> str:
        speech = self.features(samples)
        if not len(speech):
            return ""
        ids, counts = self.module(speech[None], np.array([len(speech)], np.int32))
        spoken = (int(i) for i in ids[0, : int(counts[0])])
        return tokens_to_text(self.tokens[i] for i in spoken if i not in self.special)


def load_recognizer(path: str | Path, num_threads: int | None = None) -> Recognizer:
    """Opens a package of :func:`graphopt.funasr.package.compile_directories`.

    Args:
        path: the folder.
        num_threads: threads of a run; all CPUs that this process may use if None.

    Raises:
        PackageError: if it is none.
        PackageCorruptError: if a file is missing, altered or makes no sense.
        PackageTargetError: when run, if this CPU lacks what the package is built for.
    """
    path = Path(path)
    file = path / DESCRIPTION
    if not file.is_file():
        raise PackageError(f"{path} has no {DESCRIPTION}; make one with graphopt compile funasr")
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
        asr, vad = parts["asr"], parts.get("vad")
        detector = None
        if vad is not None:
            config = VadConfig.read(vad["detector"])
            detector = VoiceDetector(*_model(path / "vad", vad, num_threads), config)
        tokens, special = tuple(asr["tokens"]), frozenset(asr["special"])
        return Recognizer(*_model(path / "asr", asr, num_threads), tokens, special, detector)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, PackageError):
            raise
        raise PackageCorruptError(path, f"{DESCRIPTION}: {error}") from error


def _model(
    path: Path, part: dict[str, Any], threads: int | None
) -> tuple[LoadedModule, FrontendConfig, Array | None]:
    cmvn = None if part["cmvn"] is None else np.array(part["cmvn"], np.float32)
    return load(path, threads), FrontendConfig(**part["frontend"]), cmvn
