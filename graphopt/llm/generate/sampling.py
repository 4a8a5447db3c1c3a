"""The choice of the next token."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from graphopt.errors import SamplingError

Array = np.ndarray[Any, Any]


class Sampler:
    """Draws tokens: the most likely one, or by chance.

    Args:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: draw among that many most likely tokens; 0 for all.
        top_p: draw among the most likely tokens that together have this probability (Holtzman et
            al., "The Curious Case of Neural Text Degeneration", 2020); 1 for all.
        seed: of the draws; None for another one each time.

    Raises:
        SamplingError: for a setting that makes no sense.
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if not 0 <= temperature < np.inf:
            raise SamplingError("temperature", temperature, "0 or a positive number")
        if top_k < 0:
            raise SamplingError("top_k", top_k, "0 or a number of tokens")
        if not 0 < top_p <= 1:
            raise SamplingError("top_p", top_p, "above 0 and at most 1")
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._seed = seed

    @cached_property
    def _random(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)  # not there, with its memory, if nobody draws

    def pick(self, logits: Array) -> int:
        """A token of logits f32 [vocabulary]."""
        if self._temperature == 0:
            return int(logits.argmax())
        count = min(self._top_k or len(logits), len(logits))
        likely = np.argpartition(-logits, count - 1)[:count]
        likely = likely[np.argsort(-logits[likely], kind="stable")]
        scaled = logits[likely].astype(np.float64) / self._temperature
        weights = np.exp(scaled - scaled[0])
        weights /= weights.sum()
        kept = int(np.searchsorted(weights.cumsum(), self._top_p)) + 1
        weights = weights[:kept] / weights[:kept].sum()
        return int(likely[self._random.choice(len(weights), p=weights)])
