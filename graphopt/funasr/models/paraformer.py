"""Paraformer: what is said, and when by the weights of CifPredictor and CifPredictorV2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from graphopt.funasr.audio.batches import recognize_in_batches
from graphopt.funasr.audio.features import count_features
from graphopt.funasr.audio.samples import check_recordings
from graphopt.funasr.models.audio_model import (
    Sound,
    describe_sound,
    example_lengths,
    example_speech,
    open_audio,
)
from graphopt.funasr.models.model_class import (
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Tokens,
    Understood,
)
from graphopt.funasr.models.speech_model import SpeechModel, Utterance
from graphopt.funasr.text.clocks import Clock, FineTimes, PeakTimes, open_clock
from graphopt.funasr.text.spelling import spell, tokens_to_text, word_times
from graphopt.runtime.fields import Range
from graphopt.runtime.loaded import open_module
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]

#: Token ids that are no text, and what FunASR's models take them for.
SPECIAL = {"blank_id": 0, "sos": 1, "eos": 2}

#: Of FunASR, what any kind of Paraformer is made of.
MODULES = (
    "funasr.models.paraformer.cif_predictor",
    "funasr.models.bicif_paraformer.cif_predictor",
    "funasr.models.paraformer.decoder",
    "funasr.models.sanm.encoder",
)
PARTS = {
    "encoder": ("SANMEncoder",),
    "decoder": ("ParaformerSANMDecoder",),
    "predictor": ("CifPredictor", "CifPredictorV2"),
    "frontend": ("WavFrontend",),
    "tokenizer": ("CharTokenizer",),
}


@dataclass(frozen=True)
class Spelling(Sound):
    """What a package says of any kind of Paraformer.

    Attributes:
        tokens: the vocabulary.
        special: token ids that are no text.
        spaced: whether spaces stand between characters too.
        clock: what times of tokens are made of, or None.
    """

    tokens: Tokens
    special: tuple[Annotated[int, Range(-1, 1 << 20)], ...]
    spaced: bool
    clock: PeakTimes | FineTimes | None


def describe_spelling(
    directory: ModelDirectory, settings: dict[str, Any], clock: dict[str, Any] | None
) -> dict[str, Any]:
    """The fields of `Spelling`.

    Args:
        directory: of the model.
        settings: its `model_conf`.
        clock: those of `PeakTimes` or `FineTimes`; None if it tells no times.
    """
    return {
        **describe_sound(directory),
        "tokens": directory.tokens,
        "special": [settings.get(name, token) for name, token in SPECIAL.items()],
        # FunASR tells the times of this predictor's tokens, and spaces its text for them.
        "spaced": directory.config["predictor"] == "CifPredictorV3",
        "clock": clock,
    }


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    default = 0.45 if directory.config["predictor"] == "CifPredictor" else 0.0
    tail = (directory.config.get("predictor_conf") or {}).get("tail_threshold", default)
    if type(tail) not in (int, float):
        raise ValueError(f"predictor_conf.tail_threshold: {tail!r:.60}")
    return describe_spelling(directory, settings, {"tail": int(tail > 0)})


def capture_paraformer(model: Any, directory: ModelDirectory) -> Captured:
    """Features to token ids in one graph, and the graphs that tell times."""
    from graphopt.funasr.layers.paraformer import TimedParaformer
    from graphopt.funasr.layers.predictor_times import capture_times

    asr = TimedParaformer(model), (example_speech(directory), example_lengths())
    return {"asr": asr, **capture_times(model.predictor)}


@dataclass(frozen=True)
class ParaformerModel(SpeechModel):
    """What is said, by Paraformer.

    Attributes:
        tokens: the vocabulary.
        special: token ids that are no text.
        spaced: whether spaces stand between characters too.
        clock: what tells when tokens were spoken, or None.
    """

    tokens: tuple[str, ...]
    special: frozenset[int]
    spaced: bool
    clock: Clock | None

    def text(self, samples: Array) -> str:
        """The text of an utterance; empty if nothing is said."""
        return self.texts([samples])[0]

    def texts(self, utterances: Sequence[Array]) -> list[str]:
        """The same for each of several, computed in batches."""
        texts = [""] * len(utterances)
        for i, (ids, *_) in self._found(utterances):
            texts[i] = tokens_to_text(self._tokens(ids), self.spaced)
        return texts

    def utterances(self, signals: Sequence[Array]) -> list[Utterance]:
        """The same with times; then spaces stand between characters."""
        if self.clock is None:
            return super().utterances(signals)
        said = [Utterance("")] * len(signals)
        for i, (ids, *clues) in self._found(signals):
            if not len(ids):
                continue
            tokens, frames = self._tokens(ids), count_features(len(signals[i]), self.frontend)
            times = self.clock.read(tuple(clues), frames, len(ids), len(tokens))
            said[i] = Utterance(tokens_to_text(tokens, spaced=True), word_times(tokens, times))
        return said

    def _found(self, signals: Sequence[Array]) -> Iterator[tuple[int, tuple[Array, ...]]]:
        """What `recognize_in_batches` finds; features are computed when their batch comes."""
        checked = check_recordings(signals)
        lengths = [count_features(len(samples), self.frontend) for samples in checked]
        return recognize_in_batches(self._recognize, lambda i: self.features(checked[i]), lengths)

    def _recognize(self, speech: Array, lengths: Array) -> tuple[Array, ...]:
        """Of a batch, ids i64[B, N], how many each item has, i32[B], and what `clock` reads."""
        found: tuple[Array, ...] = self.module(speech, lengths)
        return found

    def _tokens(self, ids: Array) -> list[str]:
        return spell(ids, self.tokens, self.special)


def open_paraformer(package: SealedFolder, part: Spelling, threads: int | None) -> ParaformerModel:
    """The model of a package; kinds that take hotwords add what these need.

    Args:
        package: with a folder of each graph.
        part: what is said of it.
        threads: of a run; all CPUs if None.

    Raises:
        ValueError: if its front end makes no sense.
    """
    clock = open_clock(part.clock, lambda name: open_module(package.folder(name), threads))
    audio = open_audio(package.folder("asr"), part, threads)
    return ParaformerModel(*audio, part.tokens, frozenset(part.special), part.spaced, clock)


def compile_paraformer(model: Any, compile_part: Compile) -> None:
    """Puts compiled parts into a Paraformer that takes no hotwords."""
    from graphopt.funasr.auto_parts.paraformer import (
        DecoderPart,
        compile_listening,
        decoder_inputs,
    )
    from graphopt.funasr.layers.paraformer import Decoder, share_parameters

    decoder = Decoder(share_parameters(model.decoder))
    compiled = compile_part(decoder, decoder_inputs(model))
    compile_listening(model, compile_part)
    model.decoder = DecoderPart(model.decoder, compiled)


MODEL = ModelClass(
    name="Paraformer",
    task="asr",
    understood=Understood(("funasr.models.paraformer.model", *MODULES), PARTS),
    part=Spelling,
    describe=_describe,
    capture=capture_paraformer,
    open=open_paraformer,
    compile_parts=compile_paraformer,
    in_batches=True,
)
