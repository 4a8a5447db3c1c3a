"""Compiled parts of Paraformer in the places where an AutoModel's loops call FunASR's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.layers.paraformer import Decoder, Encoder, Predictor, share_parameters

FRAMES, TOKENS = 60, 12  # of the example inputs

#: Compiles a module for example inputs.
Compile = Callable[[nn.Module, tuple[Any, ...]], nn.Module]


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


class _Encoder(Part):
    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.compiled(speech, lengths.long()), lengths, None


class _Predictor(Part):
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


class _Decoder(Part):
    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if args or kwargs:
            return self.original(hidden, lengths, embeddings, counts, *args, **kwargs)
        return self.compiled(hidden, lengths.long(), embeddings, counts.long()), counts


def compile_paraformer(model: Any, compile_part: Compile) -> None:
    """Puts compiled parts into a `Paraformer` or `BiCifParaformer`."""
    decoder = Decoder(share_parameters(model.decoder)).eval()
    compiled = compile_part(decoder, decoder_inputs(model))
    compile_listening(model, compile_part)
    model.decoder = _Decoder(model.decoder, compiled)


def compile_listening(model: Any, compile_part: Compile) -> None:
    """Puts a compiled encoder and predictor into any kind of Paraformer."""
    hidden, lengths, _, _ = decoder_inputs(model)
    features = torch.randn(2, FRAMES, input_size(model.encoder))
    encoder = Encoder(share_parameters(model.encoder)).eval()
    predictor = Predictor(model.predictor).eval()
    model.encoder = _Encoder(model.encoder, compile_part(encoder, (features, lengths)))
    model.predictor = _Predictor(model.predictor, compile_part(predictor, (hidden, lengths)))


def decoder_inputs(model: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Example inputs of a Paraformer's decoder."""
    width = model.encoder.output_size()
    hidden, embeddings = torch.randn(2, FRAMES, width), torch.randn(2, TOKENS, width)
    return hidden, example_lengths(FRAMES), embeddings, example_lengths(TOKENS)


def example_lengths(frames: int) -> Tensor:
    """i64[2]: one item fills the batch, the other half of it."""
    return torch.tensor([frames, frames // 2])


def input_size(encoder: Any) -> int:
    """Features of a frame."""
    return int(encoder.encoders0[0].self_attn.linear_q_k_v.in_features)
