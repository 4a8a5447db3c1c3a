"""Models of packages that say what is said."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import RecognizerOptionError
from graphopt.funasr.models.audio_model import AudioModel
from graphopt.funasr.text.times import Time

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Utterance:
    """What was said in a signal.

    Attributes:
        text: without punctuation.
        times: of its words; None if the model tells none.
    """

    text: str
    times: list[Time] | None = None


class SpeechModel(AudioModel, abc.ABC):
    """What is said."""

    @abc.abstractmethod
    def texts(self, utterances: Sequence[Array]) -> list[str]:
        """The text of each of several utterances; a `SamplesError` says what is none."""

    def utterances(self, signals: Sequence[Array]) -> list[Utterance]:
        """What was said in each of several, with times if the model tells them."""
        return [Utterance(text) for text in self.texts(signals)]

    def with_hotwords(self, hotword: str | None) -> SpeechModel:
        """The same model for other hotwords; one that takes them says how.

        Raises:
            RecognizerOptionError: if it takes none.
        """
        if hotword is not None:
            raise RecognizerOptionError("hotword", hotword, ["none"])
        return self

    def with_language(self, language: str, use_itn: bool) -> SpeechModel:
        """The same model, told what language it will hear and in which form to write it.

        Args:
            language: `auto` or another that the model knows.
            use_itn: whether numbers and dates are asked for as they are written.

        Raises:
            RecognizerOptionError: if it cannot be told that.
        """
        if language != "auto":
            raise RecognizerOptionError("language", language, ["auto"])
        if use_itn:
            raise RecognizerOptionError("use_itn", use_itn, [False])
        return self
