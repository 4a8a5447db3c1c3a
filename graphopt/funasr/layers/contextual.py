"""Contextual Paraformer and SeACo-Paraformer from features to token ids, for capture.

Hotwords come in as what `bias_encoder.py` makes of them, the empty one at the end. Contextual
Paraformer's decoder always attends to them. SeACo-Paraformer (https://arxiv.org/abs/2308.03266)
recognizes without them; a second decoder attends to them and overrules the first where one is said.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphopt.dependencies import keep_process_settings, require
from graphopt.errors import UnsupportedFunasrModelError
from graphopt.funasr.layers.paraformer import (
    Decoder,
    Encoder,
    HiddenDecoder,
    Predictor,
    prefix_mask,
    share_parameters,
)

SCORED = 6  # layers of SeACo's decoder whose last gives the scores of hotwords


class ContextualDecoder(nn.Module):
    """Acoustic embeddings and hotwords to scores: FunASR's ContextualParaformerDecoder."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        module = require("funasr.models.contextual_paraformer.decoder", "Contextual Paraformer")
        with keep_process_settings():
            self.decoder = module.ContextualParaformerDecoderExport(decoder)

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        hotwords: Tensor,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Scores of tokens.

        Args:
            hidden: f32[B, T, D].
            lengths: i[B], frames of each item.
            embeddings: f32[B, N, D].
            counts: i[B], tokens of each item.
            hotwords: f32[B, H, D].
            scale: f32[], what hotwords count for; 1 if None.

        Returns:
            f32[B, N, vocabulary], before softmax.
        """
        layers = self.decoder.model
        shown, _ = self.decoder.prepare_mask(prefix_mask(counts, embeddings.shape[1]))
        _, hidden_mask = self.decoder.prepare_mask(prefix_mask(lengths, hidden.shape[1]))
        tokens = layers.decoders(embeddings, shown, hidden, hidden_mask)[0]
        _, _, tokens, heard = layers.last_decoder(tokens, shown, hidden, hidden_mask)
        biased = self._attend(tokens, hotwords)
        if scale is not None:
            biased = biased * scale
        both = torch.cat([heard, biased], 2).transpose(1, 2)
        tokens = tokens + layers.bias_output(both).transpose(1, 2)
        if layers.decoders2 is not None:
            tokens = layers.decoders2(tokens, shown, hidden, hidden_mask)[0]
        tokens = layers.decoders3(tokens, shown, hidden, hidden_mask)[0]
        scores: Tensor = layers.output_layer(layers.after_norm(tokens))
        return scores

    def _attend(self, tokens: Tensor, hotwords: Tensor) -> Tensor:
        """What tokens find among hotwords, f32[B, N, D]."""
        layer = self.decoder.bias_decoder
        heads = layer.src_attn.forward_qkv(layer.norm3(tokens), hotwords)
        found = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        output: Tensor = layer.src_attn.linear_out(found)
        return output


class ContextualParaformer(nn.Module):
    """Features and hotwords to token ids, from FunASR's ContextualParaformer; weights are shared.

    Args:
        model: FunASR's model in eval mode; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = Encoder(share_parameters(model.encoder))
        self.predictor = Predictor(model.predictor)
        self.decoder = ContextualDecoder(share_parameters(model.decoder))
        self.eval()

    def forward(
        self, speech: Tensor, speech_lengths: Tensor, hotwords: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Recognizes a batch.

        Args:
            speech: f32[B, T, F], normalized features.
            speech_lengths: i32[B], frames of each item.
            hotwords: f32[B, H, D].

        Returns:
            Token ids i64[B, N] and i32[B], how many of them belong to each item.
        """
        hidden = self.encoder(speech, speech_lengths)
        embeddings, counts, _, _ = self.predictor(hidden, speech_lengths)
        scores = self.decoder(hidden, speech_lengths, embeddings, counts, hotwords)
        return scores.argmax(-1), counts


class SeacoParaformer(nn.Module):
    """Features to token ids without hotwords, and what `HotwordBias` needs; weights are shared.

    Args:
        model: FunASR's SeacoParaformer in eval mode; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = Encoder(share_parameters(model.encoder))
        self.predictor = Predictor(model.predictor)
        self.decoder = HiddenDecoder(share_parameters(model.decoder))
        self.eval()

    def forward(
        self, speech: Tensor, speech_lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Recognizes a batch.

        Args:
            speech: f32[B, T, F], normalized features.
            speech_lengths: i32[B], frames of each item.

        Returns:
            Token ids i64[B, N]; i32[B], how many of them belong to each item; acoustic embeddings
            and hidden tokens, f32[B, N, D]; hidden frames, f32[B, T, D].
        """
        hidden = self.encoder(speech, speech_lengths)
        embeddings, counts, _, _ = self.predictor(hidden, speech_lengths)
        scores, tokens = self.decoder(hidden, speech_lengths, embeddings, counts)
        return scores.argmax(-1), counts, embeddings, tokens, hidden


class HotwordBias(nn.Module):
    """Token ids without hotwords to those with them, by SeACo-Paraformer's second decoder.

    Args:
        model: FunASR's SeacoParaformer in eval mode; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = Decoder(share_parameters(model.seaco_decoder))
        self.output_layer = model.hotword_output_layer
        self.nothing: int = model.NO_BIAS
        self.eval()

    def forward(
        self,
        hotwords: Tensor,
        hotword_counts: Tensor,
        embeddings: Tensor,
        tokens: Tensor,
        counts: Tensor,
        ids: Tensor,
    ) -> Tensor:
        """Overrules tokens.

        Args:
            hotwords: f32[B, H, D].
            hotword_counts: i32[B], hotwords of each item.
            embeddings: f32[B, N, D], acoustic embeddings.
            tokens: f32[B, N, D], hidden tokens.
            counts: i32[B], tokens of each item.
            ids: i64[B, N], tokens without hotwords.

        Returns:
            i64[B, N].
        """
        heard = self.decoder(hotwords, hotword_counts, embeddings, counts)
        written = self.decoder(hotwords, hotword_counts, tokens, counts)
        found = self.output_layer(heard + written).argmax(-1)
        return torch.where(found == self.nothing, ids, found)


class HotwordScores(nn.Module):
    """How far each token attends to each hotword, by which FunASR chooses among many.

    Args:
        decoder: SeACo-Paraformer's second decoder, in eval mode; it is not changed.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = Decoder(share_parameters(decoder)).decoder
        self.eval()

    def forward(
        self, hotwords: Tensor, hotword_counts: Tensor, tokens: Tensor, counts: Tensor
    ) -> Tensor:
        """Scores hotwords.

        Args:
            hotwords: f32[B, H, D].
            hotword_counts: i32[B], hotwords of each item.
            tokens: f32[B, N, D], hidden tokens.
            counts: i32[B], tokens of each item.

        Returns:
            f32[B, heads, N, H]; each row of H sums to 1.
        """
        shown, _ = self.decoder.prepare_mask(prefix_mask(counts, tokens.shape[1]))
        _, known = self.decoder.prepare_mask(prefix_mask(hotword_counts, hotwords.shape[1]))
        layers = self.decoder.model.decoders
        for layer in list(layers)[: SCORED - 1]:
            tokens = layer(tokens, shown, hotwords, known)[0]
        scores: Tensor = layers[SCORED - 1].get_attn_mat(tokens, shown, hotwords, known)
        return scores


def check_decoder_of_hotwords(model: Any) -> None:
    """Checks that a SeacoParaformer can score hotwords.

    Raises:
        UnsupportedFunasrModelError: if its second decoder has too few layers.
    """
    layers = len(model.seaco_decoder.decoders)
    if layers < SCORED:
        raise UnsupportedFunasrModelError(
            f"SeacoParaformer with att_layer_num: {layers} of its seaco_decoder",
            [f"att_layer_num of {SCORED} or more"],
        )
