"""SeacoParaformer: a Paraformer whose second decoder overrules the first at hotwords."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.funasr.models import hotwords, paraformer
from graphopt.funasr.models.audio_model import example_lengths, example_speech
from graphopt.funasr.models.model_class import (
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Understood,
)
from graphopt.funasr.models.paraformer import ParaformerModel
from graphopt.funasr.text.clocks import describe_fine_times
from graphopt.funasr.text.hotwords import HotwordEncoder
from graphopt.runtime.loaded import LoadedModule, open_module
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]

MOST_HOTWORDS = 50  # that it attends to, besides the empty one
_WORDS = 12  # of the example inputs


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return hotwords.describe_hotwords(directory, settings, describe_fine_times(directory.config))


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.contextual import HotwordBias, HotwordScores, SeacoParaformer
    from graphopt.funasr.layers.predictor_times import capture_times

    tokens = torch.randn(2, _WORDS, model.bias_encoder.hidden_size)
    rows = torch.randn(2, hotwords.HOTWORDS, tokens.shape[2])
    every = torch.tensor([hotwords.HOTWORDS] * 2).int()
    counts = torch.tensor([_WORDS, _WORDS // 2]).int()
    ids = torch.zeros(2, _WORDS, dtype=torch.int64)
    biased = (rows, every, tokens, tokens.clone(), counts, ids)
    return {
        "asr": (SeacoParaformer(model), (example_speech(directory), example_lengths())),
        **hotwords.capture_step(model, model.decoder.embed),
        "bias": (HotwordBias(model), biased),
        "scores": (HotwordScores(model.seaco_decoder), (rows, every, tokens, counts)),
        **capture_times(model.predictor),
    }


@dataclass(frozen=True)
class SeacoModel(ParaformerModel):
    """What is said, by SeACo-Paraformer.

    Attributes:
        encoder: of hotwords.
        bias: from tokens without hotwords to those with them.
        scores: how far each token attends to each hotword.
        hotwords: f32[H, D], the empty one last; None if there are none.
    """

    encoder: HotwordEncoder
    bias: LoadedModule
    scores: LoadedModule
    hotwords: Array | None

    def with_hotwords(self, hotword: str | None) -> SeacoModel:
        """The same model for other hotwords; see `HotwordEncoder.encode`."""
        return replace(self, hotwords=None if hotword is None else self.encoder.encode(hotword))

    def _recognize(self, speech: Array, lengths: Array) -> tuple[Array, ...]:
        ids, counts, embeddings, tokens, frames = self.module(speech, lengths)
        if self.hotwords is not None and ids.size:
            hotwords = self._choose(self.hotwords, tokens, counts)
            every = np.full(len(ids), hotwords.shape[1], np.int32)
            ids = self.bias(hotwords, every, embeddings, tokens, counts, ids)
        return ids, counts, frames

    def _choose(self, hotwords: Array, tokens: Array, counts: Array) -> Array:
        """For each item the hotwords that its tokens attend to most, f32[B, K, D].

        FunASR scores the first item of a batch and chooses for all of them; here a batch gives each
        item what it gets alone.
        """
        repeated = np.repeat(hotwords[None], len(tokens), 0)
        if len(hotwords) <= MOST_HOTWORDS:
            return repeated
        every = np.full(len(tokens), len(hotwords), np.int32)
        scores = self.scores(repeated, every, tokens, counts)
        chosen = []
        for item, count in zip(scores, counts, strict=True):
            order = np.argsort(-item[:, :count].sum((0, 1)), kind="stable")
            most = order[: min(MOST_HOTWORDS, len(hotwords) - 1)]
            chosen.append(hotwords[[*most, len(hotwords) - 1]])
        return np.stack(chosen)


def _open(package: SealedFolder, part: hotwords.HotwordPart, threads: int | None) -> SeacoModel:
    plain = paraformer.open_paraformer(package, part, threads)
    encoder = hotwords.open_encoder(package, part, threads)
    bias, scores = (open_module(package.folder(n), threads) for n in ("bias", "scores"))
    return SeacoModel(**vars(plain), encoder=encoder, bias=bias, scores=scores, hotwords=None)


def _compile_parts(model: Any, compile_part: Compile) -> None:
    import torch

    from graphopt.funasr.auto_parts.hotwords import DecoderOfHotwordsPart, HiddenDecoderPart
    from graphopt.funasr.auto_parts.paraformer import compile_listening, decoder_inputs
    from graphopt.funasr.layers.contextual import HotwordScores, check_decoder_of_hotwords
    from graphopt.funasr.layers.paraformer import Decoder, HiddenDecoder, share_parameters

    check_decoder_of_hotwords(model)
    hotwords.compile_encoder(model, compile_part)
    inputs = hidden, _, embeddings, counts = decoder_inputs(model)
    compiled = compile_part(HiddenDecoder(share_parameters(model.decoder)), inputs)
    rows = torch.randn(2, hotwords.HOTWORDS, hidden.shape[2])
    example = (rows, torch.tensor([hotwords.HOTWORDS] * 2), embeddings, counts)
    second = model.seaco_decoder
    model.seaco_decoder = DecoderOfHotwordsPart(
        second,
        compile_part(Decoder(share_parameters(second)), example),
        compile_part(HotwordScores(second), example),
    )
    model.hotword_output_layer = compile_part(model.hotword_output_layer, (embeddings,))
    compile_listening(model, compile_part)
    model.decoder = HiddenDecoderPart(model.decoder, compiled)


MODEL = ModelClass(
    name="SeacoParaformer",
    task="asr",
    understood=Understood(
        ("funasr.models.seaco_paraformer.model", *paraformer.MODULES),
        {
            **paraformer.PARTS,
            "predictor": ("CifPredictor", "CifPredictorV2", "CifPredictorV3"),
            "seaco_decoder": ("ParaformerSANMDecoder",),
        },
        {
            "model_conf.bias_encoder_type": ("lstm",),
            "model_conf.bias_encoder_bid": (False,),
        },
        {"seaco_decoder_conf.att_layer_num": 6},
        (
            *("inner_dim", "bias_encoder_type", "bias_encoder_dropout_rate", "bias_encoder_bid"),
            *("seaco_lsm_weight", "seaco_length_normalized_loss", "seaco_weight"),
            *("train_decoder", "NO_BIAS"),
        ),
    ),
    part=hotwords.HotwordPart,
    describe=_describe,
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
    files=hotwords.files,
    in_batches=True,
)
