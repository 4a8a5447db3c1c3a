"""Encoders, decoders and heads of FunASR's models, from its own classes with random weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from entry import TEXT, Entry, Inputs, Sizes
from torch import nn

import graphopt.funasr.adapter  # noqa: F401

Tensor = torch.Tensor
SPEECH: Sizes = ((2, 30), (3, 47))
SMALL: dict[str, Any] = {"output_size": 32, "attention_heads": 4, "num_blocks": 2}
FEED = {"linear_units": 48}
DECODER: dict[str, Any] = {
    "vocab_size": 40,
    "encoder_output_size": 32,
    "attention_heads": 4,
    "linear_units": 48,
    "num_blocks": 2,
}


def funasr(
    path: str,
    inputs: Callable[..., Inputs],
    sizes: Sizes = SPEECH,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    **settings: Any,
) -> Entry:
    """A class of `funasr.models`, by module and name, with its arguments."""

    def make() -> nn.Module:
        module, _, name = path.rpartition(".")
        made = getattr(importlib.import_module(f"funasr.models.{module}"), name)(**settings)
        return wrap(made) if wrap else made

    return Entry(make, inputs, sizes)


def features(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Frames, and lengths of which the first is the longest."""
    lengths = torch.full((batch,), length)
    lengths[1:] -= 5
    return torch.randn(batch, length, 16), lengths


def frames(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randn(batch, length, 16),)


def wide_frames(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randn(batch, length, 80),)


def hidden(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randn(batch, length, 32),)


def features_of_encoder(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, length, 32), torch.full((batch,), length)


