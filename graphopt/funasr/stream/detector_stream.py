"""Where speech is in a signal that goes on, by FSMN-VAD."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from graphopt.errors import RecognizerOptionError
from graphopt.funasr.audio.feature_stream import FeatureStream
from graphopt.funasr.audio.samples import SignalStream
from graphopt.funasr.audio.vad import Segment, SegmentStream
from graphopt.funasr.models.fsmn_vad_streaming import VoiceDetector
from graphopt.runtime.fields import FieldError, Range, read_fields

Array = np.ndarray[Any, Any]

_ChunkMs = Annotated[int, Range(1, 10**9)]
CHUNK_MS = 200  # as in FunASR's examples
_WINDOWS_MS = 100  # more than frames reach beyond what they stand for


class DetectorStream(SignalStream[Segment]):
    """One signal.

    It tells segments that begin or end, in milliseconds; -1 is a beginning that was told, or an end
    to come.

    Args:
        detector: the model and its settings, which many streams may share.
        chunk_ms: speech is looked for so often; FunASR's `chunk_size` of `generate`.

    Raises:
        RecognizerOptionError: if a chunk has no length.

    Attributes:
        chunk: samples of a chunk.
        delay: samples that may lie between the beginning of a segment and where it is told.
    """

    def __init__(self, detector: VoiceDetector, chunk_ms: int = CHUNK_MS) -> None:
        try:
            read_fields(_ChunkMs, chunk_ms)
        except FieldError as error:
            allowed = ["milliseconds, one or more"]
            raise RecognizerOptionError("chunk_ms", chunk_ms, allowed) from error
        config, fs = detector.config, detector.frontend.fs
        self.chunk = chunk_ms * fs // 1000
        before_ms = config.window_size_ms + config.lookback_time_start_point
        self.delay = (before_ms + chunk_ms + _WINDOWS_MS) * fs // 1000
        self._detector = detector
        self._features = FeatureStream(detector.frontend, detector.cmvn)
        self._cache = detector.empty_cache()
        self._segments = SegmentStream(config, chunk_ms)
        self._samples = np.zeros(0, np.float32)  # too few for a chunk

    def _feed(self, samples: Array) -> list[Segment]:
        signal = np.concatenate([self._samples, samples])
        whole = len(signal) // self.chunk * self.chunk
        self._samples = signal[whole:]
        told = [self.hear(chunk) for chunk in signal[:whole].reshape(-1, self.chunk)]
        return [segment for segments in told for segment in segments]

    def _finish(self) -> list[Segment]:
        return self.hear(self._samples, is_final=True)

    def hear(self, chunk: Array, is_final: bool = False) -> list[Segment]:
        """What one chunk tells, which is whole or the last."""
        feats = self._features.take(chunk, is_final)
        scores = np.zeros((0, 1 + max(self._detector.config.sil_pdf_ids)), np.float32)
        if len(feats):
            scores = self._detector.module(feats[None], self._cache)[0]
        return self._segments.hear(scores, is_final)
