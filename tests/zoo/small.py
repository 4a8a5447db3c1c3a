"""Small random models of transformers, by the names of their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from entry import TEXT, Entry, Inputs, Sizes

Tensor = torch.Tensor
VOCABULARY = 60
#: The settings that most configurations know.
ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
DECODER = {**ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "head_dim": 8}
PAIR: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
SPEECH: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}


def hf(
    model: str,
    inputs: Callable[..., Inputs],
    sizes: Sizes = TEXT,
    config: str = "",
    wrap: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
    **settings: Any,
) -> Entry:
    """A model of transformers.

    Args:
        model: name of its class.
        inputs: of a call.
        sizes: of its calls.
        config: name of its configuration's class; from that of the model if empty.
        wrap: what makes of it the module that is compiled.
        **settings: of its configuration.
    """

    def make() -> torch.nn.Module:
        import transformers

        name = config or _config(model)
        made = getattr(transformers, model)(getattr(transformers, name)(**settings))
        return wrap(made) if wrap else made

    return Entry(make, inputs, sizes)


_ROLES = (
    "Model",
    "ForCausalLM",
    "LMHeadModel",
    "ForMaskedLM",
    "ForConditionalGeneration",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForImageClassification",
    "ForSemanticSegmentation",
    "ForObjectDetection",
    "ForDepthEstimation",
    "ForCTC",
    "ForPrediction",
)


def _config(model: str) -> str:
    """`BertConfig` for `BertForMaskedLM`."""
    role = next(role for role in _ROLES if model.endswith(role))
    return model.removesuffix(role) + "Config"


def text(batch: int, length: int) -> dict[str, Tensor]:
    """Tokens, and a mask of which the last row is padded."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length - 2 :] = 0
    return {"input_ids": torch.randint(5, VOCABULARY, (batch, length)), "attention_mask": mask}


def tokens(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(5, VOCABULARY, (batch, length))}


def two_texts(batch: int, length: int) -> dict[str, Tensor]:
    """For an encoder and a decoder."""
    target = torch.randint(5, VOCABULARY, (batch, length - 3))
    return {**text(batch, length), "decoder_input_ids": target}


def pixels(batch: int, height: int, width: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(batch, 3, height, width)}


def samples(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(batch, length)}


def padded_samples(batch: int, length: int) -> dict[str, Tensor]:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length * 3 // 4 :] = 0
    return {"input_values": torch.randn(batch, length), "attention_mask": mask}
