"""Compiled parts of the models that take hotwords in the places of FunASR's.

FunASR's loops stay: what hotwords are, how many count, and how their scores are merged. So do the
layers of CifPredictorV3 that say when a token was spoken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from graphopt.funasr.auto_parts.parts import (
    Part,
)
from graphopt.funasr.layers.bias_encoder import empty_state

_HOTWORDS = 5  # of the example inputs


class LstmPart(Part):
    """An `nn.LSTM` that runs step by step."""

    original: nn.LSTM

    def forward(self, words: Tensor | rnn.PackedSequence) -> Any:
        """Outputs and last state of f32[H, L, D], as torch's LSTM gives them."""
        packed = isinstance(words, rnn.PackedSequence)
        if isinstance(words, rnn.PackedSequence):
            padded, lengths = rnn.pad_packed_sequence(words, batch_first=True)
        else:
            padded, lengths = words, torch.full((len(words),), words.shape[1])
        state = empty_state(self.original, len(padded))
        last = [(hidden.clone(), cell.clone()) for hidden, cell in state]
        made = []
        for step in range(padded.shape[1]):
            state = self.compiled(padded[:, step].contiguous(), state)
            made.append(state[-1][0])
            ended = lengths == step + 1
            for (hidden, cell), (new_hidden, new_cell) in zip(last, state, strict=True):
                hidden[ended], cell[ended] = new_hidden[ended], new_cell[ended]
        outputs: Any = torch.stack(made, 1)
        if packed:
            outputs = rnn.pack_padded_sequence(
                outputs, lengths, batch_first=True, enforce_sorted=False
            )
        hiddens, cells = zip(*last, strict=True)
        return outputs, (torch.stack(hiddens), torch.stack(cells))


class _TokenDecoder(Part):
    @property
    def embed(self) -> nn.Module:
        """Embedding of tokens, which hotwords share."""
        embed: nn.Module = self.original.embed  # type: ignore[assignment]
        return embed


class ContextualDecoderPart(_TokenDecoder):
    """Contextual Paraformer's decoder; its hidden tokens are those of FunASR's own."""

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        contextual_info: Tensor,
        clas_scale: float = 1.0,
        return_hidden: bool = False,
    ) -> Any:
        """Scores of tokens.

        Args:
            hidden: f32[B, T, D], hidden frames.
            lengths: [B], frames of each item.
            embeddings: f32[B, N, D], acoustic embeddings.
            counts: [B], tokens of each item.
            contextual_info: f32[B, H, D], hotwords.
            clas_scale: factor on what tokens find among hotwords.
            return_hidden: whether to ask FunASR's own decoder, for hidden tokens.

        Returns:
            Scores f32[B, N, vocabulary], before softmax, and `counts`; with `return_hidden` what
            FunASR's own gives.
        """
        if return_hidden:
            return self.original(
                hidden, lengths, embeddings, counts, contextual_info, clas_scale, True
            )
        scale = torch.tensor(float(clas_scale))
        scores = self.compiled(
            hidden, lengths.long(), embeddings, counts.long(), contextual_info, scale
        )
        return scores, counts


class HiddenDecoderPart(_TokenDecoder):
    """SeACo-Paraformer's first decoder."""

    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        return_hidden: bool = False,
        return_both: bool = False,
    ) -> Any:
        """Scores of tokens, hidden tokens, or both.

        Args:
            hidden: f32[B, T, D], hidden frames.
            lengths: [B], frames of each item.
            embeddings: f32[B, N, D], acoustic embeddings.
            counts: [B], tokens of each item.
            return_hidden: whether to return hidden tokens in the place of scores.
            return_both: whether to return both; then `return_hidden` does not count.

        Returns:
            Scores f32[B, N, vocabulary], before softmax, hidden tokens f32[B, N, D], or both; and
            `counts`.
        """
        scores, tokens = self.compiled(hidden, lengths.long(), embeddings, counts.long())
        if return_both:
            return scores, tokens, counts
        return (tokens if return_hidden else scores), counts


class DecoderOfHotwordsPart(Part):
    """SeACo-Paraformer's second decoder.

    Attributes:
        scores: compiled scores of hotwords.
    """

    def __init__(self, original: nn.Module, compiled: nn.Module, scores: nn.Module) -> None:
        super().__init__(original, compiled)
        self.scores = scores

    def forward(
        self, hotwords: Tensor, hotword_counts: Tensor, tokens: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decodes with attention to hotwords.

        Args:
            hotwords: f32[B, H, D].
            hotword_counts: [B], hotwords of each item.
            tokens: f32[B, N, D], acoustic embeddings or hidden tokens.
            counts: [B], tokens of each item.

        Returns:
            Hidden tokens f32[B, N, D] and `counts`.
        """
        return self.compiled(hotwords, hotword_counts.long(), tokens, counts.long()), counts

    def forward_asf6(
        self, hotwords: Tensor, hotword_counts: Tensor, tokens: Tensor, counts: Tensor
    ) -> Tensor:
        """How far each token attends to each hotword.

        Args:
            hotwords: f32[B, H, D].
            hotword_counts: [B], hotwords of each item.
            tokens: f32[B, N, D], hidden tokens.
            counts: [B], tokens of each item.

        Returns:
            f32[B, heads, N, H].
        """
        scores: Tensor = self.scores(hotwords, hotword_counts.long(), tokens, counts.long())
        return scores
