"""Compiled parts of Paraformer in the places of FunASR's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.auto_parts.parts import (
    FRAMES,
    TOKENS,
    Part,
    compile_encoder,
    example_lengths,
)
from graphopt.funasr.layers.paraformer import Predictor
from graphopt.funasr.models.model_class import Compile


class PredictorPart(Part):
    """What is asked beyond a mask (a target, a mask of chunks) is answered by FunASR's own."""

    def __init__(self, original: Any, compiled: nn.Module) -> None:
        super().__init__(original, compiled)
        self.tail_threshold: float = original.tail_threshold
        self.tail_mask = getattr(original, "tail_mask", False)
        # CifPredictorV3's fifth result is a loss of the training.
        self.unused = (None,) if type(original).__name__ == "CifPredictorV3" else ()

    def forward(
        self, hidden: Tensor, target: Tensor | None, mask: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Tokens of frames, as FunASR's predictor gives them.

        Args:
            hidden: f32[B, T, D], hidden frames.
            target: None in inference; with a target FunASR's own answers.
            mask: [B, 1, T], 1 for the frames of an item and 0 behind.
            args: `ignore_id`, which is not read; FunASR's own answers if others are not None.
            kwargs: the same by name.

        Returns:
            Embeddings f32[B, N, D], counts f32[B] (without a tail the sums of the weights), weights
            and peaks f32[B, T + 1] (f32[B, T] without a tail); of CifPredictorV3 also None.
        """
        others = (*args[1:], *(v for name, v in kwargs.items() if name != "ignore_id"))
        if target is not None or any(other is not None for other in others):
            return self.original(hidden, target, mask, *args, **kwargs)
        lengths = mask[:, 0].long().sum(-1)
        embeddings, counts, alphas, peaks = self.compiled(hidden, lengths)
        whole = counts.to(alphas.dtype) if self.tail_threshold > 0 else alphas.sum(-1)
        return embeddings, whole, alphas, peaks, *self.unused

    def get_upsample_timestamp(self, *args: Any) -> Any:
        """CifPredictorV3's times of tokens, by its own layers: an LSTM over all frames."""
        times: Callable[..., Any] = self.original.get_upsample_timestamp  # type: ignore[assignment]
        return times(*args)


class DecoderPart(Part):
    """A decoder; what is asked beyond scores of tokens is answered by FunASR's own."""

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Scores of tokens.

        Args:
            hidden: f32[B, T, D], hidden frames.
            lengths: [B], frames of each item.
            embeddings: f32[B, N, D], acoustic embeddings.
            counts: [B], tokens of each item.
            args: if there are any, FunASR's own answers.
            kwargs: likewise.

        Returns:
            Scores f32[B, N, vocabulary], before softmax, and `counts`.
        """
        if args or kwargs:
            return self.original(hidden, lengths, embeddings, counts, *args, **kwargs)
        return self.compiled(hidden, lengths.long(), embeddings, counts.long()), counts


def compile_listening(model: Any, compile_part: Compile) -> None:
    """Puts a compiled encoder and predictor into any kind of Paraformer."""
    hidden, lengths, _, _ = decoder_inputs(model)
    compile_encoder(model, compile_part)
    compiled = compile_part(Predictor(model.predictor), (hidden, lengths))
    model.predictor = PredictorPart(model.predictor, compiled)


def decoder_inputs(model: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Example inputs of a Paraformer's decoder."""
    width = model.encoder.output_size()
    hidden, embeddings = torch.randn(2, FRAMES, width), torch.randn(2, TOKENS, width)
    return hidden, example_lengths(FRAMES), embeddings, example_lengths(TOKENS)
