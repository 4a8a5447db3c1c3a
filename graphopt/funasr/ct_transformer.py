"""CT-Transformer as modules from token ids to punctuation, for capture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graphopt.funasr.paraformer import Encoder, share_parameters


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
