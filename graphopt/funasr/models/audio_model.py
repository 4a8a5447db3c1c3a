"""Models that hear: a graph behind a front end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.funasr.audio.features import check_front_end, feature_rows, features
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.models.model_class import ModelDirectory
from graphopt.runtime.loaded import LoadedModule, open_module
from graphopt.runtime.sealed import SealedFolder

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]

FRAMES = 100  # of the example inputs


@dataclass(frozen=True)
class Sound:
    """What a package says of a front end.

    Attributes:
        frontend: from samples to features.
        cmvn: shift and scale of features, or None.
    """

    frontend: FrontendConfig
    cmvn: tuple[tuple[float, ...], tuple[float, ...]] | None

    def __post_init__(self) -> None:
        """Refuses shift and scale of other features.

        Raises:
            ValueError: saying how many there are.
        """
        width = self.frontend.lfr_m * self.frontend.n_mels
        if self.cmvn is not None and [len(row) for row in self.cmvn] != [width, width]:
            raise ValueError(f"cmvn is not of {width} features")


def describe_sound(directory: ModelDirectory) -> dict[str, Any]:
    """The fields of `Sound`."""
    return {
        "frontend": asdict(directory.frontend),
        "cmvn": None if directory.cmvn is None else directory.cmvn.astype(float).tolist(),
    }


def open_front_end(part: Sound) -> tuple[FrontendConfig, Array | None]:
    """The front end of a part, and f32[2, features], its shift and scale, or None.

    Raises:
        ValueError: if there is no such filter bank.
    """
    check_front_end(part.frontend)
    return part.frontend, None if part.cmvn is None else np.array(part.cmvn, np.float32)


@dataclass(frozen=True)
class AudioModel:
    """A compiled model behind its front end.

    Attributes:
        module: the graph.
        frontend: from samples to features.
        cmvn: f32[2, features], shift and scale, or None.
    """

    module: LoadedModule
    frontend: FrontendConfig
    cmvn: Array | None

    def features(self, samples: Array) -> Array:
        """f32[T, features] of a signal; a `SamplesError` says what is none."""
        return features(samples, self.frontend, self.cmvn, self.module.map)

    def rows(self, samples: Array, begin: int, end: int) -> Array:
        """Some of the rows of :meth:`features`, computed alone.

        Args:
            samples: f32[samples] that `check_samples` passed.
            begin: the first of the rows.
            end: behind the last.

        Returns:
            f32[end - begin, features].
        """
        return feature_rows(samples, self.frontend, self.cmvn, begin, end, self.module.map)


def open_audio(
    folder: SealedFolder, part: Sound, threads: int | None
) -> tuple[LoadedModule, FrontendConfig, Array | None]:
    """The attributes of an `AudioModel`.

    Args:
        folder: the package of the graph.
        part: what is said of its front end.
        threads: of a run; all CPUs if None.

    Raises:
        ValueError: if there is no such filter bank.
    """
    return open_module(folder, threads), *open_front_end(part)


def example_speech(directory: ModelDirectory, batch: int = 2) -> Tensor:
    """Random features for capture, f32[batch, FRAMES, features]."""
    import torch

    width = directory.frontend.lfr_m * directory.frontend.n_mels
    return torch.randn(batch, FRAMES, width, generator=torch.Generator().manual_seed(0))


def example_lengths() -> Tensor:
    """Frames of two utterances for capture, i32[2]: one fills the batch, the other half of it."""
    import torch

    return torch.tensor([FRAMES, FRAMES // 2], dtype=torch.int32)
