"""Models by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from graphopt.dependencies import require
from graphopt.errors import UnknownModelError
from graphopt.user_functions import NoFunction, function_named
from graphopt.zoo import fsmn_vad, paraformer
from graphopt.zoo.official import catalog as official

Model = tuple[Any, tuple[Any, ...]]  # module in eval mode, example inputs


def _fsmn_vad() -> Model:
    torch = require("torch", "FSMN-VAD")
    auto_model = fsmn_vad.load_vad()
    encoder = auto_model.model.encoder
    feats = torch.randn(1, 100, encoder.input_dim, generator=torch.Generator().manual_seed(0))
    return encoder, fsmn_vad.encoder_inputs(auto_model, feats)


def _paraformer() -> Model:
    own = require("graphopt.funasr.layers.paraformer", "Paraformer")
    return own.Paraformer(paraformer.whole_paraformer()), paraformer.example_inputs()


def _paraformer_encoder() -> Model:
    encoder, _ = paraformer.paraformer_large()
    return encoder, paraformer.example_inputs()


def _paraformer_decoder() -> Model:
    _, decoder = paraformer.paraformer_large(blocks=2)
    torch = require("torch", "Paraformer")
    memory = torch.randn(1, 167, paraformer.WIDTH, generator=torch.Generator().manual_seed(0))
    return decoder, paraformer.decoder_inputs(memory, torch.tensor([167], dtype=torch.int32))


MODELS: dict[str, Callable[[], Model]] = {
    "fsmn-vad": _fsmn_vad,
    "paraformer": _paraformer,
    "paraformer-encoder": _paraformer_encoder,
    "paraformer-decoder": _paraformer_decoder,
    **{name: partial(official.build, name) for name in official.NETWORKS},
}


def build_model(name: str) -> Model:
    """Build a model of the zoo, or one that the user's function returns.

    Args:
        name: A key of ``MODELS``, or ``module:function`` with a module that can be imported from
            the current folder, or ``file.py:function``; the function takes nothing and returns
            ``(model, example_inputs)``.

    Raises:
        UnknownModelError: If there is no such model, module or function.
        MissingDependencyError: If the model's package is not installed.
    """
    if name in MODELS:
        return MODELS[name]()
    if ":" not in name:
        raise UnknownModelError(name, MODELS, "it is not known")
    try:
        function = function_named(name)
    except NoFunction as missing:
        raise UnknownModelError(name, MODELS, str(missing)) from None
    built = function()
    if not (isinstance(built, tuple) and len(built) == 2 and isinstance(built[1], (tuple, list))):
        raise UnknownModelError(name, MODELS, "the function returned something else")
    return built[0], tuple(built[1])
