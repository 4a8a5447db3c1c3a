"""Paraformer-large at its official sizes, with random weights that behave like trained ones.

The layers are FunASR's own export forms (SANMEncoderExport, ParaformerSANMDecoderExport), sizes
from the model card of ``speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch``.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from graphopt.dependencies import keep_process_settings, require

if TYPE_CHECKING:
    from torch import Tensor, nn

FEATURES = 560
WIDTH = 512
HEADS = 4
HIDDEN = 2048
KERNEL = 11
TOKENS = 8404
FRAME_MS = 60  # after stacking 7 frames of 10 ms with a hop of 6
TOKENS_PER_SECOND = 4  # of Mandarin speech, about

OUTLIER_CHANNELS = 4
OUTLIER_GAIN = 5.0


def paraformer_large(
    blocks: int = 50, decoder_blocks: int = 16, seed: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Build encoder and decoder in eval mode; equal arguments give equal weights.

    The weights are normal, scaled so that the residual stream grows from about 1.3 to about 3
    through any number of blocks: branch outputs shrink with ``sqrt(2 / blocks)``. Weights of layer
    norms are spread around 1, and four channels of each are five times larger, since trained
    transformers have such outlier channels and they are what makes int8 activations hard.

    Args:
        blocks: Encoder blocks, the first (560 to 512 wide) included; at least 2.
        decoder_blocks: Decoder blocks with attention; one feed-forward block follows them.
        seed: Seed of all weights.

    Returns:
        ``encoder(speech f32[B, T, 560], speech_lengths i32[B]) -> (f32[B, T, 512], i32[B])`` and
        ``decoder(hs_pad f32[B, T, 512], hlens i32[B], ys_in_pad f32[B, N, 512], ys_in_lens i32[B])
        -> (f32[B, N, 8404], i32[B])``. In both, the largest length must equal the padded size.

    Raises:
        MissingDependencyError: If torch or FunASR is not installed.
    """
    sanm = require("funasr.models.sanm.encoder", "building Paraformer")
    paraformer = require("funasr.models.paraformer.decoder", "building Paraformer")
    encoder, decoder = _encoder_and_decoder(blocks, decoder_blocks, seed)
    with keep_process_settings():
        exported = sanm.SANMEncoderExport(encoder), paraformer.ParaformerSANMDecoderExport(decoder)
    return exported[0].eval().requires_grad_(False), exported[1].eval().requires_grad_(False)


def whole_paraformer(blocks: int = 50, decoder_blocks: int = 16, seed: int = 0) -> nn.Module:
    """Encoder, CIF predictor and decoder of FunASR in eval mode, not in their export forms.

    Encoder and decoder have the weights of :func:`paraformer_large`. Those of the predictor are
    such that a frame adds about a quarter of a token, by a bias, and more or less by the frame:
    random ones would find eight tokens a second.

    Args:
        blocks: Encoder blocks.
        decoder_blocks: Decoder blocks with attention.
        seed: Seed of all weights.

    Returns:
        A module with ``encoder``, ``predictor`` (CifPredictorV2) and ``decoder``, as FunASR's
        ``Paraformer`` has them.

    Raises:
        MissingDependencyError: If torch or FunASR is not installed.
    """
    torch = require("torch", "building Paraformer")
    cif = require("funasr.models.paraformer.cif_predictor", "building Paraformer")
    encoder, decoder = _encoder_and_decoder(blocks, decoder_blocks, seed)
    with keep_process_settings():
        predictor = cif.CifPredictorV2(idim=WIDTH, l_order=1, r_order=1, tail_threshold=0.45)
    mean = TOKENS_PER_SECOND * FRAME_MS / 1000
    draws = _rows(predictor.cif_output.weight, 1.0)
    draws += [(predictor.cif_conv1d.weight, 1 / math.sqrt(3 * WIDTH), 0.0)]
    _draw_weights(draws, seed + 1)
    predictor.cif_conv1d.bias.data.zero_()
    predictor.cif_output.bias.data.fill_(math.log(mean / (1 - mean)))
    model = torch.nn.Module()
    for name, part in (("encoder", encoder), ("predictor", predictor), ("decoder", decoder)):
        model.add_module(name, part)
    whole: nn.Module = model.eval().requires_grad_(False)
    return whole


