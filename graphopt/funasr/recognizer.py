"""Speech to text by a package, without torch and FunASR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import GraphoptError, PackageCorruptError, PackageError, RecognizerOptionError
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.audio.samples import check_recordings, check_samples
from graphopt.funasr.audio.vad import Segment
from graphopt.funasr.description import DESCRIPTION, FORMAT, Described, Description
from graphopt.funasr.models.ct_transformer import Punctuator
from graphopt.funasr.models.ct_transformer_streaming import StreamingPunctuator
from graphopt.funasr.models.fsmn_vad_streaming import VoiceDetector
from graphopt.funasr.models.speech_model import SpeechModel, Utterance
from graphopt.funasr.text.punctuation import join_segments
from graphopt.funasr.text.times import Sentence, Time, segment_sentences, sentences
from graphopt.runtime.sealed import SealedFolder, open_sealed
from graphopt.runtime.signing import PublicKey

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording, and when.

    Attributes:
        text: with punctuation, if there is a punctuator.
        times: of its words; None if the model tells none.
        sentences: of the text. Where words and marks do not match, and for models that tell no
            times, each is what was said in a segment of speech.
    """

    text: str
    times: list[Time] | None
    sentences: list[Sentence]


@dataclass(frozen=True)
class Recognizer:
    """From recordings to text.

    Attributes:
        speech: recognizes an utterance.
        detector: finds speech in long recordings, or None: all of it is one utterance.
        punctuator: punctuates the text, or None.
    """

    speech: SpeechModel
    detector: VoiceDetector | None
    punctuator: Punctuator | StreamingPunctuator | None

    def transcribe(self, path: str | Path) -> str:
        """The text of a recording; empty if nothing is said.

        Raises:
            AudioFileError, MissingDependencyError: as `read_recording`.
        """
        return self.recognize(read_recording(path, self.speech.frontend.fs))

    def transcribe_with_times(self, path: str | Path) -> Transcript:
        """The text of a recording, and when it was said.

        It is that of FunASR's `generate` with `output_timestamp` and `sentence_timestamp`.

        Raises:
            AudioFileError, MissingDependencyError: as :meth:`transcribe`.
        """
        samples = read_recording(path, self.speech.frontend.fs)
        segments = self._segments(samples)
        said = self.speech.utterances([self._cut(samples, segment) for segment in segments])
        shifted = [
            _later(utterance, begin) for utterance, (begin, _) in zip(said, segments, strict=True)
        ]
        told = any(utterance.times is not None for utterance in shifted)
        times = [time for utterance in shifted for time in utterance.times or []]
        texts = [utterance.text for utterance in shifted]
        text, classes = self._join(texts)
        if times and len(classes) == len(times):
            assert self.punctuator is not None
            words = join_segments(texts).split()
            found = sentences(words, times, classes, self.punctuator.config)
        else:
            found = segment_sentences([(one.text, one.times or []) for one in shifted], segments)
        return Transcript(text, times if told else None, found)

    def recognize(self, samples: Array) -> str:
        """The text of a signal; without a punctuator segments separated by spaces.

        Args:
            samples: f32[samples] in [-1, 1), or others that `check_samples` takes, at
                `speech.frontend.fs` a second.

        Raises:
            SamplesError: if they are none.
        """
        return self.recognize_all([check_samples(samples)])[0]

    def recognize_all(self, recordings: Sequence[Array]) -> list[str]:
        """What :meth:`recognize` gives for each; Paraformer gets their segments in batches.

        Raises:
            SamplesError: naming the argument that is no recording.
        """
        signals = check_recordings(recordings)
        segments = [
            [self._cut(samples, segment) for segment in self._segments(samples)]
            for samples in signals
        ]
        texts = iter(self.speech.texts([part for parts in segments for part in parts]))
        return [self._join([next(texts) for _ in parts])[0] for parts in segments]

    def with_hotwords(self, hotword: str | None) -> Recognizer:
        """The same recognizer for other hotwords; what it has compiled is shared.

        Args:
            hotword: words between spaces, or the path of a `.txt` file with one in each line, as
                for FunASR's `generate`; None for none.

        Raises:
            RecognizerOptionError: if it is neither, or the model takes no hotwords.
        """
        return replace(self, speech=self.speech.with_hotwords(hotword))

    def _join(self, texts: list[str]) -> tuple[str, list[int]]:
        """The texts of segments as one, and what follows each word, if a punctuator tells it."""
        if self.punctuator is None:
            return " ".join(text for text in texts if text), []
        joined = join_segments(texts)
        if isinstance(self.punctuator, Punctuator):
            return self.punctuator.mark(joined)
        return self.punctuator.punctuate(joined), []

    def _segments(self, samples: Array) -> list[Segment]:
        """Begin and end of each segment of speech, milliseconds."""
        if self.detector is None:
            return [(0, len(samples) * 1000 // self.speech.frontend.fs)]
        return self.detector.find(samples)

    def _cut(self, samples: Array, segment: Segment) -> Array:
        """The samples of a segment; all of them without a detector."""
        if self.detector is None:
            return samples
        per_ms = self.speech.frontend.fs / 1000
        begin, end = segment
        return samples[int(begin * per_ms) : int(end * per_ms)]


def _later(utterance: Utterance, begin_ms: int) -> Utterance:
    """An utterance with the times of the recording that it is in."""
    if utterance.times is None:
        return utterance
    times = [(begin + begin_ms, end + begin_ms) for begin, end in utterance.times]
    return replace(utterance, times=times)


def load_recognizer(
    path: str | Path,
    num_threads: int | None = None,
    language: str = "auto",
    use_itn: bool = False,
    hotword: str | None = None,
    vad_options: Mapping[str, Any] | None = None,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> Recognizer:
    """Opens a package of :func:`graphopt.funasr.package.compile_directories`.

    Args:
        path: the folder.
        num_threads: threads of a run; all CPUs that this process may use if None.
        language: that SenseVoice is told: `auto`, `zh`, `en`, `yue`, `ja`, `ko` or `nospeech`.
        use_itn: whether SenseVoice is asked for the written form: digits and punctuation.
        hotword: what Contextual Paraformer and SeACo-Paraformer should expect, as for
            :meth:`Recognizer.with_hotwords`.
        vad_options: settings of FSMN-VAD as FunASR's `vad_kwargs` takes them, such as
            `max_end_silence_time`; see `VadConfig.change`.
        trusted_keys: as for `graphopt.load`.

    Raises:
        PackageError: if it is none.
        UntrustedPackageError, SigningKeyError: as for `graphopt.load`.
        PackageCorruptError: if a file is missing, altered or makes no sense.
        PackageTargetError: when run, if this CPU lacks what the package is built for.
        RecognizerOptionError: if the recognizer cannot be told the language, the form, hotwords, or
            an option of FSMN-VAD.
        MissingDependencyError: if SenseVoice is to run and sentencepiece is not installed.
    """
    package = open_recognizer(path, trusted_keys)
    with reading(package) as parts:
        speech = open_part(package, parts, "asr", num_threads)
        if speech is None:
            raise PackageError(f"{path} recognizes no speech; open it with load_aligner")
        if not isinstance(speech, SpeechModel):
            raise PackageError(f"{path} holds a streaming model; open it with load_live")
        speech = speech.with_language(language, use_itn)
        detector = open_detector(package, parts, num_threads, vad_options)
        punctuator = open_part(package, parts, "punc", num_threads)
        return Recognizer(speech, detector, punctuator).with_hotwords(hotword)


def open_recognizer(path: str | Path, trusted_keys: Sequence[PublicKey] | None) -> SealedFolder:
    """Opens a package of a recognizer after checking every file in it; see `open_sealed`."""
    return open_sealed(path, DESCRIPTION, "package of graphopt compile funasr", trusted_keys)


@contextmanager
def reading(package: SealedFolder) -> Iterator[dict[str, Described]]:
    """What a package says of each model; what is wrong with it is found while the block lasts.

    Raises:
        PackageError: if the package is one of another format.
        PackageCorruptError: if something that the block looks for is missing or makes no sense.
    """
    try:
        yield package.read(DESCRIPTION, Description, FORMAT).read()
    except ValueError as error:
        if isinstance(error, GraphoptError):
            raise
        raise PackageCorruptError(package.path, f"{DESCRIPTION}: {error}") from error


def open_part(
    package: SealedFolder, parts: Mapping[str, Described], task: str, threads: int | None
) -> Any:
    """What runs the model of a package for a task; None without one.

    Args:
        package: that says `parts`.
        parts: its models by task.
        task: as in `ModelClass`.
        threads: of a run; all CPUs that this process may use if None.

    Raises:
        ValueError: saying what makes no sense in `parts`.
    """
    found = parts.get(task)
    return None if found is None else found.model.open(package, found.part, threads)


def open_detector(
    package: SealedFolder,
    parts: Mapping[str, Described],
    threads: int | None,
    options: Mapping[str, Any] | None,
) -> VoiceDetector | None:
    """The detector of a package with options of a user; None without one.

    Args:
        package: as for `open_part`.
        parts: as for `open_part`.
        threads: as for `open_part`.
        options: as for `VoiceDetector.with_options`.

    Raises:
        RecognizerOptionError: naming an unknown option, or one that no part takes.
        ValueError: as `open_part`.
    """
    detector: VoiceDetector | None = open_part(package, parts, "vad", threads)
    if not options:
        return detector
    if detector is None:
        raise RecognizerOptionError("vad_options", dict(options), ["none: it has no FSMN-VAD"])
    return detector.with_options(options)
