"""Models by name, for the command line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from graphopt.dependencies import require
from graphopt.errors import UnknownModelError
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
    module_name, colon, function_name = name.rpartition(":")
    if not colon:
        raise UnknownModelError(name, MODELS, "it is not known")
    module = _module(name, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UnknownModelError(name, MODELS, f"no function {function_name!r} in {module_name}")
    built = function()
    if not (isinstance(built, tuple) and len(built) == 2 and isinstance(built[1], (tuple, list))):
        raise UnknownModelError(name, MODELS, "the function returned something else")
    return built[0], tuple(built[1])


def _module(name: str, module_name: str) -> ModuleType:
    """The module of the user's function, by its name or by its file."""
    file = Path(module_name)
    folder = str(file.resolve().parent if file.suffix == ".py" else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if file.suffix == ".py":
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if not file.is_file() or spec is None or spec.loader is None:
            raise UnknownModelError(name, MODELS, f"no file {module_name!r}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise UnknownModelError(name, MODELS, f"no module {module_name!r}") from error
