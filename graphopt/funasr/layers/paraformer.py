"""Paraformer as one module from features to token ids, for capture.

The layers are those of FunASR's export forms. Two things of these depend on data in ways that no
tracer follows and are replaced: masks are as long as the padded axis (FunASR takes the largest
length, which is the same in every batch that it makes), and tokens come from
`torch.ops.graphopt.cif`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from graphopt.dependencies import keep_process_settings, require
from graphopt.funasr.layers import cif as cif  # registers the op


class PrefixMask(nn.Module):
    """FunASR's `sequence_mask` for an axis of known extent.

    Attributes:
        extents: sizes of the axes that the next masks are for, in the order in which they are
            made; a forward of the whole model puts them into this list, and uses up all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.extents: list[Any] = []

    def forward(self, lengths: Tensor) -> Tensor:
        """1.0 before the length and 0.0 behind: i[B] -> f32[B, extent]."""
        return prefix_mask(lengths, self.extents.pop(0))


def prefix_mask(lengths: Tensor, extent: Any) -> Tensor:
    """1.0 before the length and 0.0 behind: i[B] -> f32[B, extent]."""
    steps = torch.arange(extent, device=lengths.device)
    return (steps[None, :] < lengths[:, None]).float()


class Encoder(nn.Module):
    """Features to hidden frames: FunASR's SANM encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        export = require("funasr.models.sanm.encoder", "Paraformer").SANMEncoderExport
        with keep_process_settings():
            self.encoder = export(encoder)
        self.encoder.make_pad_mask = PrefixMask()

    def forward(self, speech: Tensor, speech_lengths: Tensor) -> Tensor:
        """f32[B, T, F] and i32[B] -> f32[B, T, D]."""
        self.encoder.make_pad_mask.extents[:] = [speech.shape[1]]
        hidden: Tensor = self.encoder(speech, speech_lengths)[0]
        return hidden


class Predictor(nn.Module):
    """Hidden frames to acoustic embeddings, one a token: FunASR's CifPredictor, ...V2 and ...V3.

    What V3 computes besides, weights of times for the training, is left out.
    """

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor
        kind = type(predictor).__name__
        self.rule = "prefix" if kind.startswith("CifPredictorV2") else "integrate"
        self.residual = not kind.startswith(("CifPredictorV2", "CifPredictorV3"))
        self.count = "floor" if predictor.tail_threshold > 0 else "round"

    def forward(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens of frames.

        Args:
            hidden: f32[B, T, D].
            lengths: i32[B], frames of each item.

        Returns:
            Embeddings f32[B, N, D], counts i32[B], weights and peaks f32[B, T + 1] (f32[B, T] for
            a predictor without a tail).
        """
        alphas = self._weights(hidden) * prefix_mask(lengths, hidden.shape[1])
        tail = self.predictor.tail_threshold
        if tail > 0:
            hidden = nn.functional.pad(hidden, (0, 0, 0, 1))
            alphas = nn.functional.pad(alphas, (0, 1))
            if getattr(self.predictor, "tail_mask", True):
                longer = torch.arange(hidden.shape[1], device=hidden.device)
                alphas = alphas + tail * (longer[None, :] == lengths[:, None]).float()
            else:
                alphas = torch.cat([alphas[:, :-1], torch.full_like(alphas[:, -1:], tail)], 1)
        tokens, peaks, counts = torch.ops.graphopt.cif(
            hidden, alphas, self.predictor.threshold, self.rule, self.count
        )
        return tokens, counts, alphas, peaks

    def _weights(self, hidden: Tensor) -> Tensor:
        """What each frame adds to a token, f32[B, T]."""
        p = self.predictor
        context = hidden.transpose(1, 2)
        output = p.cif_conv1d(p.pad(context))
        if self.residual:
            output = output + context
        # Of a transposed batch of one torch would trace a product that serves no other batch.
        output = p.cif_output(torch.relu(output).transpose(1, 2).contiguous())
        weights = torch.sigmoid(output) * p.smooth_factor - p.noise_threshold
        return torch.relu(weights).squeeze(-1)


