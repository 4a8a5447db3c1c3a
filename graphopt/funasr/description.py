"""What `recognizer.json` says of each model of a package, and what its fields may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.vad import VadConfig
from graphopt.funasr.text.punctuation import PunctuationConfig
from graphopt.runtime.fields import Count, Length, Name, Range, Size, read_fields

Array = np.ndarray[Any, Any]

FORMAT = 3
_Tokens = Annotated[tuple[str, ...], Length(1, 1 << 20)]
_Share = Annotated[float, Range(-1e6, 1e6)]
_Threshold = Annotated[float, Range(1e-6, 1e6)]  # of a token


@dataclass(frozen=True)
class Sound:
    """The front end of a model.

    Attributes:
        frontend: from samples to features.
        cmvn: shift and scale of features, or None.
    """

    frontend: FrontendConfig
    cmvn: tuple[tuple[float, ...], tuple[float, ...]] | None

    def __post_init__(self) -> None:
        """Refuses shift and scale of other features.

        Raises:
            ValueError: saying how many there are.
        """
        width = self.frontend.lfr_m * self.frontend.n_mels
        if self.cmvn is not None and [len(row) for row in self.cmvn] != [width, width]:
            raise ValueError(f"cmvn is not of {width} features")

    def normalization(self) -> Array | None:
        """Shift and scale, f32[2, features], or None."""
        return None if self.cmvn is None else np.array(self.cmvn, np.float32)


@dataclass(frozen=True)
class PeakTimes:
    """Times by the weights of CifPredictor and CifPredictorV2; see `PeakClock`."""

    tail: Annotated[int, Range(0, 1)]


@dataclass(frozen=True)
class FineTimes:
    """Times by the finer frames of CifPredictorV3; see `FineClock`."""

    finer: Annotated[int, Range(1, 100)]
    smooth: _Share
    noise: _Share
    threshold: _Threshold


@dataclass(frozen=True)
class Spelling(Sound):
    """Tokens and what becomes of them.

    Attributes:
        tokens: the vocabulary.
        special: token ids that are no text.
        spaced: whether spaces stand between characters too.
        clock: what times of tokens are made of, or None.
    """

    tokens: _Tokens
    special: tuple[Annotated[int, Range(-1, 1 << 20)], ...]
    spaced: bool
    clock: PeakTimes | FineTimes | None


@dataclass(frozen=True)
class ParaformerPart(Spelling):
    """A Paraformer that takes no hotwords."""

    model: Literal["Paraformer", "BiCifParaformer"]


@dataclass(frozen=True)
class HotwordPart(Spelling):
    """A Paraformer that takes hotwords.

    Attributes:
        empty: the token id that stands for no hotword.
        unknown: the token that stands for others.
    """

    model: Literal["ContextualParaformer", "SeacoParaformer"]
    empty: Count
    unknown: str

    def __post_init__(self) -> None:
        """Refuses tokens that are not there.

        Raises:
            ValueError: naming one.
        """
        super().__post_init__()
        if self.empty >= len(self.tokens) or self.unknown not in self.tokens:
            raise ValueError(f"empty {self.empty} or unknown {self.unknown!a:.60} is no token")


@dataclass(frozen=True)
class StreamingPart(Spelling):
    """Paraformer streaming.

    Attributes:
        threshold: where a token is full.
        tail_threshold: what the end of a signal adds to the last token.
    """

    model: Literal["ParaformerStreaming"]
    threshold: _Threshold
    tail_threshold: _Share


@dataclass(frozen=True)
class SenseVoicePart(Sound):
    """SenseVoiceSmall.

    Attributes:
        blank: the token id that is nothing.
    """

    model: Literal["SenseVoiceSmall"]
    blank: Count


@dataclass(frozen=True)
class DetectorPart(Sound):
    """FSMN-VAD.

    Attributes:
        detector: settings of the decisions.
    """

    model: Literal["FsmnVADStreaming"]
    detector: VadConfig


@dataclass(frozen=True)
class PunctuationPart:
    """CT-Transformer.

    Attributes:
        tokens: the vocabulary.
        unknown: the word that stands for others.
        punctuation: the classes.
    """

    model: Literal["CTTransformer", "CTTransformerStreaming"]
    tokens: _Tokens
    unknown: Name
    punctuation: PunctuationConfig

    def __post_init__(self) -> None:
        """Refuses an unknown word that is not there.

        Raises:
            ValueError: naming it.
        """
        if self.unknown not in self.tokens:
            raise ValueError(f"unk_symbol: {self.unknown!a:.60}, which is no token")


SpeechPart = ParaformerPart | HotwordPart | StreamingPart | SenseVoicePart


@dataclass(frozen=True)
class Parts:
    """The models of a package, by what they do."""

    asr: SpeechPart
    vad: DetectorPart | None = None
    punc: PunctuationPart | None = None


@dataclass(frozen=True)
class Description:
    """All that `recognizer.json` says."""

    format: Size
    parts: Parts


PART_KINDS: dict[str, Any] = {"asr": SpeechPart, "vad": DetectorPart, "punc": PunctuationPart}


def check_part(role: str, described: dict[str, Any]) -> None:
    """Refuses what a package could not say of a model.

    Raises:
        ValueError: naming the field.
    """
    read_fields(PART_KINDS[role], described, role)
