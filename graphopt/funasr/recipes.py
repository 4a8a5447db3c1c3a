"""What a package holds of each of FunASR's models: a module to capture, and its description."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from graphopt.funasr.audio.vad import VadConfig
from graphopt.funasr.directory import ModelDirectory
from graphopt.funasr.text.punctuation import PunctuationConfig

if TYPE_CHECKING:
    from torch import nn

_FRAMES, _WORDS, _HOTWORDS = 100, 12, 5  # of the example inputs
#: Token ids that are no text, and what FunASR's models take them for.
_SPECIAL = {"blank_id": 0, "sos": 1, "eos": 2}

#: By the folder of a package, modules and their example inputs.
Captured = dict[str, tuple["nn.Module", tuple[Any, ...]]]


class _Capture(Protocol):
    def __call__(self, model: Any, directory: ModelDirectory) -> Captured: ...


class _Describe(Protocol):
    def __call__(self, directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Recipe:
    """How a model gets into a package.

    Attributes:
        role: what it does there: `asr`, `vad` or `punc`.
        capture: of FunASR's model, the modules and their example inputs; one has the role's name.
        describe: of its `model_conf`, what decisions need; a ValueError names settings that are
            not understood.
    """

    role: str
    capture: _Capture
    describe: _Describe


def _speech(directory: ModelDirectory, batch: int) -> Any:
    import torch

    width = directory.frontend.lfr_m * directory.frontend.n_mels
    return torch.randn(batch, _FRAMES, width, generator=torch.Generator().manual_seed(0))


def _audio(directory: ModelDirectory) -> dict[str, Any]:
    return {
        "frontend": asdict(directory.frontend),
        "cmvn": None if directory.cmvn is None else directory.cmvn.astype(float).tolist(),
    }


def _capture_paraformer(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.paraformer import TimedParaformer
    from graphopt.funasr.layers.predictor_times import capture_times

    lengths = torch.tensor([_FRAMES, _FRAMES // 2], dtype=torch.int32)
    asr = TimedParaformer(model), (_speech(directory, 2), lengths)
    return {"asr": asr, **capture_times(model.predictor)}


def _describe_paraformer(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    special = [settings.get(name, token) for name, token in _SPECIAL.items()]
    # FunASR tells the times of this predictor's tokens, and spaces its text for them.
    spaced = directory.config["predictor"] == "CifPredictorV3"
    return {
        **_audio(directory),
        "tokens": directory.tokens,
        "special": special,
        "spaced": spaced,
        "clock": _describe_clock(directory),
    }


def _describe_clock(directory: ModelDirectory) -> dict[str, Any] | None:
    """What times of tokens are made of; None if the model tells none."""
    settings = directory.config.get("predictor_conf") or {}
    if directory.config["predictor"] == "CifPredictorV3":
        if settings.get("upsample_type", "cnn") != "cnn_blstm":
            return None
        return {
            "finer": settings.get("upsample_times", 5),
            "smooth": settings.get("smooth_factor2", 1.0),
            "noise": settings.get("noise_threshold2", 0),
            "threshold": settings.get("threshold", 1.0),
        }
    if directory.model not in ("Paraformer", "BiCifParaformer"):
        return None
    default = 0.45 if directory.config["predictor"] == "CifPredictor" else 0.0
    tail = settings.get("tail_threshold", default)
    if type(tail) not in (int, float):
        raise ValueError(f"predictor_conf.tail_threshold: {tail!r:.60}")
    return {"tail": int(tail > 0)}


def _unknown(directory: ModelDirectory) -> str:
    """The token that stands for others."""
    unknown: str = (directory.config.get("tokenizer_conf") or {}).get("unk_symbol", "<unk>")
    if unknown not in directory.tokens:
        raise ValueError(f"unk_symbol: {unknown!s:.60}, which is no token")
    return unknown


def _capture_contextual(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.contextual import ContextualParaformer

    embedding = model.decoder.embed if model.use_decoder_embedding else model.bias_embed
    step = _hotword_step(model, embedding)
    speech, lengths = _speech(directory, 2), torch.tensor([_FRAMES, _FRAMES // 2])
    hotwords = torch.randn(2, _HOTWORDS, model.bias_encoder.hidden_size)
    inputs = (speech, lengths.int(), hotwords)
    return {"asr": (ContextualParaformer(model), inputs), "hotwords": step}


def _capture_seaco(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.contextual import HotwordBias, HotwordScores, SeacoParaformer
    from graphopt.funasr.layers.predictor_times import capture_times

    lengths = torch.tensor([_FRAMES, _FRAMES // 2], dtype=torch.int32)
    tokens = torch.randn(2, _WORDS, model.bias_encoder.hidden_size)
    hotwords = torch.randn(2, _HOTWORDS, tokens.shape[2])
    every, counts = torch.tensor([_HOTWORDS] * 2).int(), torch.tensor([_WORDS, _WORDS // 2]).int()
    ids = torch.zeros(2, _WORDS, dtype=torch.int64)
    inputs = (hotwords, every, tokens, tokens.clone(), counts, ids)
    return {
        "asr": (SeacoParaformer(model), (_speech(directory, 2), lengths)),
        "hotwords": _hotword_step(model, model.decoder.embed),
        "bias": (HotwordBias(model), inputs),
        "scores": (HotwordScores(model.seaco_decoder), (hotwords, every, tokens, counts)),
        **capture_times(model.predictor),
    }


def _hotword_step(model: Any, embedding: nn.Module) -> tuple[nn.Module, tuple[Any, ...]]:
    import torch

    from graphopt.funasr.layers.bias_encoder import HotwordStep, bias_encoder, empty_state

    encoder = bias_encoder(model)
    ids = torch.zeros(_HOTWORDS, dtype=torch.int64)
    return HotwordStep(embedding, encoder), (ids, empty_state(encoder, _HOTWORDS))


def _describe_hotwords(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    empty = settings.get("sos", _SPECIAL["sos"])
    described = _describe_paraformer(directory, settings)
    return {**described, "empty": empty, "unknown": _unknown(directory)}


def _capture_streaming(model: Any, directory: ModelDirectory) -> Captured:
    from graphopt.funasr.layers.streaming import DecidingChunk, WeighingChunk, unsupported

    problem = unsupported(model.encoder, model.decoder)
    if problem is not None:
        raise ValueError(f"{problem[0]}, not {problem[1]}")
    encoder = WeighingChunk(model.encoder, model.predictor)
    decoder = DecidingChunk(model.decoder)
    return {"asr": (encoder, encoder.example()), "decoder": (decoder, decoder.example())}


def _describe_streaming(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    predictor = directory.config.get("predictor_conf") or {}
    return {
        **_describe_paraformer(directory, settings),
        "threshold": predictor.get("threshold", 1.0),
        "tail_threshold": predictor.get("tail_threshold", 0.0),
    }


def _capture_sense_voice(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.sense_voice import SenseVoice

    lengths = torch.tensor([_FRAMES, _FRAMES // 2], dtype=torch.int32)
    asked = torch.zeros(2, dtype=torch.int64)
    return {"asr": (SenseVoice(model), (_speech(directory, 2), lengths, asked, asked.clone()))}


def _describe_sense_voice(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {**_audio(directory), "blank": settings.get("blank_id", _SPECIAL["blank_id"])}


def _capture_vad(model: Any, directory: ModelDirectory) -> Captured:
    from graphopt.funasr.layers.fsmn_vad import empty_cache

    return {"vad": (model.encoder, (_speech(directory, 1), empty_cache(model.encoder, 1)))}


def _describe_vad(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {**_audio(directory), "detector": asdict(VadConfig.read(settings, directory.frontend))}


def _capture_punctuation(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.ct_transformer import Marks

    text = torch.zeros(1, _WORDS, dtype=torch.int64)
    return {"punc": (Marks(model), (text, torch.tensor([_WORDS], dtype=torch.int32)))}


def _capture_streaming_punctuation(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.ct_transformer import StreamingMarks

    text = torch.zeros(1, _WORDS, dtype=torch.int64)
    lengths, before = torch.tensor([_WORDS], dtype=torch.int32), torch.tensor([_WORDS // 2])
    return {"punc": (StreamingMarks(model), (text, lengths, before))}


def _describe_punctuation(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokens": directory.tokens,
        "unknown": _unknown(directory),
        "punctuation": asdict(PunctuationConfig.read(settings)),
    }


RECIPES = {
    "Paraformer": Recipe("asr", _capture_paraformer, _describe_paraformer),
    "BiCifParaformer": Recipe("asr", _capture_paraformer, _describe_paraformer),
    "ContextualParaformer": Recipe("asr", _capture_contextual, _describe_hotwords),
    "SeacoParaformer": Recipe("asr", _capture_seaco, _describe_hotwords),
    "ParaformerStreaming": Recipe("asr", _capture_streaming, _describe_streaming),
    "SenseVoiceSmall": Recipe("asr", _capture_sense_voice, _describe_sense_voice),
    "FsmnVADStreaming": Recipe("vad", _capture_vad, _describe_vad),
    "CTTransformer": Recipe("punc", _capture_punctuation, _describe_punctuation),
    "CTTransformerStreaming": Recipe("punc", _capture_streaming_punctuation, _describe_punctuation),
}
