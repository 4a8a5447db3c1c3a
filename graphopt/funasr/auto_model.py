"""`graphopt.optimize` of a `funasr.AutoModel`: the same object interface, compiled parts inside.

FunASR's own loops stay: reading audio, the VAD's state machine, batches, hotwords, timestamps and
text. What they call for numbers (encoder, predictor, decoder) is compiled.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphopt.errors import UnsupportedFunasrModelError
from graphopt.funasr.ct_transformer import Punctuation, StreamingPunctuation
from graphopt.funasr.paraformer import Decoder, Encoder, Predictor, share_parameters
from graphopt.funasr.sense_voice import Frames
from graphopt.funasr.stream_parts import Compile, compile_streaming
from graphopt.zoo.fsmn_vad import empty_cache

_FRAMES, _TOKENS = 60, 12  # of the example inputs


def is_auto_model(model: object) -> bool:
    """Whether something is a `funasr.AutoModel`, without importing FunASR."""
    kind = type(model)
    return kind.__name__ == "AutoModel" and kind.__module__.startswith("funasr.")


def optimize_auto_model(auto_model: Any, compile_part: Compile) -> Any:
    """A copy of an AutoModel whose models call compiled parts; the original is not changed.

    Args:
        auto_model: with any of an ASR, a VAD and a punctuation model.
        compile_part: compiles a module for example inputs.

    Raises:
        UnsupportedFunasrModelError: naming the first model that is not supported.
    """
    optimized = copy.copy(auto_model)
    for role in ("model", "vad_model", "punc_model", "spk_model"):
        model = getattr(auto_model, role, None)
        if model is None:
            continue
        name = type(model).__name__
        if name not in _MODELS:
            raise UnsupportedFunasrModelError(name, _MODELS)
        own = share_parameters(model)
        _MODELS[name](own, compile_part)
        setattr(optimized, role, own)
    return optimized


class _Part(nn.Module):
    """A compiled part in the place of FunASR's, which stays for what is not inference.

    Attributes:
        original: FunASR's module; FunASR asks its parameters for their device.
    """

    def __init__(self, original: nn.Module, compiled: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.compiled = compiled

    def output_size(self) -> int:
        """Width of what the part makes, as FunASR's encoders tell it."""
        width: Callable[[], int] = self.original.output_size  # type: ignore[assignment]
        return width()


class _Encoder(_Part):
    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.compiled(speech, lengths.long()), lengths, None


class _SenseVoiceEncoder(_Part):
    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.compiled(speech, lengths.long()), lengths


class _Predictor(_Part):
    def __init__(self, original: Any, compiled: nn.Module) -> None:
        super().__init__(original, compiled)
        self.tail_threshold: float = original.tail_threshold
        self.tail_mask = getattr(original, "tail_mask", False)

    def forward(
        self, hidden: Tensor, target: Tensor | None, mask: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if target is not None:
            return self.original(hidden, target, mask, *args, **kwargs)
        lengths = mask[:, 0].long().sum(-1)
        embeddings, counts, alphas, peaks = self.compiled(hidden, lengths)
        whole = counts.to(alphas.dtype) if self.tail_threshold > 0 else alphas.sum(-1)
        return embeddings, whole, alphas, peaks


class _Decoder(_Part):
    def forward(
        self,
        hidden: Tensor,
        lengths: Tensor,
        embeddings: Tensor,
        counts: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if args or kwargs:
            return self.original(hidden, lengths, embeddings, counts, *args, **kwargs)
        return self.compiled(hidden, lengths.long(), embeddings, counts.long()), counts


class _CachedEncoder(_Part):
    """FSMN-VAD's encoder, whose cache FunASR starts as an empty dict."""

    def forward(self, feats: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        state = {} if cache is None else cache
        if not state:
            state.update(empty_cache(self.original, feats.shape[0]))
        scores: Tensor = self.compiled(feats, state)
        return scores


def _lengths(frames: int) -> Tensor:
    return torch.tensor([frames, frames // 2])


def _paraformer(model: Any, compile_part: Compile) -> None:
    width = model.encoder.output_size()
    features = torch.randn(2, _FRAMES, _input_size(model.encoder))
    hidden = torch.randn(2, _FRAMES, width)
    embeddings = torch.randn(2, _TOKENS, width)
    lengths = _lengths(_FRAMES)
    encoder = Encoder(share_parameters(model.encoder)).eval()
    decoder = Decoder(share_parameters(model.decoder)).eval()
    predictor = Predictor(model.predictor).eval()
    model.encoder = _Encoder(model.encoder, compile_part(encoder, (features, lengths)))
    model.predictor = _Predictor(model.predictor, compile_part(predictor, (hidden, lengths)))
    example = (hidden, lengths, embeddings, _lengths(_TOKENS))
    model.decoder = _Decoder(model.decoder, compile_part(decoder, example))


def _input_size(encoder: Any) -> int:
    return int(encoder.encoders0[0].self_attn.linear_q_k_v.in_features)


def _fsmn_vad(model: Any, compile_part: Compile) -> None:
    encoder = model.encoder
    feats = torch.randn(1, _FRAMES, encoder.input_dim)
    compiled = compile_part(encoder, (feats, empty_cache(encoder, 1)))
    model.encoder = _CachedEncoder(encoder, compiled)


def _punctuation(model: Any, compile_part: Compile) -> None:
    text = torch.zeros(1, _TOKENS, dtype=torch.int64)
    lengths = torch.tensor([_TOKENS], dtype=torch.int32)
    compiled = compile_part(Punctuation(model), (text, lengths))
    model.punc_forward = lambda text, text_lengths: (
        compiled(text.long(), text_lengths.to(torch.int32)),
        None,
    )


def _streaming_punctuation(model: Any, compile_part: Compile) -> None:
    text = torch.zeros(1, _TOKENS, dtype=torch.int64)
    lengths, before = torch.tensor([_TOKENS], dtype=torch.int32), torch.tensor([_TOKENS // 2])
    compiled = compile_part(StreamingPunctuation(model), (text, lengths, before))
    model.punc_forward = lambda text, text_lengths, vad_indexes: (
        compiled(text.long(), text_lengths.to(torch.int32), vad_indexes.long()),
        None,
    )


def _sense_voice(model: Any, compile_part: Compile) -> None:
    encoder = model.encoder
    features = torch.randn(2, _FRAMES, _input_size(encoder))
    compiled = compile_part(Frames(share_parameters(encoder)), (features, _lengths(_FRAMES)))
    model.encoder = _SenseVoiceEncoder(encoder, compiled)


_MODELS: dict[str, Callable[[Any, Compile], None]] = {
    "Paraformer": _paraformer,
    "ParaformerStreaming": compile_streaming,
    "FsmnVADStreaming": _fsmn_vad,
    "CTTransformer": _punctuation,
    "CTTransformerStreaming": _streaming_punctuation,
    "SenseVoiceSmall": _sense_voice,
}
