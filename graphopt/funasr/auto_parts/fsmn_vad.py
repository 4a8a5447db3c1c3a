"""FSMN-VAD's compiled encoder in the place of FunASR's."""

from __future__ import annotations

from torch import Tensor

from graphopt.funasr.auto_parts.parts import Part
from graphopt.funasr.layers.fsmn_vad import empty_cache


class CachedEncoderPart(Part):
    """An encoder whose cache FunASR starts as an empty dict."""

    def forward(self, feats: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        """f32[1, T, F] -> f32[1, T, classes]; the cache is updated in place."""
        state = {} if cache is None else cache
        if not state:
            state.update(empty_cache(self.original, feats.shape[0]))
        scores: Tensor = self.compiled(feats, state)
        return scores
