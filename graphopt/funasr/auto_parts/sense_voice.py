"""SenseVoice's compiled encoder in the place of FunASR's."""

from __future__ import annotations

from torch import Tensor

from graphopt.funasr.auto_parts.parts import Part


class FramesPart(Part):
    """An encoder that tells frames and their number."""

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """f32[B, T, F] and i[B] -> f32[B, T, D] and the lengths."""
        return self.compiled(speech, lengths.long()), lengths
