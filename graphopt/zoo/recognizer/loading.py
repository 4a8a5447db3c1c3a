"""The small recognizer, loaded by FunASR's own code, and its recordings of held-out voices."""

from __future__ import annotations

import copy
import json
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.dependencies import keep_process_settings, quiet_auto_model, require
from graphopt.zoo.recognizer import MODEL, RECORDINGS
from graphopt.zoo.recognizer.speech import (
    SAMPLE_RATE,
    Signal,
    recorded_utterances,
    synthesize,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_recognizer(folder: Path = MODEL) -> Any:
    """A Paraformer directory as a quiet ``funasr.AutoModel`` on the CPU.

    Raises:
        MissingDependencyError: If FunASR is not installed.
    """
    return quiet_auto_model(folder, "running the recognizer")


def transcribe(auto_model: Any, wav: Path | str) -> str:
    """The text of a recording, as ``AutoModel.generate`` gives it; "" if it hears nothing."""
    with keep_process_settings():
        result = auto_model.generate(input=str(wav))
    return str(result[0]["text"]) if result else ""


def export_parts(auto_model: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Encoder, predictor and decoder: FunASR's export forms of the first and the last.

    Returns:
        ``encoder(speech f32[B, T, 560], lengths i32[B]) -> (f32[B, T, D], i32[B])``,
        FunASR's ``CifPredictorV2``, and ``decoder(memory f32[B, T, D], lengths i32[B],
        embeds f32[B, N, D], token_lengths i32[B]) -> (f32[B, N, V], i32[B])``, in eval mode.
        They share nothing with ``auto_model``. The largest length must equal the padded size.
    """
    sanm = require("funasr.models.sanm.encoder", "exporting the recognizer")
    paraformer = require("funasr.models.paraformer.decoder", "exporting the recognizer")
    model = copy.deepcopy(auto_model.model).eval().requires_grad_(False)
    with keep_process_settings():
        encoder = sanm.SANMEncoderExport(model.encoder)
        decoder = paraformer.ParaformerSANMDecoderExport(model.decoder)
    return encoder.eval(), model.predictor, decoder.eval()


def features(auto_model: Any, signal: Signal) -> Tensor:
    """What the encoder takes for f32[samples] at 16 kHz: f32[1, T, 560], by FunASR's front end."""
    torch = require("torch", "computing features")
    speech: Tensor = torch.from_numpy(signal)[None]
    stacked: Tensor = auto_model.kwargs["frontend"](speech, torch.tensor([len(signal)]))[0]
    return stacked


def recordings() -> dict[Path, str]:
    """Recordings (16-bit mono WAV, 16 kHz) of held-out voices, and what they say."""
    texts: dict[str, str] = json.loads((RECORDINGS / "texts.json").read_text(encoding="utf-8"))
    return {RECORDINGS / name: text for name, text in texts.items()}


def write_recordings(folder: Path) -> None:
    """Make the recordings and ``texts.json``, which says what they say.

    Raises:
        MissingToolError: If espeak-ng is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for utterance in recorded_utterances():
        path = folder / f"{utterance.variant}.wav"
        _write_wav(path, synthesize(utterance))
        texts[path.name] = utterance.text
    text = json.dumps(texts, ensure_ascii=False, indent=1)
    (folder / "texts.json").write_text(text + "\n", encoding="utf-8")


def _write_wav(path: Path, signal: Signal) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(signal * 32767).astype("<i2").tobytes())
