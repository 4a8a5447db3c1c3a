"""FsmnVADStreaming: where speech is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from graphopt.errors import RecognizerOptionError
from graphopt.funasr.audio.features import count_features
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.samples import check_samples
from graphopt.funasr.audio.vad import OPTIONS, Segment, VadConfig, blocks_of, segments
from graphopt.funasr.models.audio_model import (
    AudioModel,
    Sound,
    describe_sound,
    example_speech,
    open_audio,
)
from graphopt.funasr.models.model_class import (
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Understood,
)
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DetectorPart(Sound):
    """What a package says of it.

    Attributes:
        detector: settings of the decisions.
    """

    detector: VadConfig


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    config = VadConfig.read(settings, directory.frontend)
    return {**describe_sound(directory), "detector": asdict(config)}


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    from graphopt.funasr.layers.fsmn_vad import empty_cache

    inputs = (example_speech(directory, 1), empty_cache(model.encoder, 1))
    return {"vad": (model.encoder, inputs)}


@dataclass(frozen=True)
class VoiceDetector(AudioModel):
    """Where speech is, by FSMN-VAD.

    Attributes:
        config: settings of the decisions.
    """

    config: VadConfig

    def find(self, samples: Array) -> list[Segment]:
        """Start and end of each segment of speech in a signal, milliseconds.

        Raises:
            SamplesError: if it is none, as for `check_samples`.
        """
        samples = check_samples(samples)
        return segments(self._scores(samples), self.config)

    def with_options(self, options: Mapping[str, Any]) -> VoiceDetector:
        """The same detector with other settings; see `VadConfig.change`.

        Raises:
            RecognizerOptionError: naming what is not understood, with all that is.
        """
        config = change_detector(self.config, options, self.frontend)
        if problem := self._misfit(config):
            raise RecognizerOptionError("VAD option", *problem)
        return replace(self, config=config)

    def check(self) -> None:
        """Refuses settings that are not for this graph.

        Raises:
            ValueError: if a class that is silence is none of its classes.
        """
        if problem := self._misfit(self.config):
            raise ValueError(problem[0])

    def _misfit(self, config: VadConfig) -> tuple[str, list[str]] | None:
        classes = self.module.manifest.outputs[0].shape[-1]
        if isinstance(classes, int) and max(config.sil_pdf_ids) < classes:
            return None
        return f"sil_pdf_ids {config.sil_pdf_ids} of {classes} classes", [
            f"classes below {classes}"
        ]

    def _scores(self, samples: Array) -> Iterator[Array]:
        """Likelihoods of the classes of each frame, f32[T, classes], for a minute at a time."""
        cache, end = self.empty_cache(), 0
        none = np.zeros((0, 1 + max(self.config.sil_pdf_ids)), np.float32)
        frames = count_features(len(samples), self.frontend)
        for count in blocks_of(frames, len(samples), self.frontend):
            begin, end = end, end + count
            rows = self.rows(samples, begin, end)
            yield self.module(rows[None], cache)[0] if count else none

    def empty_cache(self) -> dict[str, Array]:
        """Zeros for the frames before the first."""
        ports = self.module.manifest.inputs[1:]
        prefix = "cache_"
        return {port.name.removeprefix(prefix): port.zeros({0: 1}) for port in ports}


def change_detector(
    config: VadConfig, options: Mapping[str, Any], frontend: FrontendConfig
) -> VadConfig:
    """`VadConfig.change` for options of a user.

    Args:
        config: the settings to begin with; it is not changed.
        options: others, by FunASR's names.
        frontend: what gives the frames.

    Raises:
        RecognizerOptionError: naming what is not understood, with all that is.
    """
    if not isinstance(options, Mapping):
        raise RecognizerOptionError("VAD options", options, ["a map of", *OPTIONS])
    try:
        return config.change(options, frontend)
    except ValueError as error:
        raise RecognizerOptionError("VAD option", error, OPTIONS) from error


def _open(package: SealedFolder, part: DetectorPart, threads: int | None) -> VoiceDetector:
    detector = VoiceDetector(*open_audio(package.folder("vad"), part, threads), part.detector)
    detector.check()
    return detector


def _compile_parts(model: Any, compile_part: Compile) -> None:
    import torch

    from graphopt.funasr.auto_parts.fsmn_vad import CachedEncoderPart
    from graphopt.funasr.auto_parts.parts import FRAMES
    from graphopt.funasr.layers.fsmn_vad import empty_cache

    encoder = model.encoder
    feats = torch.randn(1, FRAMES, encoder.input_dim)
    compiled = compile_part(encoder, (feats, empty_cache(encoder, 1)))
    model.encoder = CachedEncoderPart(encoder, compiled)


MODEL = ModelClass(
    name="FsmnVADStreaming",
    task="vad",
    understood=Understood(
        ("funasr.models.fsmn_vad_streaming.model", "funasr.models.fsmn_vad_streaming.encoder"),
        {"encoder": ("FSMN",), "frontend": ("WavFrontendOnline",)},
        passed=OPTIONS,
    ),
    part=DetectorPart,
    describe=_describe,
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
)
