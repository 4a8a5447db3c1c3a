"""SenseVoiceSmall: what is said, in which language, mood and surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.dependencies import require
from graphopt.errors import PackageCorruptError, RecognizerOptionError
from graphopt.funasr.models.audio_model import (
    Sound,
    describe_sound,
    example_lengths,
    example_speech,
    open_audio,
)
from graphopt.funasr.models.model_class import (
    PIECES,
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Understood,
)
from graphopt.funasr.models.speech_model import SpeechModel
from graphopt.runtime.fields import Count
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]

#: Rows of embeddings that stand for what is asked, before the features.
LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
WRITTEN_FORM, SPOKEN_FORM = 14, 15
_QUERIES = 4


@dataclass(frozen=True)
class SenseVoicePart(Sound):
    """What a package says of it.

    Attributes:
        blank: the token id that is nothing.
    """

    blank: Count


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {**describe_sound(directory), "blank": settings.get("blank_id", 0)}


def _files(directory: ModelDirectory) -> dict[str, Path | None]:
    return {PIECES: directory.pieces}


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.sense_voice import SenseVoice

    asked = torch.zeros(2, dtype=torch.int64)
    inputs = (example_speech(directory), example_lengths(), asked, asked.clone())
    return {"asr": (SenseVoice(model), inputs)}


@dataclass(frozen=True)
class SenseVoiceModel(SpeechModel):
    """What is said, by SenseVoiceSmall.

    Attributes:
        pieces: the `SentencePieceProcessor` of the vocabulary.
        blank: the token id that is nothing.
        language: one of LANGUAGES.
        use_itn: whether numbers and dates are asked for as they are written, with punctuation.
    """

    pieces: Any
    blank: int
    language: str = "auto"
    use_itn: bool = False

    def text(self, samples: Array) -> str:
        """The text of an utterance, behind its tags; empty without a frame."""
        speech = self.features(samples)
        if not len(speech):
            return ""
        form = WRITTEN_FORM if self.use_itn else SPOKEN_FORM
        (ids,) = self.module(
            speech[None],
            np.array([len(speech)], np.int32),
            np.array([LANGUAGES[self.language]]),
            np.array([form]),
        )
        found = collapse(ids[: len(speech) + _QUERIES], self.blank)
        if max(found, default=0) >= self.pieces.GetPieceSize():
            raise PackageCorruptError(self.module.path, f"token {max(found)} is no piece")
        text: str = self.pieces.DecodeIds(found)
        return text

    def texts(self, utterances: Sequence[Array]) -> list[str]:
        """What :meth:`text` gives for each."""
        return [self.text(samples) for samples in utterances]

    def with_language(self, language: str, use_itn: bool) -> SenseVoiceModel:
        """The same model for another language and form.

        Args:
            language: one of LANGUAGES.
            use_itn: whether numbers and dates are asked for as they are written.

        Raises:
            RecognizerOptionError: if it does not know the language, or the form is neither.
        """
        if not isinstance(language, str) or language not in LANGUAGES:
            raise RecognizerOptionError("language", language, LANGUAGES)
        if not isinstance(use_itn, bool):
            raise RecognizerOptionError("use_itn", use_itn, ["True", "False"])
        return replace(self, language=language, use_itn=use_itn)


def collapse(ids: Array, blank: int) -> list[int]:
    """The tokens of a best path of CTC, i64[T]: equal neighbours are one, blanks are none."""
    changes = np.append(True, ids[1:] != ids[:-1])
    return [int(i) for i in ids[changes] if i != blank]


def _open(package: SealedFolder, part: SenseVoicePart, threads: int | None) -> SenseVoiceModel:
    sentencepiece = require("sentencepiece", "running SenseVoice")
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=package.data(PIECES))
    except (OSError, RuntimeError) as error:
        raise PackageCorruptError(package.path, f"{PIECES}: {error}") from error
    return SenseVoiceModel(*open_audio(package.folder("asr"), part, threads), pieces, part.blank)


def _compile_parts(model: Any, compile_part: Compile) -> None:
    import torch

    from graphopt.funasr.auto_parts.parts import FRAMES, example_lengths, input_size
    from graphopt.funasr.auto_parts.sense_voice import FramesPart
    from graphopt.funasr.layers.paraformer import share_parameters
    from graphopt.funasr.layers.sense_voice import Frames

    encoder = model.encoder
    features = torch.randn(2, FRAMES, input_size(encoder))
    compiled = compile_part(Frames(share_parameters(encoder)), (features, example_lengths(FRAMES)))
    model.encoder = FramesPart(encoder, compiled)


MODEL = ModelClass(
    name="SenseVoiceSmall",
    task="asr",
    understood=Understood(
        ("funasr.models.sense_voice.model",),
        {
            "encoder": ("SenseVoiceEncoderSmall",),
            "frontend": ("WavFrontend",),
            "tokenizer": ("SentencepiecesTokenizer",),
        },
        passed=("lsm_weight",),
    ),
    part=SenseVoicePart,
    describe=_describe,
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
    files=_files,
    in_batches=True,
)
