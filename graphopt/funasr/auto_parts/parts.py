"""A compiled part in the place where an AutoModel's loops call FunASR's, and example inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.layers.paraformer import Encoder, share_parameters
from graphopt.funasr.models.model_class import Compile

FRAMES, TOKENS = 60, 12  # of the example inputs


class Part(nn.Module):
    """A compiled part in the place of FunASR's, which stays for what is not inference.

    Attributes:
        original: FunASR's module; FunASR asks its parameters for their device.
    """

    def __init__(self, original: nn.Module, compiled: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.compiled = compiled

    def output_size(self) -> int:
        """Width of what the part makes, as FunASR's encoders tell it."""
        width: Callable[[], int] = self.original.output_size  # type: ignore[assignment]
        return width()


class EncoderPart(Part):
    """A SANM encoder."""

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, None]:
        """f32[B, T, F] and i[B] -> f32[B, T, D] and the lengths."""
        return self.compiled(speech, lengths.long()), lengths, None


def compile_encoder(model: Any, compile_part: Compile) -> None:
    """Puts a compiled SANM encoder into a model."""
    features = torch.randn(2, FRAMES, input_size(model.encoder))
    encoder = Encoder(share_parameters(model.encoder))
    compiled = compile_part(encoder, (features, example_lengths(FRAMES)))
    model.encoder = EncoderPart(model.encoder, compiled)


def example_lengths(frames: int) -> Tensor:
    """i64[2]: one item fills the batch, the other half of it."""
    return torch.tensor([frames, frames // 2])


def input_size(encoder: Any) -> int:
    """Features of a frame."""
    return int(encoder.encoders0[0].self_attn.linear_q_k_v.in_features)
