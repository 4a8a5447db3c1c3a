"""The model classes of FunASR that are known, by name."""

from __future__ import annotations

from graphopt.funasr.models import (
    bicif_paraformer,
    contextual_paraformer,
    ct_transformer,
    ct_transformer_streaming,
    fsmn_vad_streaming,
    monotonic_aligner,
    paraformer,
    paraformer_streaming,
    seaco_paraformer,
    sense_voice,
)
from graphopt.funasr.models.model_class import ModelClass

_FILES = (
    paraformer,
    bicif_paraformer,
    contextual_paraformer,
    seaco_paraformer,
    paraformer_streaming,
    fsmn_vad_streaming,
    sense_voice,
    ct_transformer,
    ct_transformer_streaming,
    monotonic_aligner,
)
MODELS: dict[str, ModelClass] = {file.MODEL.name: file.MODEL for file in _FILES}
