"""BiCifParaformer: a Paraformer that tells times by the finer frames of CifPredictorV3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphopt.funasr.models import paraformer
from graphopt.funasr.models.model_class import ModelDirectory, Understood
from graphopt.funasr.text.clocks import describe_fine_times


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return paraformer.describe_spelling(directory, settings, describe_fine_times(directory.config))


MODEL = replace(
    paraformer.MODEL,
    name="BiCifParaformer",
    understood=Understood(
        ("funasr.models.bicif_paraformer.model", *paraformer.MODULES),
        {**paraformer.PARTS, "predictor": ("CifPredictorV3",)},
    ),
    describe=_describe,
)
