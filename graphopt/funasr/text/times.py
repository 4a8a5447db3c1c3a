"""When tokens, words and sentences were spoken, by FunASR's rules, without torch.

A predictor gives every frame a weight. A token begins where the running sum of weights becomes full
(integrate-and-fire), and ends where the next one begins. Times are pairs of milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from graphopt.funasr.text.punctuation import PunctuationConfig, join_segments

Array = np.ndarray[Any, Any]
Time = tuple[int, int]  # begin and end, milliseconds

SLACK = 1e-4  # of a token, that may be missing when it is full
FULL = 1.0 - SLACK
_FRAME_SECONDS = 10.0 * 6 / 1000
_SHIFT = -1.5  # frames between where a sum becomes full and where the token begins
_SILENCE = 5  # frames; a longer pause before the first token or after the last belongs to neither
_LONGEST = 12  # frames of a token; what follows is silence
_NO_MARK = 1  # classes of punctuation up to this one are none


@dataclass(frozen=True)
class Sentence:
    """A sentence, or what was said in a segment of speech.

    Attributes:
        text: with punctuation, if there is a punctuator.
        begin_ms: where it begins in the recording.
        end_ms: where it ends.
        times: of its words; empty if the model tells none.
    """

    text: str
    begin_ms: int
    end_ms: int
    times: tuple[Time, ...]


def running_peaks(weights: Array, threshold: float) -> Array:
    """The running sum at each frame, f32[T]; a threshold that it reaches is taken from it."""
    peaks = np.empty_like(weights)
    total, full = np.float32(0), np.float32(threshold)
    for i, weight in enumerate(weights):
        total += weight
        peaks[i] = total
        if total >= full:
            total -= full
    return peaks


def token_times(weights: Array, peaks: Array, count: int, frames_apart: int = 1) -> list[Time]:
    """When each token was spoken: FunASR's `ts_prediction_lfr6_standard`.

    Args:
        weights: f32[T], of frames.
        peaks: f32[T], their running sum before a full token is taken from it.
        count: tokens. If not as many and one more are full, the weights are scaled until they are.
        frames_apart: steps of `weights` in a frame of 60 ms.

    Returns:
        A pair for each token; fewer if fewer can be found.
    """
    if not count:
        return []
    begins = _full_at(peaks)
    if len(begins) != count + 1:
        found = weights.sum(dtype=np.float32)
        if not found:
            return []
        scaled = weights / (found / np.float32(count + 1))
        begins = _full_at(running_peaks(scaled, FULL))
    if len(begins) < 2:
        return []
    seconds, end = _FRAME_SECONDS / frames_apart, len(peaks)
    spans = [[a, b if b - a <= _LONGEST else a + _LONGEST] for a, b in pairwise(begins)]
    spans = spans[:count]
    last_cut = begins[-1] - begins[-2] > _LONGEST
    if not last_cut:
        silent = end - begins[-1] > _SILENCE
        spans[-1][1] = (end + begins[-1]) * 0.5 if silent else end
    return [(int(a * seconds * 1000), int(b * seconds * 1000)) for a, b in spans]


def _full_at(peaks: Array) -> list[float]:
    full: list[float] = (np.flatnonzero(peaks >= FULL) + _SHIFT).tolist()
    return full


def sentences(
    words: Sequence[str], times: Sequence[Time], classes: Sequence[int], config: PunctuationConfig
) -> list[Sentence]:
    """Sentences of a text: FunASR's `timestamp_sentence`. Words without a mark at the end are none.

    Args:
        words: of the text.
        times: of words; at least one.
        classes: of what stands behind each word for which there is a time.
        config: the classes.
    """
    found = []
    text, begin, end = "", times[0][0], times[0][1]
    own: list[Time] = []
    for i, (time, mark) in enumerate(zip(times, classes, strict=True)):
        begin = begin if own else time[0]
        end = time[1]
        own.append(time)
        if i < len(words):
            text += " " * (_is_latin(words[i][:1]) or _is_latin(text[-1:])) + words[i]
        if mark > _NO_MARK:
            found.append(Sentence(text + config.marks[mark], begin, end, tuple(own)))
            text, own = "", []
    return found


def segment_sentences(
    said: Sequence[tuple[str, Sequence[Time]]], segments: Sequence[Time]
) -> list[Sentence]:
    """What was said in each segment of speech, without tags.

    Args:
        said: text of each, and times of its words, if the model tells them.
        segments: begin and end of each, for texts without times.
    """
    found = []
    for (text, times), (begin, end) in zip(said, segments, strict=True):
        if plain := join_segments([text]):
            first, last = (times[0][0], times[-1][1]) if times else (begin, end)
            found.append(Sentence(plain, first, last, tuple(times)))
    return found


def _is_latin(c: str) -> bool:
    return c.isascii() and c.isalpha()
