"""ParaformerStreaming: what is said in a signal that goes on, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.models.audio_model import open_front_end
from graphopt.funasr.models.model_class import (
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Understood,
)
from graphopt.funasr.models.paraformer import Spelling, describe_spelling
from graphopt.funasr.text.clocks import Threshold
from graphopt.funasr.text.spelling import spell, tokens_to_text
from graphopt.runtime.fields import Range
from graphopt.runtime.loaded import LoadedModule, open_module
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StreamingPart(Spelling):
    """What a package says of it.

    Attributes:
        threshold: where a token is full.
        tail_threshold: what the end of a signal adds to the last token.
    """

    threshold: Threshold
    tail_threshold: Annotated[float, Range(-1e6, 1e6)]


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    predictor = directory.config.get("predictor_conf") or {}
    return {
        **describe_spelling(directory, settings, None),
        "threshold": predictor.get("threshold", 1.0),
        "tail_threshold": predictor.get("tail_threshold", 0.0),
    }


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    from graphopt.funasr.layers.streaming import DecidingChunk, WeighingChunk, unsupported

    problem = unsupported(model.encoder, model.decoder)
    if problem is not None:
        raise ValueError(f"{problem[0]}, not {problem[1]}")
    encoder = WeighingChunk(model.encoder, model.predictor)
    decoder = DecidingChunk(model.decoder)
    return {"asr": (encoder, encoder.example()), "decoder": (decoder, decoder.example())}


@dataclass(frozen=True)
class StreamingParaformer:
    """Compiled chunks and what surrounds them.

    Attributes:
        encoder: from frames with positions to hidden frames and what each adds to a token.
        decoder: from hidden frames and embeddings to token ids.
        frontend: from samples to features.
        cmvn: f32[2, features], shift and scale, or None.
        tokens: the vocabulary.
        special: token ids that are no text.
        threshold: where a token is full.
        tail_threshold: what the end of a signal adds to the last token.
    """

    encoder: LoadedModule
    decoder: LoadedModule
    frontend: FrontendConfig
    cmvn: Array | None
    tokens: tuple[str, ...]
    special: frozenset[int]
    threshold: float
    tail_threshold: float

    def spell(self, ids: list[int]) -> str:
        """The text of token ids."""
        return tokens_to_text(spell(ids, self.tokens, self.special))


def _open(package: SealedFolder, part: StreamingPart, threads: int | None) -> StreamingParaformer:
    return StreamingParaformer(
        open_module(package.folder("asr"), threads),
        open_module(package.folder("decoder"), threads),
        *open_front_end(part),
        part.tokens,
        frozenset(part.special),
        part.threshold,
        part.tail_threshold,
    )


def _compile_parts(model: Any, compile_part: Compile) -> None:
    from graphopt.errors import UnsupportedFunasrModelError
    from graphopt.funasr.auto_parts.streaming import ChunkDecoderPart, ChunkEncoderPart
    from graphopt.funasr.layers.streaming import DecoderChunk, EncoderChunk, unsupported

    encoder, decoder = model.encoder, model.decoder
    problem = unsupported(encoder, decoder)
    if problem is not None:
        raise UnsupportedFunasrModelError(f"ParaformerStreaming with {problem[0]}", [problem[1]])
    chunk = EncoderChunk(encoder)
    model.encoder = ChunkEncoderPart(encoder, compile_part(chunk, chunk.example()))
    whole = DecoderChunk(decoder)
    model.decoder = ChunkDecoderPart(decoder, whole, compile_part(whole, whole.example()))


MODEL = ModelClass(
    name="ParaformerStreaming",
    task="asr",
    understood=Understood(
        (
            "funasr.models.paraformer_streaming.model",
            "funasr.models.paraformer.cif_predictor",
            "funasr.models.paraformer.decoder",
            "funasr.models.scama.encoder",
        ),
        {
            "encoder": ("SANMEncoderChunkOpt",),
            "decoder": ("ParaformerSANMDecoder",),
            "predictor": ("CifPredictorV2",),
            "frontend": ("WavFrontendOnline",),
            "tokenizer": ("CharTokenizer",),
        },
        passed=("decoder_attention_chunk_type",),
    ),
    part=StreamingPart,
    describe=_describe,
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
)
