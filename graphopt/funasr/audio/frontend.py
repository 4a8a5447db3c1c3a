"""Settings of the front end that makes features of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from graphopt.runtime.fields import OneOf, Range

#: Of frames, by Kaldi's names.
WINDOWS = ("hamming", "hanning", "povey", "blackman", "rectangular")


@dataclass(frozen=True)
class FrontendConfig:
    """The feature front end: filter bank, stacking and hopping of frames.

    Attributes:
        fs: samples per second.
        window: one of WINDOWS.
        n_mels: filters.
        frame_length: of a window, in milliseconds.
        frame_shift: between windows, in milliseconds.
        lfr_m: frames that are stacked to one.
        lfr_n: frames from one stack to the next.
        dither: standard deviation of noise on the samples; 0 or the result is random.
        snip_edges: whether only windows that lie within the signal count.
        upsacle_samples: whether samples in [-1, 1] are scaled to 16 bits (FunASR's spelling).
    """

    fs: Annotated[int, Range(1000, 192000)] = 16000
    window: Annotated[str, OneOf(WINDOWS)] = "hamming"
    n_mels: Annotated[int, Range(3, 1000)] = 80
    frame_length: Annotated[float, Range(1, 1000)] = 25
    frame_shift: Annotated[float, Range(1, 1000)] = 10
    lfr_m: Annotated[int, Range(1, 100)] = 1
    lfr_n: Annotated[int, Range(1, 100)] = 1
    dither: Annotated[float, Range(0, 32768)] = 1.0
    snip_edges: bool = True
    upsacle_samples: bool = True

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self._samples(self.frame_length)

    @property
    def shift_samples(self) -> int:
        """Samples from the beginning of a window to that of the next."""
        return self._samples(self.frame_shift)

    def _samples(self, milliseconds: float) -> int:
        """Whole samples in a time, in the float arithmetic of kaldi-native-fbank."""
        return int(np.float32(self.fs) * np.float32(0.001) * np.float32(milliseconds))
