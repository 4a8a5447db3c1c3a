"""SenseVoiceSmall as one module from features to token ids of frames, for capture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.layers.paraformer import share_parameters

_EVENT, _EMOTION = 1, 2  # rows of the embedding that ask for them


class Frames(nn.Module):
    """SenseVoice's encoder as a function: it scales its argument in place."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.eval()

    def forward(self, speech: Tensor, lengths: Tensor) -> Tensor:
        """f32[B, T, F] and i64[B] -> f32[B, T, D]."""
        hidden: Tensor = self.encoder(speech.clone(), lengths)[0]
        return hidden


class SenseVoice(nn.Module):
    """Features and two questions to the best token of each frame.

    Args:
        model: FunASR's `SenseVoiceSmall` in eval mode; it is not changed, its weights are shared.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed, self.head = model.embed, model.ctc.ctc_lo
        self.frames = Frames(share_parameters(model.encoder))
        self.eval()

    def forward(self, speech: Tensor, lengths: Tensor, language: Tensor, form: Tensor) -> Tensor:
        """Recognizes a batch.

        Args:
            speech: f32[B, T, F], normalized features.
            lengths: i32[B], frames of each item.
            language: i64[B], the row of the embedding that asks for the language.
            form: i64[B], the row that asks for the spoken or the written form.

        Returns:
            i64[B, T + 4]: language, event, emotion and form, then the frames.
        """
        asked = [language, torch.full_like(language, _EVENT), torch.full_like(language, _EMOTION)]
        queries = self.embed(torch.stack([*asked, form], 1))
        frames = torch.cat([queries, speech], 1)
        hidden = self.frames(frames, lengths.long() + queries.shape[1])
        ids: Tensor = self.head(hidden).argmax(-1)
        return ids
