"""MonotonicAligner: when the words of a text were spoken in a signal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.funasr.models.audio_model import (
    AudioModel,
    Sound,
    describe_sound,
    example_lengths,
    example_speech,
    open_audio,
)
from graphopt.funasr.models.model_class import (
    SPLITS,
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Tokens,
    Understood,
)
from graphopt.funasr.models.speech_model import Utterance
from graphopt.funasr.text.clocks import (
    Clock,
    FineTimes,
    describe_fine_times,
    open_fine_clock,
)
from graphopt.funasr.text.hotwords import read_pieces
from graphopt.funasr.text.spelling import tokens_to_text, word_times
from graphopt.funasr.text.splitting import split_text
from graphopt.funasr.text.times import Time
from graphopt.runtime.loaded import open_module
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]

_FINER = 3  # frames that FunASR's aligner takes for one, whatever its predictor makes
_END = "</s>"


@dataclass(frozen=True)
class AlignerPart(Sound):
    """What a package says of it.

    Attributes:
        tokens: the vocabulary.
        unknown: the token that stands for others.
        clock: what times of tokens are made of.
    """

    tokens: Tokens
    unknown: str
    clock: FineTimes


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    clock = describe_fine_times(directory.config)
    if clock is None:
        raise ValueError("predictor_conf.upsample_type (known: cnn_blstm)")
    if clock["finer"] != _FINER:
        raise ValueError(f"predictor_conf.upsample_times: {clock['finer']!r:.60} (known: {_FINER})")
    sound = describe_sound(directory)
    return {**sound, "tokens": directory.tokens, "unknown": directory.unknown, "clock": clock}


def _files(directory: ModelDirectory) -> dict[str, Path | None]:
    return {SPLITS: directory.text_splits}


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    from graphopt.funasr.layers.paraformer import Encoder, share_parameters
    from graphopt.funasr.layers.predictor_times import capture_times

    encoder = Encoder(share_parameters(model.encoder))
    inputs = (example_speech(directory), example_lengths())
    return {"align": (encoder, inputs), **capture_times(model.predictor)}


@dataclass(frozen=True)
class Aligner(AudioModel):
    """When the words of a text were spoken.

    Attributes:
        tokens: the vocabulary.
        unknown: the token that stands for others.
        pieces: the tokens of words; without them every character is one.
        clock: what tells when tokens were spoken.
    """

    tokens: frozenset[str]
    unknown: str
    pieces: dict[str, list[str]] | None
    clock: Clock

    def align(self, samples: Array, text: str) -> Utterance:
        """Finds the words of a text in a signal.

        Args:
            samples: f32[samples] in [-1, 1), or others that `check_samples` takes, at
                `frontend.fs` a second.
            text: what is said; words between spaces.

        Returns:
            The text, with spaces between characters too, and the times of its words.

        Raises:
            SamplesError: if the samples are none.
        """
        split = split_text(text, self.pieces)
        tokens = [token if token in self.tokens else self.unknown for token in split]
        speech = self.features(samples)
        count = len(tokens) - (tokens[-1:] == [_END])
        times: list[Time] = []
        if len(speech):
            hidden = self.module(speech[None], np.array([len(speech)], np.int32))
            times = self.clock.read((hidden[0],), len(speech), len(tokens) + 1, count)
        return Utterance(tokens_to_text(tokens, spaced=True), word_times(tokens, times))


def _open(package: SealedFolder, part: AlignerPart, threads: int | None) -> Aligner:
    pieces = read_pieces(package.text(SPLITS)) if SPLITS in package else None
    clock = open_fine_clock(part.clock, lambda name: open_module(package.folder(name), threads))
    audio = open_audio(package.folder("align"), part, threads)
    return Aligner(*audio, frozenset(part.tokens), part.unknown, pieces, clock)


def _compile_parts(model: Any, compile_part: Compile) -> None:
    from graphopt.funasr.auto_parts.parts import compile_encoder

    compile_encoder(model, compile_part)


MODEL = ModelClass(
    name="MonotonicAligner",
    task="align",
    understood=Understood(
        (
            "funasr.models.monotonic_aligner.model",
            "funasr.models.bicif_paraformer.cif_predictor",
            "funasr.models.sanm.encoder",
        ),
        {
            "encoder": ("SANMEncoder",),
            "predictor": ("CifPredictorV3",),
            "frontend": ("WavFrontend",),
            "tokenizer": ("CharTokenizer",),
        },
    ),
    part=AlignerPart,
    describe=_describe,
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
    files=_files,
)
