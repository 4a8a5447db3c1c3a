"""`graphopt.optimize` of a `funasr.AutoModel`: the same object interface, compiled parts inside.

FunASR's own loops stay: reading audio, the VAD's state machine, batches, hotwords, timestamps and
text. What they call for numbers (encoder, predictor, decoder) is compiled.
"""

from __future__ import annotations

import copy
from typing import Any

from graphopt.errors import UnsupportedFunasrModelError
from graphopt.frontend.model_check import check_mode
from graphopt.funasr.layers.paraformer import share_parameters
from graphopt.funasr.models.model_class import Compile
from graphopt.funasr.models.table import MODELS
from graphopt.funasr.sorted_inference import SortedInference


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
        if name not in MODELS:
            raise UnsupportedFunasrModelError(name, MODELS)
        check_mode(model)
        own = share_parameters(model)
        MODELS[name].compile_parts(own, lambda part, inputs: compile_part(part.eval(), inputs))
        setattr(optimized, role, own)
    if MODELS[type(optimized.model).__name__].in_batches:
        optimized.inference = SortedInference(optimized)
    return optimized
