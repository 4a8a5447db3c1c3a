"""What tells when the tokens of a package's Paraformer were spoken, without torch."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from graphopt.funasr.text.times import SLACK, Time, running_peaks, token_times
from graphopt.runtime.fields import Range
from graphopt.runtime.loaded import LoadedModule

Array = np.ndarray[Any, Any]
Threshold = Annotated[float, Range(1e-6, 1e6)]  # where a token is full
_Share = Annotated[float, Range(-1e6, 1e6)]


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
    threshold: Threshold


def describe_fine_times(config: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of `FineTimes`, by a `config.yaml`; None if its predictor tells none."""
    settings = config.get("predictor_conf") or {}
    if config["predictor"] != "CifPredictorV3" or settings.get("upsample_type") != "cnn_blstm":
        return None
    return {
        "finer": settings.get("upsample_times", 5),
        "smooth": settings.get("smooth_factor2", 1.0),
        "noise": settings.get("noise_threshold2", 0),
        "threshold": settings.get("threshold", 1.0),
    }


class Clock(abc.ABC):
    """Times of tokens."""

    @abc.abstractmethod
    def read(self, clues: tuple[Array, ...], frames: int, fires: int, tokens: int) -> list[Time]:
        """When each token of an utterance was spoken.

        Args:
            clues: what the graph says besides token ids.
            frames: of the utterance.
            fires: tokens that were found.
            tokens: those of them that are text.

        Returns:
            Begin and end, milliseconds; fewer than tokens if fewer can be found.
        """


@dataclass(frozen=True)
class PeakClock(Clock):
    """By the weights of CifPredictor and CifPredictorV2.

    Attributes:
        tail: frames that the predictor adds, 0 or 1.
    """

    tail: int

    def read(self, clues: tuple[Array, ...], frames: int, fires: int, tokens: int) -> list[Time]:
        """From weights and peaks; FunASR takes the one for the other here.

        Args:
            clues: weights and peaks, f32[T + tail] each; padding behind them is not read.
            frames: T, of the utterance.
            fires: not read.
            tokens: how many tokens are text.

        Returns:
            As `Clock.read`.
        """
        weights, peaks = (clue[: frames + self.tail] for clue in clues)
        return token_times(peaks, weights, tokens)


@dataclass(frozen=True)
class FineClock(Clock):
    """By the finer frames of CifPredictorV3.

    Attributes:
        fine_frames: from hidden frames to the gates of an LSTM.
        step: of the LSTM, in both directions.
        finer: fine frames of a frame.
        smooth: what scores are multiplied by.
        noise: what is taken from them.
        threshold: of a token.
    """

    fine_frames: LoadedModule
    step: LoadedModule
    finer: int
    smooth: float
    noise: float
    threshold: float

    def read(self, clues: tuple[Array, ...], frames: int, fires: int, tokens: int) -> list[Time]:
        """From hidden frames.

        Args:
            clues: the hidden frames alone, f32[T, D]; padding behind them is not read.
            frames: T, of the utterance.
            fires: tokens that were found; the weights of fine frames are scaled to this sum.
            tokens: how many of them are text.

        Returns:
            As `Clock.read`.
        """
        scores = self._scores(clues[0][None, :frames])
        weights = 1 / (1 + np.exp(-scores)) * np.float32(self.smooth) - np.float32(self.noise)
        weights = np.maximum(weights, 0)
        total = weights.sum(dtype=np.float32)
        if total > 0:
            weights *= np.float32(fires) / total
        peaks = running_peaks(weights, self.threshold - SLACK)
        return token_times(weights, peaks, tokens, self.finer)

    def _scores(self, hidden: Array) -> Array:
        """f32[T * finer], of f32[1, T, D]."""
        left, right = self.fine_frames(hidden, np.array([hidden.shape[1]], np.int32))
        zeros = np.zeros((1, left.shape[2] // 4), np.float32)
        state = (zeros, zeros), (zeros, zeros)
        scores = np.zeros(left.shape[1], np.float32)
        for i in range(len(scores)):
            j = len(scores) - 1 - i
            ahead, behind, state = self.step(left[:, i], right[:, j], state)
            scores[i] += ahead[0, 0]
            scores[j] += behind[0, 0]
        return scores


def open_clock(
    about: PeakTimes | FineTimes | None, load_part: Callable[[str], LoadedModule]
) -> Clock | None:
    """The clock of a package.

    Args:
        about: what its description says of times; None if it cannot tell them.
        load_part: loads the package in a folder, by name.
    """
    if about is None:
        return None
    if isinstance(about, PeakTimes):
        return PeakClock(about.tail)
    return open_fine_clock(about, load_part)


def open_fine_clock(about: FineTimes, load_part: Callable[[str], LoadedModule]) -> FineClock:
    """As `open_clock`, of a package that says how it tells times."""
    return FineClock(load_part("fine_frames"), load_part("both_ways"), **asdict(about))
