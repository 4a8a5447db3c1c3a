"""ContextualParaformer: a Paraformer whose decoder attends to hotwords."""

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
from graphopt.funasr.text.hotwords import HotwordEncoder
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return hotwords.describe_hotwords(directory, settings, None)


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.contextual import ContextualParaformer

    embedding = model.decoder.embed if model.use_decoder_embedding else model.bias_embed
    rows = torch.randn(2, hotwords.HOTWORDS, model.bias_encoder.hidden_size)
    inputs = (example_speech(directory), example_lengths(), rows)
    step = hotwords.capture_step(model, embedding)
    return {"asr": (ContextualParaformer(model), inputs), **step}


@dataclass(frozen=True)
class ContextualModel(ParaformerModel):
    """What is said, by Contextual Paraformer.

    Attributes:
        encoder: of hotwords.
        hotwords: f32[H, D], the empty one last.
    """

    encoder: HotwordEncoder
    hotwords: Array

    def with_hotwords(self, hotword: str | None) -> ContextualModel:
        """The same model for other hotwords; see `HotwordEncoder.encode`."""
        return replace(self, hotwords=self.encoder.encode(hotword))

    def _recognize(self, speech: Array, lengths: Array) -> tuple[Array, ...]:
        hotwords = np.repeat(self.hotwords[None], len(speech), 0)
        ids, counts = self.module(speech, lengths, hotwords)
        return ids, counts


def _open(
    package: SealedFolder, part: hotwords.HotwordPart, threads: int | None
) -> ContextualModel:
    plain = paraformer.open_paraformer(package, part, threads)
    encoder = hotwords.open_encoder(package, part, threads)
    return ContextualModel(**vars(plain), encoder=encoder, hotwords=encoder.encode(None))


def _compile_parts(model: Any, compile_part: Compile) -> None:
    import torch

    from graphopt.funasr.auto_parts.hotwords import ContextualDecoderPart
    from graphopt.funasr.auto_parts.paraformer import compile_listening, decoder_inputs
    from graphopt.funasr.layers.contextual import ContextualDecoder
    from graphopt.funasr.layers.paraformer import share_parameters

    hotwords.compile_encoder(model, compile_part)
    decoder = ContextualDecoder(share_parameters(model.decoder))
    rows = torch.randn(2, hotwords.HOTWORDS, model.encoder.output_size())
    compiled = compile_part(decoder, (*decoder_inputs(model), rows, torch.tensor(1.0)))
    compile_listening(model, compile_part)
    model.decoder = ContextualDecoderPart(model.decoder, compiled)


MODEL = ModelClass(
    name="ContextualParaformer",
    task="asr",
    understood=Understood(
        (
            "funasr.models.contextual_paraformer.model",
            "funasr.models.contextual_paraformer.decoder",
            *paraformer.MODULES,
        ),
        {**paraformer.PARTS, "decoder": ("ContextualParaformerDecoder",)},
        {"model_conf.bias_encoder_type": ("lstm",)},
        passed=(
            *("target_buffer_length", "inner_dim", "bias_encoder_type", "use_decoder_embedding"),
            *("crit_attn_weight", "crit_attn_smooth", "bias_encoder_dropout_rate"),
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