class Decoder(nn.Module):
    """Acoustic embeddings to scores of tokens: FunASR's ParaformerSANMDecoder.

    Without an output layer, as SeACo-Paraformer's decoder of hotwords is, it makes hidden tokens.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = _exported(decoder)

    def forward(
        self, hidden: Tensor, lengths: Tensor, embeddings: Tensor, counts: Tensor
    ) -> Tensor:
        """Decodes a batch.

        Args:
            hidden: f32[B, T, D], what tokens attend to: hidden frames, or hotwords.
            lengths: i[B], how many of them each item has.
            embeddings: f32[B, N, D], acoustic embeddings.
            counts: i[B], tokens of each item.

        Returns:
            Scores f32[B, N, vocabulary], before softmax; without an output layer hidden tokens
            f32[B, N, D].
        """
        self.decoder.make_pad_mask.extents[:] = [embeddings.shape[1], hidden.shape[1]]
        scores: Tensor = self.decoder(hidden, lengths, embeddings, counts)[0]
        return scores


class HiddenDecoder(nn.Module):
    """As `Decoder`, with the hidden tokens that the scores are made of."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = _exported(decoder)

    def forward(
        self, hidden: Tensor, lengths: Tensor, embeddings: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decodes a batch.

        Args:
            hidden: f32[B, T, D], hidden frames.
            lengths: i[B], frames of each item.
            embeddings: f32[B, N, D], acoustic embeddings.
            counts: i[B], tokens of each item.

        Returns:
            Scores f32[B, N, vocabulary], before softmax, and hidden tokens f32[B, N, D].
        """
        self.decoder.make_pad_mask.extents[:] = [embeddings.shape[1], hidden.shape[1]]
        scores, tokens, _ = self.decoder(
            hidden, lengths, embeddings, counts, return_hidden=True, return_both=True
        )
        return scores, tokens


def _exported(decoder: nn.Module) -> Any:
    """FunASR's export form of a decoder, with masks of known extents."""
    module = require("funasr.models.paraformer.decoder", "Paraformer")
    with keep_process_settings():
        exported = module.ParaformerSANMDecoderExport(decoder)
    exported.make_pad_mask = PrefixMask()
    return exported


class Paraformer(nn.Module):
    """Features to token ids, from FunASR's own Paraformer; its weights are shared, not copied.

    Args:
        model: FunASR's `Paraformer` in eval mode; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        encoder, decoder = (share_parameters(part) for part in (model.encoder, model.decoder))
        self.encoder = Encoder(encoder)
        self.predictor = Predictor(model.predictor)
        self.decoder = Decoder(decoder)
        self.eval()

    def forward(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Recognizes a batch.

        Args:
            speech: f32[B, T, F], normalized features.
            speech_lengths: i32[B], frames of each item.

        Returns:
            Token ids i64[B, N] and i32[B], how many of them belong to each item.
        """
        hidden = self.encoder(speech, speech_lengths)
        embeddings, counts, _, _ = self.predictor(hidden, speech_lengths)
        scores = self.decoder(hidden, speech_lengths, embeddings, counts)
        return scores.argmax(-1), counts


class TimedParaformer(Paraformer):
    """The same with what the times of tokens are told by.

    These are the predictor's weights and peaks; of CifPredictorV3, which finds times in another
    way, the hidden frames.
    """

    def forward(  # type: ignore[override]
        self, speech: Tensor, speech_lengths: Tensor
    ) -> tuple[Tensor, ...]:
        """As of `Paraformer`; then f32[B, T + tail] twice, or f32[B, T, D]."""
        hidden = self.encoder(speech, speech_lengths)
        embeddings, counts, *found = self.predictor(hidden, speech_lengths)
        scores = self.decoder(hidden, speech_lengths, embeddings, counts)
        fine = type(self.predictor.predictor).__name__ == "CifPredictorV3"
        return scores.argmax(-1), counts, *([hidden] if fine else found)


def share_parameters(module: nn.Module) -> nn.Module:
    """A copy of a module tree with the same parameters, which may be rewritten in place."""
    memo = {id(p): p for p in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo)
