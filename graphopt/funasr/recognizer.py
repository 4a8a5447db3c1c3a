"""Speech to text by a package, without torch and FunASR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.dependencies import require
from graphopt.errors import GraphoptError, PackageCorruptError, PackageError, RecognizerOptionError
from graphopt.funasr.audio.features import check_front_end
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.audio.samples import check_recordings, check_samples
from graphopt.funasr.audio.vad import OPTIONS, Segment, VadConfig
from graphopt.funasr.description import (
    FORMAT,
    Description,
    DetectorPart,
    HotwordPart,
    ParaformerPart,
    Parts,
    PunctuationPart,
    SenseVoicePart,
    Sound,
    StreamingPart,
)
from graphopt.funasr.hotword_models import ContextualModel, SeacoModel
from graphopt.funasr.parts import (
    LANGUAGES,
    ParaformerModel,
    Punctuator,
    SenseVoiceModel,
    SpeechModel,
    StreamingPunctuator,
    Utterance,
    VoiceDetector,
)
from graphopt.funasr.text.clocks import open_clock
from graphopt.funasr.text.hotwords import HotwordEncoder, read_pieces
from graphopt.funasr.text.punctuation import join_segments
from graphopt.funasr.text.times import Sentence, Time, segment_sentences, sentences
from graphopt.runtime.loaded import LoadedModule, open_module
from graphopt.runtime.sealed import SealedFolder, open_sealed
from graphopt.runtime.signing import PublicKey

Array = np.ndarray[Any, Any]

DESCRIPTION = "recognizer.json"
PIECES = "pieces.model"
SPLITS = "splits"


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
            SamplesError: naming the recording that is none.
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
        part = parts.asr
        if isinstance(part, StreamingPart):
            raise PackageError(f"{path} holds a streaming model; open it with load_live")
        speech: SpeechModel
        if isinstance(part, SenseVoicePart):
            speech = _sense_voice(package, part, num_threads, language, use_itn)
        else:
            speech = _paraformer(package, part, num_threads, language, use_itn)
        detector = open_detector(package.folder("vad"), parts.vad, num_threads, vad_options)
        punctuator = open_punctuator(package.folder("punc"), parts.punc, num_threads)
        return Recognizer(speech, detector, punctuator).with_hotwords(hotword)


def open_recognizer(path: str | Path, trusted_keys: Sequence[PublicKey] | None) -> SealedFolder:
    """Opens a package of a recognizer after checking every file in it; see `open_sealed`."""
    return open_sealed(path, DESCRIPTION, "package of graphopt compile funasr", trusted_keys)


@contextmanager
def reading(package: SealedFolder) -> Iterator[Parts]:
    """What a package says of each part; what is wrong with it is found while the block lasts.

    Raises:
        PackageError: if the package is one of another format.
        PackageCorruptError: if something that the block looks for is missing or makes no sense.
    """
    try:
        yield package.read(DESCRIPTION, Description, FORMAT).parts
    except ValueError as error:
        if isinstance(error, GraphoptError):
            raise
        raise PackageCorruptError(package.path, f"{DESCRIPTION}: {error}") from error


def open_front_end(part: Sound) -> tuple[FrontendConfig, Array | None]:
    """The front end of a part, and its shift and scale.

    Raises:
        ValueError: if there is no such filter bank.
    """
    check_front_end(part.frontend)
    return part.frontend, part.normalization()


def _audio(
    package: SealedFolder, part: Sound, threads: int | None
) -> tuple[LoadedModule, FrontendConfig, Array | None]:
    return open_module(package, threads), *open_front_end(part)


def _paraformer(
    package: SealedFolder,
    part: ParaformerPart | HotwordPart,
    threads: int | None,
    language: str,
    use_itn: bool,
) -> ParaformerModel:
    if language != "auto":
        raise RecognizerOptionError("language", language, ["auto"])
    if use_itn:
        raise RecognizerOptionError("use_itn", use_itn, [False])
    tokens, special = part.tokens, frozenset(part.special)
    clock = open_clock(part.clock, lambda name: open_module(package.folder(name), threads))
    plain = (*_audio(package.folder("asr"), part, threads), tokens, special, part.spaced, clock)
    if isinstance(part, ParaformerPart):
        return ParaformerModel(*plain)
    encoder = _hotword_encoder(package, part, threads)
    if part.model == "ContextualParaformer":
        return ContextualModel(*plain, encoder, encoder.encode(None))
    bias, scores = (open_module(package.folder(n), threads) for n in ("bias", "scores"))
    return SeacoModel(*plain, encoder, bias, scores, None)


def _hotword_encoder(
    package: SealedFolder, part: HotwordPart, threads: int | None
) -> HotwordEncoder:
    ids = {token: i for i, token in enumerate(part.tokens)}
    pieces = read_pieces(package.text(SPLITS)) if SPLITS in package else None
    step = open_module(package.folder("hotwords"), threads)
    return HotwordEncoder(step, ids, ids[part.unknown], part.empty, pieces)


def _sense_voice(
    package: SealedFolder,
    part: SenseVoicePart,
    threads: int | None,
    language: str,
    use_itn: bool,
) -> SenseVoiceModel:
    if language not in LANGUAGES:
        raise RecognizerOptionError("language", language, LANGUAGES)
    sentencepiece = require("sentencepiece", "running SenseVoice")
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=package.data(PIECES))
    except (OSError, RuntimeError) as error:
        raise PackageCorruptError(package.path, f"{PIECES}: {error}") from error
    audio = _audio(package.folder("asr"), part, threads)
    return SenseVoiceModel(*audio, pieces, part.blank, language, use_itn)


def open_detector(
    package: SealedFolder,
    part: DetectorPart | None,
    threads: int | None,
    options: Mapping[str, Any] | None,
) -> VoiceDetector | None:
    """The detector of a package; None without one.

    Raises:
        RecognizerOptionError: naming an option that is none, or that nothing takes.
    """
    if part is None:
        if options:
            raise RecognizerOptionError("vad_options", dict(options), ["none: it has no FSMN-VAD"])
        return None
    config = change_detector(part.detector, options or {}, part.frontend)
    detector = VoiceDetector(*_audio(package, part, threads), config)
    classes = detector.module.manifest.outputs[0].shape[-1]
    if not isinstance(classes, int) or max(config.sil_pdf_ids) >= classes:
        problem = f"sil_pdf_ids {config.sil_pdf_ids} of {classes} classes"
        if options:
            raise RecognizerOptionError("VAD option", problem, [f"classes below {classes}"])
        raise ValueError(problem)
    return detector


def change_detector(
    config: VadConfig, options: Mapping[str, Any], frontend: FrontendConfig
) -> VadConfig:
    """`VadConfig.change` for options of a user.

    Raises:
        RecognizerOptionError: naming what is not understood, with all that is.
    """
    try:
        return config.change(options, frontend)
    except ValueError as error:
        raise RecognizerOptionError("VAD option", error, OPTIONS) from error


def open_punctuator(
    package: SealedFolder, part: PunctuationPart | None, threads: int | None
) -> Punctuator | StreamingPunctuator | None:
    """The punctuator of a package; None without one."""
    if part is None:
        return None
    ids = {token: i for i, token in enumerate(part.tokens)}
    kind: type[Punctuator | StreamingPunctuator] = StreamingPunctuator
    if part.model == "CTTransformer":
        kind = Punctuator
    return kind(open_module(package, threads), ids, ids[part.unknown], part.punctuation)
