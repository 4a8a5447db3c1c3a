"""Compiled parts of the models that take hotwords in the places of FunASR's.

FunASR's loops stay: what hotwords are, how many count, and how their scores are merged. So do the
layers of CifPredictorV3 that say when a token was spoken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from graphopt.funasr.auto_model.parts import (
    TOKENS,
    Compile,
    Part,
    compile_listening,
    decoder_inputs,
    example_lengths,
)
from graphopt.funasr.layers.bias_encoder import LstmStep, bias_encoder, empty_state
from graphopt.funasr.layers.contextual import (
    ContextualDecoder,
    HotwordScores,
    check_decoder_of_hotwords,
)
from graphopt.funasr.layers.paraformer import Decoder, HiddenDecoder, share_parameters

_HOTWORDS = 5  # of the example inputs


class _Lstm(Part):
    """An `nn.LSTM` that runs step by step."""

    original: nn.LSTM

    def forward(self, words: Tensor | rnn.PackedSequence) -> Any:
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


class _ContextualDecoder(_TokenDecoder):
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
        if return_hidden:
            return self.original(
                hidden, lengths, embeddings, counts, contextual_info, clas_scale, True
            )
        scale = torch.tensor(float(clas_scale))
        scores = self.compiled(
            hidden, lengths.long(), embeddings, counts.long(), contextual_info, scale
        )
        return scores, counts


class _HiddenDecoder(_TokenDecoder):
    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        return_hidden: bool = False,
        return_both: bool = False,
    ) -> Any:
        scores, tokens = self.compiled(hidden, lengths.long(), embeddings, counts.long())
        if return_both:
            return scores, tokens, counts
        return (tokens if return_hidden else scores), counts


class _DecoderOfHotwords(Part):
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
        return self.compiled(hotwords, hotword_counts.long(), tokens, counts.long()), counts

    def forward_asf6(
        self, hotwords: Tensor, hotword_counts: Tensor, tokens: Tensor, counts: Tensor
    ) -> Tensor:
        """Scores of hotwords, f32[B, heads, N, H]."""
        scores: Tensor = self.scores(hotwords, hotword_counts.long(), tokens, counts.long())
        return scores


def compile_contextual(model: Any, compile_part: Compile) -> None:
    """Puts compiled parts into a `ContextualParaformer`.

    Raises:
        UnsupportedFunasrModelError: if its encoder of hotwords is no LSTM.
    """
    _compile_bias_encoder(model, compile_part)
    decoder = ContextualDecoder(share_parameters(model.decoder)).eval()
    example = (*decoder_inputs(model), _example_hotwords(model), torch.tensor(1.0))
    compiled = compile_part(decoder, example)
    compile_listening(model, compile_part)
    model.decoder = _ContextualDecoder(model.decoder, compiled)


def compile_seaco(model: Any, compile_part: Compile) -> None:
    """Puts compiled parts into a `SeacoParaformer`.

    Raises:
        UnsupportedFunasrModelError: if its encoder of hotwords is no LSTM in one direction, or its
            second decoder has too few layers.
    """
    check_decoder_of_hotwords(model)
    _compile_bias_encoder(model, compile_part)
    decoder = HiddenDecoder(share_parameters(model.decoder)).eval()
    compiled = compile_part(decoder, decoder_inputs(model))
    hotwords = _example_hotwords(model)
    tokens = torch.randn(2, TOKENS, hotwords.shape[2])
    example = (hotwords, torch.tensor([_HOTWORDS] * 2), tokens, example_lengths(TOKENS))
    second = model.seaco_decoder
    model.seaco_decoder = _DecoderOfHotwords(
        second,
        compile_part(Decoder(share_parameters(second)).eval(), example),
        compile_part(HotwordScores(second), example),
    )
    model.hotword_output_layer = compile_part(model.hotword_output_layer.eval(), (tokens,))
    compile_listening(model, compile_part)
    model.decoder = _HiddenDecoder(model.decoder, compiled)


def _example_hotwords(model: Any) -> Tensor:
    return torch.randn(2, _HOTWORDS, model.encoder.output_size())


def _compile_bias_encoder(model: Any, compile_part: Compile) -> None:
    encoder = bias_encoder(model)
    inputs = torch.randn(_HOTWORDS, encoder.input_size)
    compiled = compile_part(LstmStep(encoder).eval(), (inputs, empty_state(encoder, _HOTWORDS)))
    model.bias_encoder = _Lstm(encoder, compiled)
