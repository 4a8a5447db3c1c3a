"""Features of a signal that comes in pieces: FunASR's `WavFrontendOnline` without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from graphopt.funasr.audio.features import FilterBank, normalize
from graphopt.funasr.audio.frontend import FrontendConfig

Array = np.ndarray[Any, Any]


class FeatureStream:
    """The features of a signal, as far as it has come.

    The same as those of the whole signal but for its end, where stacks reach beyond it.

    Args:
        config: the front end; `snip_edges` and `upsacle_samples` are what they are by default.
        cmvn: f32[2, lfr_m * n_mels], what is added, and by what the sum is multiplied, or None.
    """

    def __init__(self, config: FrontendConfig, cmvn: Array | None) -> None:
        self._config = replace(config, snip_edges=True, upsacle_samples=True)
        self._cmvn = cmvn
        self._bank = FilterBank(self._config)
        self._rows = np.zeros((0, config.n_mels), np.float32)  # that wait to be stacked

    def take(self, samples: Array, is_final: bool = False) -> Array:
        """What the next piece adds: f32[T, lfr_m * n_mels].

        Args:
            samples: of the signal, as for `check_samples`.
            is_final: whether nothing follows: the last row stands for those behind.

        Raises:
            SamplesError: if they are none.
        """
        new = self._bank.take(samples)
        if len(new) and not len(self._rows):
            self._rows = np.repeat(new[:1], (self._config.lfr_m - 1) // 2, 0)
        self._rows = np.concatenate([self._rows, new])
        if not is_final and not (len(new) and len(self._rows) >= self._config.lfr_m):
            return np.zeros((0, self._config.lfr_m * self._config.n_mels), np.float32)
        return normalize(self._stack(is_final), self._cmvn)

    def _stack(self, is_final: bool) -> Array:
        """Stacks of the waiting rows; those that later stacks need go on waiting."""
        m, n = self._config.lfr_m, self._config.lfr_n
        rows = self._rows
        count = (len(rows) - m) // n + 1
        if is_final:
            count = max(0, -(((m - 1) // 2 - len(rows)) // n))
        self._rows = rows[min(len(rows) - 1, count * n) :]
        at = np.minimum(np.arange(count)[:, None] * n + np.arange(m), len(rows) - 1)
        stacked: Array = rows[at].reshape(count, m * self._config.n_mels)
        return stacked
