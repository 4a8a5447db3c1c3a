"""What a package holds of each of FunASR's models: a module to capture, and its description."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from graphopt.funasr.directory import ModelDirectory
from graphopt.funasr.punctuation import PunctuationConfig
from graphopt.funasr.vad import VadConfig

if TYPE_CHECKING:
    from torch import nn

_FRAMES, _WORDS = 100, 12  # of the example inputs
#: Token ids that are no text, and what FunASR's models take them for.
_SPECIAL = {"blank_id": 0, "sos": 1, "eos": 2}

Captured = tuple["nn.Module", tuple[Any, ...]]


class _Capture(Protocol):
    def __call__(self, model: Any, directory: ModelDirectory) -> Captured: ...


class _Describe(Protocol):
    def __call__(self, directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Recipe:
    """How a model gets into a package.

    Attributes:
        role: what it does there: `asr`, `vad` or `punc`.
        capture: of FunASR's model, the module and its example inputs.
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

    from graphopt.funasr.paraformer import Paraformer

    lengths = torch.tensor([_FRAMES, _FRAMES // 2], dtype=torch.int32)
    return Paraformer(model), (_speech(directory, 2), lengths)


def _describe_paraformer(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    special = [settings.get(name, token) for name, token in _SPECIAL.items()]
    return {**_audio(directory), "tokens": directory.tokens, "special": special}


def _capture_sense_voice(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.sense_voice import SenseVoice

    lengths = torch.tensor([_FRAMES, _FRAMES // 2], dtype=torch.int32)
    asked = torch.zeros(2, dtype=torch.int64)
    return SenseVoice(model), (_speech(directory, 2), lengths, asked, asked.clone())


def _describe_sense_voice(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {**_audio(directory), "blank": settings.get("blank_id", _SPECIAL["blank_id"])}


def _capture_vad(model: Any, directory: ModelDirectory) -> Captured:
    from graphopt.zoo.fsmn_vad import empty_cache

    return model.encoder, (_speech(directory, 1), empty_cache(model.encoder, 1))


def _describe_vad(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {**_audio(directory), "detector": asdict(VadConfig.read(settings))}


def _capture_punctuation(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.ct_transformer import Marks

    text = torch.zeros(1, _WORDS, dtype=torch.int64)
    return Marks(model), (text, torch.tensor([_WORDS], dtype=torch.int32))


def _describe_punctuation(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    unknown = (directory.config.get("tokenizer_conf") or {}).get("unk_symbol", "<unk>")
    if unknown not in directory.tokens:
        raise ValueError(f"unk_symbol: {unknown}, which is no token")
    return {
        "tokens": directory.tokens,
        "unknown": unknown,
        "punctuation": asdict(PunctuationConfig.read(settings)),
    }


RECIPES = {
    "Paraformer": Recipe("asr", _capture_paraformer, _describe_paraformer),
    "SenseVoiceSmall": Recipe("asr", _capture_sense_voice, _describe_sense_voice),
    "FsmnVADStreaming": Recipe("vad", _capture_vad, _describe_vad),
    "CTTransformer": Recipe("punc", _capture_punctuation, _describe_punctuation),
}
