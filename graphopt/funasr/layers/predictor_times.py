"""What CifPredictorV3 says of times, as modules for capture.

It spreads every frame over several finer ones, reads them by an LSTM in both directions, and gives
each a weight. A graph is one step in both directions; the loop is the caller's (`text/clocks.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.layers.paraformer import prefix_mask

Both = tuple[Tensor, Tensor]


class FineFrames(nn.Module):
    """Hidden frames to what the LSTM adds to its gates at each finer frame.

    Args:
        predictor: FunASR's `CifPredictorV3` with `upsample_type: cnn_blstm`.
    """

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.pad, self.conv = predictor.pad, predictor.cif_conv1d
        self.uses_conv: bool = predictor.use_cif1_cnn
        # As kernel and stride of the transposed convolution are equal, frames do not overlap.
        spread = predictor.upsample_cnn
        self.width, _, finer = spread.weight.shape
        rows = spread.weight.permute(2, 1, 0).flatten(0, 1)
        self.spread = _linear(rows, spread.bias.repeat(finer))
        self.left, self.right = (
            _linear(
                getattr(predictor.blstm, f"weight_ih_{which}"),
                getattr(predictor.blstm, f"bias_ih_{which}")
                + getattr(predictor.blstm, f"bias_hh_{which}"),
            )
            for which in ("l0", "l0_reverse")
        )
        self.eval()

    def forward(self, hidden: Tensor, lengths: Tensor) -> Both:
        """f32[B, T, D] and i[B] -> f32[B, T * finer, 4 D], from the left and from the right."""
        hidden = hidden * prefix_mask(lengths, hidden.shape[1])[:, :, None]
        if self.uses_conv:
            hidden = torch.relu(self.conv(self.pad(hidden.transpose(1, 2)))).transpose(1, 2)
        fine = self.spread(hidden).reshape(hidden.shape[0], -1, self.width)
        return self.left(fine), self.right(fine)


class BothWaysStep(nn.Module):
    """One step of the LSTM in both directions, each at a frame of its own, and what it scores.

    The score of a frame is the sum of both.
    """

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        lstm, output = predictor.blstm, predictor.cif_output2
        self.left, self.right = _linear(lstm.weight_hh_l0), _linear(lstm.weight_hh_l0_reverse)
        weights = output.weight.chunk(2, 1)
        self.left_score, self.right_score = _linear(weights[0], output.bias), _linear(weights[1])
        self.eval()

    def forward(
        self, left: Tensor, right: Tensor, state: tuple[Both, Both]
    ) -> tuple[Tensor, Tensor, tuple[Both, Both]]:
        """Runs one step, of each direction at its own frame.

        Args:
            left: f32[B, 4 D], what the frame adds to the gates, from the left (see `FineFrames`).
            right: the same from the right.
            state: hidden and cell f32[B, D] of both directions, from the left first.

        Returns:
            Scores f32[B, 1] from the left and from the right, and the state behind the step.
        """
        from_left = _step(left + self.left(state[0][0]), state[0][1])
        from_right = _step(right + self.right(state[1][0]), state[1][1])
        scores = self.left_score(from_left[0]), self.right_score(from_right[0])
        return *scores, (from_left, from_right)


def _step(gates: Tensor, cell: Tensor) -> Both:
    """Hidden and cell; gates in torch's order: input, forget, cell, output."""
    enter, keep, new, leave = gates.chunk(4, -1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    linear.weight = nn.Parameter(weight.detach().contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach())
    return linear


def capture_times(predictor: Any) -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Modules and example inputs by the folder of a package; none if times are made otherwise."""
    if type(predictor).__name__ != "CifPredictorV3" or predictor.upsample_type != "cnn_blstm":
        return {}
    width = predictor.blstm.hidden_size
    frames, lengths = torch.randn(2, 20, width), torch.tensor([20, 10], dtype=torch.int32)
    gates, zeros = torch.randn(2, 4 * width), torch.zeros(2, width)
    state = ((zeros, zeros.clone()), (zeros.clone(), zeros.clone()))
    return {
        "fine_frames": (FineFrames(predictor), (frames, lengths)),
        "both_ways": (BothWaysStep(predictor), (gates, gates.clone(), state)),
    }
