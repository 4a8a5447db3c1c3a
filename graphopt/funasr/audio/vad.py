"""From scores of frames to segments of speech: the decisions of FunASR's `FsmnVADStreaming`.

A frame is speech where the other classes together are more likely than silence by a margin. A
window over the last frames decides when speech begins and ceases; a segment begins a little before
that and ends when silence has lasted. For whole files FunASR takes frames in blocks of a minute,
and in a block that begins inside a long segment shorter silence ends it; so it is here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.runtime.fields import Length, Range, read_fields

Array = np.ndarray[Any, Any]
Segment = tuple[int, int]  # start and end, milliseconds

BLOCK_MS = 60000
_MARGIN = 0.5  # of speech over silence, where the schedule holds
_LONGEST = 10**9  # milliseconds
#: Milliseconds of speech before a block, and the silence that ends a segment in it.
_STEPS = ((10000, 2000), (20000, 1000), (30000, 800), (40000, 600), (50000, 400), (60000, 200))
SCHEDULE = (*_STEPS, (_LONGEST, 100))

#: Settings with which the detector would measure loudness, which is not done here.
_ONLY = {"snr_thres": -100.0, "decibel_thres": -100.0}
#: Settings that FunASR takes and that change no segment.
_HARMLESS = (
    *("snr_mode", "do_start_point_detection", "do_end_point_detection", "nn_eval_block_size"),
    *("dcd_block_size", "noise_frame_num_used_for_snr", "speech_noise_thresh_low"),
    *("speech_noise_thresh_high", "output_frame_probs"),
)

_Milliseconds = Annotated[int, Range(0, _LONGEST)]


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
        do_extend: 0 if segments neither begin earlier than the window nor keep silence, else 1.
        detect_mode: 0 if only the first segment counts, else 1.
        max_start_silence_time: silence without a segment after which there is none, in mode 0.
        dynamic_silence: whether the silence that ends a segment follows the schedule.
        silence_schedule: milliseconds of speech up to which, and the silence that then ends it.
        max_end_silence_time: the silence that ends a segment where the schedule does not hold.
        speech_noise_thres: margin of speech over silence where the schedule does not hold.
    """

    window_size_ms: Annotated[int, Range(10, 60000)] = 200
    sil_to_speech_time_thres: _Milliseconds = 150
    speech_to_sil_time_thres: _Milliseconds = 150
    lookback_time_start_point: _Milliseconds = 200
    lookahead_time_end_point: _Milliseconds = 100
    max_single_segment_time: _Milliseconds = 60000
    speech_2_noise_ratio: Annotated[float, Range(1e-6, 1e6)] = 1.0
    sil_pdf_ids: Annotated[tuple[Annotated[int, Range(0, 1 << 15)], ...], Length(1, 1000)] = (0,)
    frame_in_ms: Annotated[int, Range(1, 1000)] = 10
    do_extend: Annotated[int, Range(0, 1)] = 1
    detect_mode: Annotated[int, Range(0, 1)] = 1
    max_start_silence_time: _Milliseconds = 3000
    dynamic_silence: bool = True
    silence_schedule: Annotated[
        tuple[tuple[_Milliseconds, _Milliseconds], ...], Length(1, 1000)
    ] = SCHEDULE
    max_end_silence_time: _Milliseconds = 800
    speech_noise_thres: Annotated[float, Range(-10, 10)] = 0.6

    def __post_init__(self) -> None:
        """Refuses times that are no whole frame.

        Raises:
            ValueError: if the window has none.
        """
        if self.window_size_ms < self.frame_in_ms:
            raise ValueError(f"window_size_ms: {self.window_size_ms} is no frame")

    @staticmethod
    def read(settings: Mapping[str, Any], frontend: FrontendConfig) -> VadConfig:
        """The settings of a `model_conf`, all of which FunASR's `VADXOptions` takes.

        Args:
            settings: by name.
            frontend: what gives the frames.

        Raises:
            ValueError: naming those that are not understood.
        """
        only = _ONLY | {"sample_rate": frontend.fs, "frame_length_ms": frontend.frame_length}
        differing = [name for name in only if _differs(settings, only, name)]
        wrong = [f"{name}: {settings[name]!r:.60}" for name in differing]
        prior = settings.get("fe_prior_thres", 1e-4)
        if type(prior) not in (int, float) or not prior < 1:  # from 1 on nothing is speech
            wrong.append(f"fe_prior_thres: {prior!r:.60}")
        if wrong:
            raise ValueError(", ".join(wrong))
        given = {name: value for name, value in settings.items() if name not in _LOOKED_AT}
        config = read_fields(VadConfig, given)
        if settings.get("silence_pdf_num", len(config.sil_pdf_ids)) != len(config.sil_pdf_ids):
            raise ValueError(f"silence_pdf_num: {settings['silence_pdf_num']!r:.60}")
        return config

    def change(self, options: Mapping[str, Any], frontend: FrontendConfig) -> VadConfig:
        """The same with options as FunASR's `vad_kwargs` and `generate` take them.

        A `max_end_silence_time` that is given takes the place of the schedule.

        Args:
            options: by name.
            frontend: what gives the frames.

        Raises:
            ValueError: naming those that are not understood, or would have no effect.
        """
        given = {**asdict(self), **options}
        if "max_end_silence_time" in options and "dynamic_silence" not in options:
            given["dynamic_silence"] = False
        config = VadConfig.read(given, frontend)
        idle = ["max_end_silence_time", "speech_noise_thres"]
        if not config.dynamic_silence:
            idle = ["silence_schedule"]
        if config.detect_mode == 1:
            idle.append("max_start_silence_time")
        if found := [name for name in idle if name in options]:
            mode = {name: getattr(config, name) for name in ("dynamic_silence", "detect_mode")}
            raise ValueError(f"{', '.join(found)}: without effect when {mode}")
        return config

    def frames(self, milliseconds: int) -> int:
        """Whole frames in a time."""
        return int(milliseconds / self.frame_in_ms)

    @property
    def margin(self) -> float:
        """Of the likelihood of speech over that of silence."""
        return _MARGIN if self.dynamic_silence else self.speech_noise_thres


