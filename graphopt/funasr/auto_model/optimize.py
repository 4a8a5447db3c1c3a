"""`graphopt.optimize` of a `funasr.AutoModel`: the same object interface, compiled parts inside.

FunASR's own loops stay: reading audio, the VAD's state machine, batches, hotwords, timestamps and
text. What they call for numbers (encoder, predictor, decoder) is compiled.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphopt.errors import UnsupportedFunasrModelError
from graphopt.frontend.model_check import check_mode
from graphopt.funasr.auto_model.hotwords import compile_contextual, compile_seaco
from graphopt.funasr.auto_model.parts import (
    FRAMES,
    TOKENS,
    Compile,
    Part,
    compile_paraformer,
    example_lengths,
    input_size,
)
from graphopt.funasr.auto_model.sorted_inference import SortedInference
from graphopt.funasr.auto_model.stream import compile_streaming
from graphopt.funasr.layers.ct_transformer import Punctuation, StreamingPunctuation
from graphopt.funasr.layers.fsmn_vad import empty_cache
from graphopt.funasr.layers.paraformer import share_parameters
from graphopt.funasr.layers.sense_voice import Frames


def optimize_auto_model(auto_model: Any, compile_part: Compile) -> Any:
    """A copy of an AutoModel whose models call compiled parts; the original is not changed.

    Args:
        auto_model: with any of an ASR, a VAD and a punctuation model.
        compile_part: compiles a module for example inputs.

    Raises:
        UnsupportedFunasrModelError: naming the first model that is not supported.
        TrainingModeError: naming the first module in training mode.
    """
    optimized = copy.copy(auto_model)
    for role in ("model", "vad_model", "punc_model", "spk_model"):
        model = getattr(auto_model, role, None)
        if model is None:
            continue
        name = type(model).__name__
        if name not in _MODELS:
            raise UnsupportedFunasrModelError(name, _MODELS)
        check_mode(model)
        own = share_parameters(model)
        _MODELS[name](own, lambda part, inputs: compile_part(part.eval(), inputs))
        setattr(optimized, role, own)
    if type(optimized.model).__name__ in _IN_BATCHES:
        optimized.inference = SortedInference(optimized)
    return optimized


class _SenseVoiceEncoder(Part):
    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.compiled(speech, lengths.long()), lengths


class _CachedEncoder(Part):
    """FSMN-VAD's encoder, whose cache FunASR starts as an empty dict."""

    def forward(self, feats: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        state = {} if cache is None else cache
        if not state:
            state.update(empty_cache(self.original, feats.shape[0]))
        scores: Tensor = self.compiled(feats, state)
        return scores


def _fsmn_vad(model: Any, compile_part: Compile) -> None:
    encoder = model.encoder
    feats = torch.randn(1, FRAMES, encoder.input_dim)
    compiled = compile_part(encoder, (feats, empty_cache(encoder, 1)))
    model.encoder = _CachedEncoder(encoder, compiled)


def _punctuation(model: Any, compile_part: Compile) -> None:
    text = torch.zeros(1, TOKENS, dtype=torch.int64)
    lengths = torch.tensor([TOKENS], dtype=torch.int32)
    compiled = compile_part(Punctuation(model), (text, lengths))
    model.punc_forward = lambda text, text_lengths: (
        compiled(text.long(), text_lengths.to(torch.int32)),
        None,
    )


def _streaming_punctuation(model: Any, compile_part: Compile) -> None:
    text = torch.zeros(1, TOKENS, dtype=torch.int64)
    lengths, before = torch.tensor([TOKENS], dtype=torch.int32), torch.tensor([TOKENS // 2])
    compiled = compile_part(StreamingPunctuation(model), (text, lengths, before))
    model.punc_forward = lambda text, text_lengths, vad_indexes: (
        compiled(text.long(), text_lengths.to(torch.int32), vad_indexes.long()),
        None,
    )


def _sense_voice(model: Any, compile_part: Compile) -> None:
    encoder = model.encoder
    features = torch.randn(2, FRAMES, input_size(encoder))
    compiled = compile_part(Frames(share_parameters(encoder)), (features, example_lengths(FRAMES)))
    model.encoder = _SenseVoiceEncoder(encoder, compiled)


_MODELS: dict[str, Callable[[Any, Compile], None]] = {
    "Paraformer": compile_paraformer,
    "BiCifParaformer": compile_paraformer,
    "ContextualParaformer": compile_contextual,
    "SeacoParaformer": compile_seaco,
    "ParaformerStreaming": compile_streaming,
    "FsmnVADStreaming": _fsmn_vad,
    "CTTransformer": _punctuation,
    "CTTransformerStreaming": _streaming_punctuation,
    "SenseVoiceSmall": _sense_voice,
}
#: Models that recognize several recordings at once.
_IN_BATCHES = (
    *("Paraformer", "BiCifParaformer", "ContextualParaformer", "SeacoParaformer"),
    "SenseVoiceSmall",
)
