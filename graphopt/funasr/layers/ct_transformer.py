"""CT-Transformer as modules from token ids to punctuation, for capture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphopt.dependencies import keep_process_settings, require
from graphopt.funasr.layers.paraformer import Encoder, PrefixMask, share_parameters


class Punctuation(nn.Module):
    """Token ids to scores of punctuation marks.

    Args:
        model: FunASR's `CTTransformer` in eval mode; it is not changed, its weights are shared.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed, self.decoder = model.embed, model.decoder
        self.encoder = Encoder(share_parameters(model.encoder))
        self.eval()

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        """i64[B, L] and i32[B] -> f32[B, L, marks]."""
        scores: Tensor = self.decoder(self.encoder(self.embed(text), lengths))
        return scores


class Marks(Punctuation):
    """Token ids to the best mark behind each."""

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        """i64[B, L] and i32[B] -> i64[B, L]."""
        return super().forward(text, lengths).argmax(-1)


class StreamingPunctuation(nn.Module):
    """Token ids to scores of punctuation marks, without the words to come.

    Layers see no later word, but for the last one: from the words of the text before it may see all
    of that, and from its last word on everything.

    Args:
        model: FunASR's `CTTransformerStreaming` in eval mode; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        module = require("funasr.models.ct_transformer_streaming.encoder", "CT-Transformer")
        self.embed, self.decoder = model.embed, model.decoder
        with keep_process_settings():
            self.encoder = module.SANMVadEncoderExport(share_parameters(model.encoder))
        self.encoder.make_pad_mask = PrefixMask()
        self.eval()

    def forward(self, text: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
        """Scores of a batch.

        Args:
            text: i64[B, L], token ids.
            lengths: i32[B].
            before: i64[B], words of the text before.

        Returns:
            f32[B, L, marks].
        """
        extent = text.shape[1]
        row, column = torch.arange(extent)[None, :, None], torch.arange(extent)[None, None, :]
        given = (column < lengths[:, None, None]).float()
        past = given * (column <= row).float()
        border = before[:, None, None]
        beyond = (row < border - 1).float() * (column >= border).float()
        self.encoder.make_pad_mask.extents[:] = [extent]
        seen = given * (1.0 - beyond)
        hidden = self.encoder(self.embed(text), lengths, seen[:, None], past[:, None])[0]
        scores: Tensor = self.decoder(hidden)
        return scores


class StreamingMarks(StreamingPunctuation):
    """Token ids to the best mark behind each, without the words to come."""

    def forward(self, text: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
        """The best marks of a batch.

        Args:
            text: i64[B, L], token ids.
            lengths: i32[B], words of each item.
            before: i64[B], words of the text before.

        Returns:
            i64[B, L], the class of the mark behind each token.
        """
        return super().forward(text, lengths, before).argmax(-1)
