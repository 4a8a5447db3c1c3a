"""From scores of frames to segments of speech: the decisions of FunASR's `FsmnVADStreaming`.

A frame is speech where the other classes together are more likely than silence by a margin. A
window over the last frames decides when speech begins and ceases; a segment begins a little before
that and ends when silence has lasted. For whole files FunASR takes frames in blocks of a minute,
and in a block that begins inside a long segment shorter silence ends it; so it is here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.funasr.directory import FrontendConfig

Array = np.ndarray[Any, Any]
Segment = tuple[int, int]  # start and end, milliseconds

BLOCK_MS = 60000
#: Milliseconds of speech before a block, and the silence that ends a segment in it.
_PATIENCE = ((10000, 2000), (20000, 1000), (30000, 800), (40000, 600), (50000, 400), (60000, 200))
_LEAST_PATIENCE = 100
_MARGIN = 0.5
#: Settings with which the detector would decide in other ways than those here.
_ONLY = {"detect_mode": 1, "do_extend": 1, "snr_thres": -100.0, "decibel_thres": -100.0}


@dataclass(frozen=True)
class VadConfig:
    """Settings of the detector, by FunASR's names; times in milliseconds.

    Attributes:
        window_size_ms: length of the window.
        sil_to_speech_time_thres: speech in the window that begins it.
        speech_to_sil_time_thres: speech in the window at which it ceases.
        lookback_time_start_point: how much earlier than the window a segment begins.
        lookahead_time_end_point: how much of the silence behind it belongs to a segment.
        max_single_segment_time: longest segment.
        speech_2_noise_ratio: exponent of the likelihood of silence.
        sil_pdf_ids: classes that are silence.
        frame_in_ms: from one frame to the next.
    """

    window_size_ms: int = 200
    sil_to_speech_time_thres: int = 150
    speech_to_sil_time_thres: int = 150
    lookback_time_start_point: int = 200
    lookahead_time_end_point: int = 100
    max_single_segment_time: int = 60000
    speech_2_noise_ratio: float = 1.0
    sil_pdf_ids: tuple[int, ...] = (0,)
    frame_in_ms: int = 10

    @staticmethod
    def read(settings: dict[str, Any]) -> VadConfig:
        """The settings of a `model_conf`.

        Raises:
            ValueError: naming those whose values are not understood.
        """
        wrong = [
            f"{name}: {settings[name]}"
            for name, only in _ONLY.items()
            if settings.get(name, only) != only
        ]
        if wrong:
            raise ValueError(", ".join(wrong))
        names = VadConfig.__annotations__
        given = {name: value for name, value in settings.items() if name in names}
        given["sil_pdf_ids"] = tuple(settings.get("sil_pdf_ids", (0,)))
        return VadConfig(**given)

    def frames(self, milliseconds: int) -> int:
        """Whole frames in a time."""
        return int(milliseconds / self.frame_in_ms)


def segments(blocks: Iterable[Array], config: VadConfig) -> list[Segment]:
    """Speech of a whole file.

    Args:
        blocks: f32[T, classes], likelihoods of the classes of each frame, block by block.
        config: settings.
    """
    detector, patience = _Detector(config), _Patience(config, BLOCK_MS)
    for scores in blocks:
        detector.patience_ms = patience.next(detector.start is not None)
        before = len(detector.found)
        detector.hear(scores)
        if len(detector.found) > before:
            patience.reset()
    detector.finish()
    return [detector.times(*frames) for frames in detector.found]


class SegmentStream:
    """Speech of a signal that comes in chunks, as FunASR tells it with a cache.

    Args:
        config: settings.
        chunk_ms: length of a chunk.
    """

    def __init__(self, config: VadConfig, chunk_ms: int) -> None:
        self._detector, self._patience = _Detector(config), _Patience(config, chunk_ms)
        self._is_told = False

    def hear(self, scores: Array, is_final: bool = False) -> list[Segment]:
        """What the next chunk changes.

        Args:
            scores: f32[T, classes], likelihoods of the classes of each frame.
            is_final: whether it is the last chunk.

        Returns:
            Segments that begin or end; -1 is a beginning that was told, or an end to come.
        """
        detector = self._detector
        detector.patience_ms = self._patience.next(detector.start is not None)
        before = len(detector.found)
        detector.hear(scores)
        if is_final:
            detector.finish()
        told = [detector.times(*frames) for frames in detector.found[before:]]
        if told and self._is_told:
            told[0] = (-1, told[0][1])
            self._is_told = False
        if detector.start is not None and not self._is_told:
            told.append((detector.times(detector.start, 0)[0], -1))
            self._is_told = True
        if told:
            self._patience.reset()
        return told


class _Patience:
    """How long silence must last to end a segment: the longer it is, the shorter."""

    def __init__(self, config: VadConfig, chunk_ms: int) -> None:
        self._grace_ms, self._chunk_ms = config.speech_to_sil_time_thres, chunk_ms
        self.reset()

    def reset(self) -> None:
        """Forgets the speech before."""
        self._spoken_ms, self._is_long = 0, False

    def next(self, is_speech: bool) -> int:
        """Milliseconds for the next chunk, which begins within speech or does not."""
        if is_speech or self._is_long:
            self._spoken_ms, self._is_long = self._spoken_ms + self._chunk_ms, True
        silence_ms = next(
            (s for limit, s in _PATIENCE if self._spoken_ms <= limit), _LEAST_PATIENCE
        )
        return max(0, silence_ms - self._grace_ms)


class _Detector:
    """The state between frames.

    Attributes:
        found: first and last frame of each segment.
        start: first frame of the segment that is open, or None.
        patience_ms: silence that ends it.
    """

    def __init__(self, config: VadConfig) -> None:
        self.config = config
        self.found: list[tuple[int, int]] = []
        self.start: int | None = None
        self.patience_ms = 0
        self._least_to_begin = config.frames(config.sil_to_speech_time_thres)
        self._most_to_cease = config.frames(config.speech_to_sil_time_thres)
        self._most_frames = config.max_single_segment_time / config.frame_in_ms
        self._frames = 0
        self._reset()

    def _reset(self) -> None:
        size = self.config.frames(self.config.window_size_ms)
        self._window = deque([False] * size, size)
        self._heard = 0
        self._speaking = False
        self._silent_frames = 0

    def hear(self, scores: Array) -> None:
        """The next frames."""
        config = self.config
        silence = scores[:, list(config.sil_pdf_ids)].astype(np.float64).sum(1)
        speech = 1.0 - silence >= silence**config.speech_2_noise_ratio + _MARGIN
        for heard in speech.tolist():
            self._take(self._frames, heard)
            self._frames += 1

    def finish(self) -> None:
        """Ends the open segment with the signal."""
        if self.start is not None:
            self._end(self._frames - 1)

    def times(self, first: int, last: int) -> Segment:
        """Of a segment's frames, its start and end."""
        return first * self.config.frame_in_ms, (last + 1) * self.config.frame_in_ms

    def _take(self, t: int, speech: bool) -> None:
        self._heard += speech - self._window[0]
        self._window.append(speech)
        turned = False
        if not self._speaking and self._heard >= self._least_to_begin:
            self._speaking, turned = True, True
        elif self._speaking and self._heard <= self._most_to_cease:
            self._speaking, turned = False, True
        self._silent_frames = 0 if self._speaking or turned else self._silent_frames + 1
        if self.start is None:
            if self._speaking and turned:
                self._begin(t)
        elif not self._speaking and not turned and self._patience_is_over():
            self._end(t - self._frames_given_back())
        elif t - self.start + 1 > self._most_frames:
            self._end(t)

    def _begin(self, t: int) -> None:
        config = self.config
        earliest = t - len(self._window) - config.frames(config.lookback_time_start_point)
        self.start = max(self.found[-1][1] + 1 if self.found else 0, earliest)

    def _end(self, t: int) -> None:
        """Closes the open segment behind frame t."""
        assert self.start is not None
        self.found.append((self.start, t))
        self.start = None
        self._reset()

    def _patience_is_over(self) -> bool:
        return self._silent_frames * self.config.frame_in_ms >= self.patience_ms

    def _frames_given_back(self) -> int:
        """Frames of the silence that do not belong to the segment."""
        kept = self.config.frames(self.config.lookahead_time_end_point) + 1
        return max(0, self.config.frames(self.patience_ms) - kept)


def blocks_of(frames: int, samples: int, frontend: FrontendConfig) -> list[int]:
    """Frames that FunASR's front end gives for each block of a file.

    Args:
        frames: of the whole file.
        samples: of the whole file.
        frontend: what makes frames of samples.
    """
    block = BLOCK_MS * frontend.fs // 1000
    latency = frontend.lfr_m // 2  # frames that must follow before one is given
    ends = []
    for end in range(block, samples + 1, block):
        windows = (end - frontend.window_samples) // frontend.shift_samples + 1
        ends.append(min(windows - latency, frames))
    return [b - a for a, b in zip([0, *ends], [*ends, frames], strict=True)]