_LOOKED_AT = (
    *(*_ONLY, *_HARMLESS, "sample_rate", "frame_length_ms", "fe_prior_thres", "silence_pdf_num"),
)
#: All that FunASR's `VADXOptions` and its `generate` take.
OPTIONS = (*_LOOKED_AT, *VadConfig.__dataclass_fields__)


def _differs(settings: Mapping[str, Any], only: Mapping[str, float], name: str) -> bool:
    given = settings.get(name, only[name])
    return type(given) not in (int, float) or given != only[name]


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
        self._config, self._chunk_ms = config, chunk_ms
        self._grace_ms = config.speech_to_sil_time_thres
        self._patience_ms = config.max_end_silence_time - self._grace_ms
        self.reset()

    def reset(self) -> None:
        """Forgets the speech before."""
        self._spoken_ms, self._is_long = 0, False

    def next(self, is_speech: bool) -> int:
        """Milliseconds for the next chunk, which begins within speech or does not."""
        if is_speech or self._is_long:
            self._spoken_ms, self._is_long = self._spoken_ms + self._chunk_ms, True
        if not self._config.dynamic_silence:
            return self._patience_ms
        for limit_ms, silence_ms in self._config.silence_schedule:
            if self._spoken_ms <= limit_ms:
                self._patience_ms = max(0, silence_ms - self._grace_ms)
                break
        return self._patience_ms


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
        self._is_over = False
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
        speech = 1.0 - silence >= silence**config.speech_2_noise_ratio + config.margin
        for heard in speech.tolist():
            if not self._is_over:
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
            elif self.config.detect_mode == 0 and self._is_too_late():
                self._is_over = True
        elif not self._speaking and not turned and self._patience_is_over():
            self._end(t - self._frames_given_back())
        elif t - self.start + 1 > self._most_frames:
            self._end(t)

    def _begin(self, t: int) -> None:
        config = self.config
        before = config.frames(config.lookback_time_start_point) if config.do_extend else 0
        earliest = t - len(self._window) - before
        self.start = max(self.found[-1][1] + 1 if self.found else 0, earliest)

    def _end(self, t: int) -> None:
        """Closes the open segment behind frame t."""
        assert self.start is not None
        self.found.append((self.start, t))
        self.start = None
        self._is_over = self.config.detect_mode == 0
        self._reset()

    def _is_too_late(self) -> bool:
        silent_ms = self._silent_frames * self.config.frame_in_ms
        return silent_ms > self.config.max_start_silence_time

    def _patience_is_over(self) -> bool:
        return self._silent_frames * self.config.frame_in_ms >= self.patience_ms

    def _frames_given_back(self) -> int:
        """Frames of the silence that do not belong to the segment."""
        silent = self.config.frames(self.patience_ms)
        if not self.config.do_extend:
            return silent
        return max(0, silent - self.config.frames(self.config.lookahead_time_end_point) - 1)


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
