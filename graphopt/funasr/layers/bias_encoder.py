"""FunASR's encoder of hotwords, an LSTM over their tokens, for capture.

A graph is one step for all hotwords; the loop over their tokens is the caller's: one graph serves
hotwords of any number and length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphopt.errors import UnsupportedFunasrModelError

State = list[tuple[Tensor, Tensor]]  # of each layer hidden and cell, f32[H, D]


class LstmStep(nn.Module):
    """One step of a stacked LSTM; gates in torch's order: input, forget, cell, output."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, inputs: Tensor, state: State) -> State:
        """f32[H, D] and the state before it -> the state behind it."""
        behind: State = []
        for layer, (hidden, cell) in enumerate(state):
            gates = self._linear("ih", layer, inputs) + self._linear("hh", layer, hidden)
            enter, keep, new, leave = gates.chunk(4, -1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
            inputs = torch.sigmoid(leave) * torch.tanh(cell)
            behind.append((inputs, cell))
        return behind

    def _linear(self, kind: str, layer: int, inputs: Tensor) -> Tensor:
        weight, bias = (
            getattr(self.lstm, f"{what}_{kind}_l{layer}") for what in ("weight", "bias")
        )
        return functional.linear(inputs, weight, bias)


class HotwordStep(nn.Module):
    """The same from token ids."""

    def __init__(self, embedding: nn.Module, lstm: nn.LSTM) -> None:
        super().__init__()
        self.embedding = embedding
        self.step = LstmStep(lstm)
        self.eval()

    def forward(self, ids: Tensor, state: State) -> State:
        """i64[H] and the state before them -> the state behind them."""
        behind: State = self.step(self.embedding(ids), state)
        return behind


def bias_encoder(model: Any) -> nn.LSTM:
    """The LSTM of a model of FunASR that takes hotwords.

    Raises:
        UnsupportedFunasrModelError: if the model has another encoder of hotwords.
    """
    encoder = getattr(model, "bias_encoder", None)
    name = type(model).__name__
    if not isinstance(encoder, nn.LSTM):
        given = getattr(model, "bias_encoder_type", "mean")
        raise UnsupportedFunasrModelError(
            f"{name} with bias_encoder_type: {given}", ["bias_encoder_type: lstm"]
        )
    if encoder.bidirectional:
        raise UnsupportedFunasrModelError(
            f"{name} with bias_encoder_bid: true", ["bias_encoder_bid: false"]
        )
    return encoder


def empty_state(encoder: nn.LSTM, hotwords: int) -> State:
    """Zeros before the first step."""
    shape = (hotwords, encoder.hidden_size)
    return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(encoder.num_layers)]