def example_inputs(frames: int = 167, batch: int = 1, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs of the encoder: smooth random features and their lengths.

    Utterance ``b`` is the same in every batch that has ``b`` and the same ``frames``: it has
    ``frames * (1 - b / (2 * batch))`` frames, so the first fills the batch and the others are
    padded with zeros.

    Args:
        frames: Frames of the longest utterance, 60 ms each (167 are 10 s).
        batch: Number of utterances.
        seed: Seed of the features.

    Returns:
        ``speech`` f32[batch, frames, 560] and ``speech_lengths`` i32[batch].
    """
    torch = require("torch", "making example inputs")
    speech = torch.zeros(batch, frames, FEATURES)
    lengths = torch.zeros(batch, dtype=torch.int32)
    for b in range(batch):
        length = max(1, frames - b * frames // (2 * batch))
        generator = torch.Generator().manual_seed(seed * 1000 + b)
        noise = torch.randn(length, FEATURES, generator=generator)
        # Speech features change slowly: x[t] = a x[t-1] + sqrt(1 - a^2) noise keeps variance 1.
        for t in range(1, length):
            noise[t] = 0.8 * noise[t - 1] + 0.6 * noise[t]
        speech[b, :length] = noise
        lengths[b] = length
    return speech, lengths


def decoder_inputs(
    memory: Tensor, memory_lengths: Tensor, tokens: int = 40, seed: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs of the decoder behind an encoder output, with random acoustic embeddings.

    Args:
        memory: Encoder output, f32[B, T, 512].
        memory_lengths: Its lengths, i32[B].
        tokens: Tokens of the longest utterance; the others get theirs by their share of frames.
        seed: Seed of the embeddings.

    Returns:
        ``(hs_pad, hlens, ys_in_pad f32[B, tokens, 512], ys_in_lens i32[B])``.
    """
    torch = require("torch", "making example inputs")
    batch, frames, width = memory.shape
    embeds = torch.zeros(batch, tokens, width)
    lengths = torch.clamp(memory_lengths * tokens // frames, min=1).to(torch.int32)
    for b in range(batch):
        generator = torch.Generator().manual_seed(seed * 1000 + b)
        count = int(lengths[b])
        embeds[b, :count] = torch.randn(count, width, generator=generator)
    return memory, memory_lengths, embeds, lengths


def _encoder_and_decoder(blocks: int, decoder_blocks: int, seed: int) -> tuple[Any, Any]:
    """Both parts as FunASR trains them, with their weights drawn."""
    torch = require("torch", "building Paraformer")
    sanm = require("funasr.models.sanm.encoder", "building Paraformer")
    paraformer = require("funasr.models.paraformer.decoder", "building Paraformer")
    with torch.device("meta"), keep_process_settings():  # FunASR's own init would take seconds
        encoder = sanm.SANMEncoder(**_encoder_config(blocks))
        decoder = paraformer.ParaformerSANMDecoder(**_decoder_config(decoder_blocks))
    encoder.to_empty(device="cpu")
    decoder.to_empty(device="cpu")
    _draw_weights(
        _encoder_draws(encoder, blocks) + _decoder_draws(decoder, decoder_blocks), seed=seed
    )
    return encoder, decoder


def _encoder_config(blocks: int) -> dict[str, Any]:
    return {
        "input_size": FEATURES,
        "output_size": WIDTH,
        "attention_heads": HEADS,
        "linear_units": HIDDEN,
        "num_blocks": blocks,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": KERNEL,
        "sanm_shfit": 0,  # FunASR's spelling
        "selfattention_layer_type": "sanm",
    }


def _decoder_config(blocks: int) -> dict[str, Any]:
    return {
        "vocab_size": TOKENS,
        "encoder_output_size": WIDTH,
        "attention_heads": HEADS,
        "linear_units": HIDDEN,
        "num_blocks": blocks,
        "att_layer_num": blocks,
        "kernel_size": KERNEL,
        "sanm_shfit": 0,
    }


# (tensor to fill, standard deviation, mean); norms get outlier channels afterwards.
_Draw = tuple["Tensor", float, float]


def _linear(layer: nn.Linear, gain: float) -> list[_Draw]:
    return _rows(layer.weight, gain) + ([] if layer.bias is None else [(layer.bias, 0.05, 0.0)])


def _rows(weight: Tensor, gain: float) -> list[_Draw]:
    return [(weight, gain / math.sqrt(weight.shape[1]), 0.0)]


def _norm(layer: nn.LayerNorm) -> list[_Draw]:
    return [(layer.weight, 0.25, 1.0), (layer.bias, 0.1, 0.0)]


def _encoder_draws(encoder: Any, blocks: int) -> list[_Draw]:
    branch = math.sqrt(2 / blocks)
    draws = _norm(encoder.after_norm)
    for index, layer in enumerate([*encoder.encoders0, *encoder.encoders]):
        attention, hidden = layer.self_attn, layer.feed_forward
        qkv = attention.linear_q_k_v
        # The first block has no residual around its attention: its values carry the signal.
        value_gain = 1.0 if index == 0 else branch
        draws += _norm(layer.norm1) + _norm(layer.norm2)
        draws += _rows(qkv.weight[: 2 * WIDTH], 1.1) + _rows(qkv.weight[2 * WIDTH :], value_gain)
        draws += [(qkv.bias, 0.05, 0.0), (attention.fsmn_block.weight, 0.1, 0.0)]
        draws += _linear(attention.linear_out, 1.5)
        draws += _linear(hidden.w_1, 1.0) + _linear(hidden.w_2, branch * math.sqrt(2))
    return draws


def _decoder_draws(decoder: Any, blocks: int) -> list[_Draw]:
    branch = math.sqrt(2 / blocks)
    draws = _norm(decoder.after_norm) + _linear(decoder.output_layer, 2.0)
    draws += [(decoder.embed[0].weight, 1.0, 0.0)]  # for training; the export form does not use it
    for layer in [*decoder.decoders, *decoder.decoders3]:
        hidden = layer.feed_forward
        draws += _norm(layer.norm1) + _linear(hidden.w_1, 1.0)
        draws += _norm(hidden.norm) + _linear(hidden.w_2, 1.0)
        if layer.self_attn is None:
            continue
        source = layer.src_attn
        draws += _norm(layer.norm2) + _norm(layer.norm3)
        draws += [(layer.self_attn.fsmn_block.weight, 0.1, 0.0)]
        draws += _linear(source.linear_q, 1.1) + _linear(source.linear_k_v, 1.1)
        draws += _linear(source.linear_out, branch * 2)
    return draws


def _draw_weights(draws: list[_Draw], seed: int) -> None:
    """Fill every tensor from a generator of its own, so that the order does not matter."""
    torch = require("torch", "building Paraformer")

    def fill(index: int) -> None:
        tensor, std, mean = draws[index]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        tensor.data.normal_(mean, std, generator=generator)
        if mean:  # a norm's weight
            channels = torch.randperm(tensor.numel(), generator=generator)[:OUTLIER_CHANNELS]
            tensor.data[channels] *= OUTLIER_GAIN

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(draws))))
