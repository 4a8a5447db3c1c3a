"""Speech to text while it is spoken, by a package, without torch and FunASR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import PackageError
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.audio.samples import SignalStream
from graphopt.funasr.models.ct_transformer import Punctuator
from graphopt.funasr.models.ct_transformer_streaming import StreamingPunctuator
from graphopt.funasr.models.fsmn_vad_streaming import VoiceDetector
from graphopt.funasr.models.paraformer_streaming import StreamingParaformer
from graphopt.funasr.recognizer import open_detector, open_part, open_recognizer, reading
from graphopt.funasr.stream.detector_stream import DetectorStream
from graphopt.funasr.stream.paraformer_stream import Chunking, ParaformerStream
from graphopt.runtime.signing import PublicKey

Array = np.ndarray[Any, Any]

_FED_MS = 100  # of a file at a time, as from a microphone


@dataclass(frozen=True)
class Heard:
    """What is known of an utterance.

    Attributes:
        text: all of it so far; with punctuation when it is over.
        is_final: whether it is over.
        begin_ms: where it begins in the signal.
        end_ms: where it ends, or as far as it has been heard.
    """

    text: str
    is_final: bool
    begin_ms: int
    end_ms: int


@dataclass(frozen=True)
class LiveRecognizer:
    """From signals that go on to text; any number of streams share it.

    Attributes:
        speech: recognizes an utterance chunk by chunk.
        detector: finds utterances, or None: all of a signal is one.
        punctuator: punctuates utterances, or None.
    """

    speech: StreamingParaformer
    detector: VoiceDetector | None
    punctuator: Punctuator | StreamingPunctuator | None

    def stream(self, chunking: Chunking | None = None) -> LiveStream:
        """What hears one signal, of samples at `speech.frontend.fs` a second."""
        return LiveStream(self, chunking or Chunking())

    def listen(self, path: str | Path, chunking: Chunking | None = None) -> Iterator[Heard]:
        """What a stream says of a recording.

        Raises:
            AudioFileError, MissingDependencyError: as `read_recording`.
        """
        fs = self.speech.frontend.fs
        samples, stream = read_recording(path, fs), self.stream(chunking)
        step = _FED_MS * fs // 1000
        for begin in range(0, len(samples), step):
            yield from stream.feed(samples[begin : begin + step])
        yield from stream.finish()


class LiveStream(SignalStream[Heard]):
    """One signal.

    With a detector, an utterance is heard from the beginning of its segment to where the detector
    was when it told the end.
    """

    def __init__(self, recognizer: LiveRecognizer, chunking: Chunking) -> None:
        self._recognizer, self._chunking = recognizer, chunking
        punctuator, detector = recognizer.punctuator, recognizer.detector
        self._punctuator = None if punctuator is None else punctuator.stream()
        self._detector = None if detector is None else DetectorStream(detector)
        self._fs = recognizer.speech.frontend.fs
        self._samples = np.zeros(0, np.float32)  # that are kept
        self._begin = 0  # of these in the signal
        self._detected = 0  # up to where speech has been looked for
        self._utterance = _Utterance(recognizer.speech, chunking, 0) if detector is None else None

    def _feed(self, samples: Array) -> list[Heard]:
        self._samples = np.concatenate([self._samples, samples])
        end = self._begin + len(self._samples)
        if self._detector is None:
            heard = self._hear(end)
            self._forget(end)
            return heard
        heard = []
        while end - self._detected >= self._detector.chunk:
            heard += self._detect(self._detector, self._detected + self._detector.chunk, False)
        return heard

    def _finish(self) -> list[Heard]:
        end = self._begin + len(self._samples)
        if self._detector is None:
            return self._close(end, end * 1000 // self._fs)
        return self._detect(self._detector, end, True)

    def _detect(self, detector: DetectorStream, end: int, is_final: bool) -> list[Heard]:
        """Looks for speech up to a place of the signal, and hears it."""
        heard = []
        for begin_ms, end_ms in detector.hear(self._part(self._detected, end), is_final):
            if begin_ms >= 0:
                begin = begin_ms * self._fs // 1000
                self._utterance = _Utterance(self._recognizer.speech, self._chunking, begin)
            if end_ms >= 0:
                heard += self._close(max(end_ms * self._fs // 1000, self._detected), end_ms)
        heard += self._hear(end)
        self._detected = end
        self._forget(end - detector.delay)
        return heard

    def _hear(self, end: int) -> list[Heard]:
        """Feeds the open utterance up to a place of the signal."""
        utterance = self._utterance
        if utterance is None or not utterance.feed(self._part(utterance.end, end)):
            return []
        return [utterance.heard(utterance.end * 1000 // self._fs)]

    def _close(self, end: int, end_ms: int) -> list[Heard]:
        """Feeds the open utterance up to its end."""
        utterance, self._utterance = self._utterance, None
        assert utterance is not None
        utterance.feed(self._part(utterance.end, end))
        utterance.finish()
        heard = utterance.heard(end_ms, is_final=True)
        if self._punctuator is not None:
            heard = replace(heard, text=self._punctuator.punctuate(heard.text))
        return [heard] if heard.text else []

    def _part(self, begin: int, end: int) -> Array:
        return self._samples[max(0, begin - self._begin) : max(0, end - self._begin)]

    def _forget(self, end: int) -> None:
        """Drops the samples before a place of the signal."""
        dropped = max(0, end - self._begin)
        self._samples = self._samples[dropped:]
        self._begin += dropped


class _Utterance:
    """An utterance that is being heard.

    Attributes:
        end: the place of the signal up to which it has been heard.
    """

    def __init__(self, speech: StreamingParaformer, chunking: Chunking, begin: int) -> None:
        self.end = begin
        self._begin_ms = begin * 1000 // speech.frontend.fs
        self._speech, self._stream = speech, ParaformerStream(speech, chunking)
        self._ids: list[int] = []

    def feed(self, samples: Array) -> bool:
        """Whether the next samples bring tokens."""
        self.end += len(samples)
        found = self._stream.feed(samples)
        self._ids += found
        return bool(found)

    def finish(self) -> None:
        """Hears the last chunk."""
        self._ids += self._stream.finish()

    def heard(self, end_ms: int, is_final: bool = False) -> Heard:
        """What is known now."""
        return Heard(self._speech.spell(self._ids), is_final, self._begin_ms, end_ms)


def load_live(
    path: str | Path,
    num_threads: int | None = None,
    vad_options: Mapping[str, Any] | None = None,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> LiveRecognizer:
    """Opens a package of `compile_directories` that holds a streaming model.

    Args:
        path: the folder.
        num_threads: threads of a run; all CPUs that this process may use if None.
        vad_options: as for `load_recognizer`.
        trusted_keys: as for `graphopt.load`.

    Raises:
        RecognizerOptionError: if an option of FSMN-VAD is none, or there is no FSMN-VAD.
        PackageError: if it is none, or its model hears whole utterances.
        PackageCorruptError: if a file is missing, altered or makes no sense.
        PackageTargetError: when run, if this CPU lacks what the package is built for.
        UntrustedPackageError, SigningKeyError: as for `graphopt.load`.
    """
    package = open_recognizer(path, trusted_keys)
    with reading(package) as parts:
        speech = open_part(package, parts, "asr", num_threads)
        if not isinstance(speech, StreamingParaformer):
            raise PackageError(
                f"{path} hears whole utterances; compile the directory of a ParaformerStreaming"
            )
        detector = open_detector(package, parts, num_threads, vad_options)
        punctuator = open_part(package, parts, "punc", num_threads)
        return LiveRecognizer(speech, detector, punctuator)