def hidden_and_text(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lengths, targets = torch.full((batch,), length), torch.full((batch,), 7)
    lengths[1:] -= 4
    targets[1:] -= 2
    return torch.randn(batch, length, 32), lengths, torch.randint(1, 40, (batch, 7)), targets


def hidden_and_embeddings(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given, lengths, _, targets = hidden_and_text(batch, length)
    return given, lengths, torch.randn(batch, 7, 32), targets


def texts(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randint(1, 40, (batch, length)), torch.full((batch,), length)


def joint_inputs(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, length, 1, 32), torch.randn(batch, 1, 6, 32)


class First(nn.Module):
    """What an encoder returns first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)[0]


class CtcScores(nn.Module):
    """The head of a CTC model: scores and the best tokens."""

    def __init__(self, ctc: nn.Module) -> None:
        super().__init__()
        self.ctc = ctc

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self.ctc.log_softmax(hidden), self.ctc.argmax(hidden)


class KeywordScores(nn.Module):
    """FSMN without caches."""

    def __init__(self, fsmn: nn.Module) -> None:
        super().__init__()
        self.fsmn = fsmn

    def forward(self, frames: Tensor) -> Tensor:
        return self.fsmn(frames, {})


def emotion2vec() -> nn.Module:
    from funasr.models.emotion2vec.model import Emotion2vec
    from omegaconf import OmegaConf

    audio = {
        "type": "AUDIO",
        "prenet_depth": 1,
        "prenet_layerdrop": 0.0,
        "prenet_dropout": 0.0,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "num_extra_tokens": 2,
        "init_extra_token_zero": True,
        "mask_noise_std": 0.01,
        "mask_prob": 0.5,
        "inverse_mask": False,
        "mask_prob_adjust": 0.05,
        "keep_masked_pct": 0.0,
        "mask_length": 5,
        "add_masks": False,
        "remove_masks": False,
        "mask_dropout": 0.0,
        "encoder_zero_mask": True,
        "mask_channel_prob": 0.0,
        "mask_channel_length": 64,
        "local_grad_mult": 1.0,
        "use_alibi_encoder": True,
        "alibi_scale": 1.0,
        "learned_alibi": False,
        "alibi_max_pos": None,
        "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True,
        "learned_alibi_scale_per_layer": False,
        "num_alibi_heads": 4,
        "model_depth": 2,
        "ema_local_encoder": False,
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": "[(16, 10, 5), (16, 8, 4), (16, 4, 4)]",
        "conv_pos_width": 5,
        "conv_pos_groups": 4,
        "conv_pos_depth": 2,
        "conv_pos_pre_ln": False,
        "decoder": None,
    }
    settings = {
        "depth": 2,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "num_heads": 4,
        "norm_eps": 1e-5,
        "norm_affine": True,
        "encoder_dropout": 0.1,
        "post_mlp_drop": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "dropout_input": 0.0,
        "layerdrop": 0.0,
        "embed_dim": 32,
        "mlp_ratio": 2.0,
        "layer_norm_first": False,
        "average_top_k_layers": 2,
        "end_of_block_targets": False,
        "clone_batch": 1,
        "loss_beta": 0.0,
        "loss_scale": None,
        "supported_modality": "AUDIO",
        "normalize": True,
        "modalities": {"audio": audio},
    }
    return Emotion(Emotion2vec(model_conf=OmegaConf.to_container(OmegaConf.create(settings))))


class Emotion(nn.Module):
    """emotion2vec as its extract_features runs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, signal: Tensor) -> Tensor:
        signal = torch.layer_norm(signal, signal.shape[1:])
        return self.model(
            signal, padding_mask=None, mask=False, features_only=True, remove_extra_tokens=True
        )["x"]


def signal(batch: int, samples: int) -> tuple[Tensor]:
    return (torch.randn(batch, samples),)


FSMN = {
    "input_dim": 16,
    "input_affine_dim": 12,
    "fsmn_layers": 2,
    "linear_dim": 16,
    "proj_dim": 12,
    "lorder": 5,
    "rorder": 2,
    "lstride": 1,
    "rstride": 1,
    "output_affine_dim": 12,
    "output_dim": 10,
}
CONFORMER = {"cnn_module_kernel": 7, "macaron_style": True, **SMALL, **FEED}
BRANCH = {"cgmlp_linear_units": 48, "cgmlp_conv_kernel": 7, **SMALL}

MODELS = {
    "funasr-transformer": funasr(
        "transformer.encoder.TransformerEncoder",
        features,
        wrap=First,
        input_size=16,
        **SMALL,
        **FEED,
    ),
    "funasr-transformer-linear": funasr(
        "transformer.encoder.TransformerEncoder",
        features,
        wrap=First,
        input_size=16,
        input_layer="linear",
        **SMALL,
        **FEED,
    ),
    "funasr-conformer": funasr(
        "conformer.encoder.ConformerEncoder", features, wrap=First, input_size=16, **CONFORMER
    ),
    "funasr-conformer-latest": funasr(
        "conformer.encoder.ConformerEncoder",
        features,
        wrap=First,
        input_size=16,
        rel_pos_type="latest",
        **CONFORMER,
    ),
    "funasr-branchformer": funasr(
        "branchformer.encoder.BranchformerEncoder", features, wrap=First, input_size=16, **BRANCH
    ),
    "funasr-e-branchformer": funasr(
        "e_branchformer.encoder.EBranchformerEncoder",
        features,
        wrap=First,
        input_size=16,
        use_ffn=True,
        macaron_ffn=True,
        **FEED,
        **BRANCH,
    ),
    "funasr-sanm": funasr(
        "sanm.encoder.SANMEncoder",
        features,
        wrap=First,
        input_size=16,
        input_layer="pe",
        **SMALL,
        **FEED,
    ),
    "funasr-transformer-decoder": funasr(
        "transformer.decoder.TransformerDecoder", hidden_and_text, wrap=First, **DECODER
    ),
    "funasr-lightweight-decoder": funasr(
        "transformer.decoder.LightweightConvolutionTransformerDecoder",
        hidden_and_text,
        wrap=First,
        conv_kernel_length=(5, 5),
        **DECODER,
    ),
    "funasr-sanm-decoder": funasr(
        "sanm.decoder.FsmnDecoder",
        hidden_and_text,
        wrap=First,
        att_layer_num=2,
        kernel_size=5,
        sanm_shfit=0,
        **DECODER,
    ),
    "funasr-eparaformer-decoder": funasr(
        "e_paraformer.decoder.ParaformerSANMDecoder",
        hidden_and_embeddings,
        wrap=First,
        att_layer_num=2,
        kernel_size=5,
        **DECODER,
    ),
    "funasr-ctc": funasr("ctc.ctc.CTC", hidden, wrap=CtcScores, odim=40, encoder_output_size=32),
    "funasr-transducer-prediction": funasr(
        "transducer.rnnt_decoder.RNNTDecoder",
        texts,
        wrap=First,
        vocab_size=40,
        embed_size=16,
        hidden_size=32,
    ),
    "funasr-transducer-joint": funasr(
        "transducer.joint_network.JointNetwork",
        joint_inputs,
        output_size=40,
        encoder_size=32,
        decoder_size=32,
        joint_space_size=24,
    ),
    "funasr-lcbnet-text": funasr(
        "lcbnet.encoder.TransformerTextEncoder", texts, TEXT, First, input_size=40, **SMALL, **FEED
    ),
    "funasr-fsmn-kws": funasr("fsmn_kws.encoder.FSMNConvert", frames, wrap=KeywordScores, **FSMN),
    "funasr-adaptor": funasr(
        "llm_asr.adaptor.Transformer",
        features_of_encoder,
        downsample_rate=2,
        encoder_dim=32,
        llm_dim=32,
        ffn_dim=48,
        n_layer=1,
        attention_heads=4,
    ),
    "funasr-linear-adaptor": funasr(
        "llm_asr.adaptor.Linear", hidden, downsample_rate=2, encoder_dim=32, llm_dim=32, ffn_dim=48
    ),
    "funasr-campplus": funasr(
        "campplus.model.CAMPPlus",
        wide_frames,
        ((2, 120), (3, 150)),
        growth_rate=4,
        init_channels=16,
        embedding_size=24,
    ),
    "funasr-eres2netv2": funasr(
        "eres2net.eres2netv2.ERes2NetV2",
        wide_frames,
        ((2, 64), (3, 80)),
        num_blocks=[1, 1, 1, 1],
        m_channels=8,
        embedding_size=24,
    ),
    "funasr-emotion2vec": Entry(emotion2vec, signal, ((2, 1600), (1, 2400))),
}
