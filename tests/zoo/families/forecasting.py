"""Forecasters of time series, of transformers."""

from __future__ import annotations

import torch
from small import hf

Tensor = torch.Tensor
BATCH = ((2,), (3,))
PAST = {
    "prediction_length": 4,
    "context_length": 12,
    "lags_sequence": [1, 2],
    "num_time_features": 2,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}


def past_and_future(batch: int) -> dict[str, Tensor]:
    return {
        "past_values": torch.randn(batch, 14),
        "past_time_features": torch.randn(batch, 14, 2),
        "past_observed_mask": torch.ones(batch, 14),
        "future_values": torch.randn(batch, 4),
        "future_time_features": torch.randn(batch, 4, 2),
    }


def past(batch: int) -> dict[str, Tensor]:
    return {"past_values": torch.randn(batch, 32, 3)}


def returns(batch: int) -> dict[str, Tensor]:
    return {
        "states": torch.randn(batch, 5, 6),
        "actions": torch.randn(batch, 5, 3),
        "returns_to_go": torch.randn(batch, 5, 1),
        "timesteps": torch.arange(5).expand(batch, -1).clone(),
        "attention_mask": torch.ones(batch, 5, dtype=torch.long),
    }


PATCHES = {
    "num_input_channels": 3,
    "context_length": 32,
    "patch_length": 8,
    "prediction_length": 4,
    "d_model": 16,
}

MODELS = {
    "time-series-transformer": hf("TimeSeriesTransformerModel", past_and_future, BATCH, **PAST),
    "informer": hf("InformerModel", past_and_future, BATCH, **PAST),
    "autoformer": hf(
        "AutoformerModel", past_and_future, BATCH, **PAST, moving_average=3, label_length=2
    ),
    "patchtst": hf(
        "PatchTSTForPrediction",
        past,
        BATCH,
        patch_stride=8,
        ffn_dim=24,
        num_attention_heads=2,
        num_hidden_layers=1,
        **PATCHES,
    ),
    "patchtsmixer": hf(
        "PatchTSMixerForPrediction", past, BATCH, patch_stride=8, num_layers=1, **PATCHES
    ),
    "decision-transformer": hf(
        "DecisionTransformerModel",
        returns,
        BATCH,
        state_dim=6,
        act_dim=3,
        hidden_size=16,
        max_ep_len=32,
        n_layer=1,
        n_head=2,
    ),
}
