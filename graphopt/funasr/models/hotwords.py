"""What the kinds of Paraformer that take hotwords have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.funasr.models.model_class import SPLITS, Captured, Compile, ModelDirectory
from graphopt.funasr.models.paraformer import SPECIAL, Spelling, describe_spelling
from graphopt.funasr.text.hotwords import HotwordEncoder, read_pieces
from graphopt.runtime.fields import Count
from graphopt.runtime.loaded import open_module
from graphopt.runtime.sealed import SealedFolder

if TYPE_CHECKING:
    from torch import nn

HOTWORDS = 5  # of the example inputs


@dataclass(frozen=True)
class HotwordPart(Spelling):
    """What a package says of them.

    Attributes:
        empty: the token id that stands for no hotword.
        unknown: the token that stands for others.
    """

    empty: Count
    unknown: str

    def __post_init__(self) -> None:
        """Refuses tokens that are not there.

        Raises:
            ValueError: naming one.
        """
        super().__post_init__()
        if self.empty >= len(self.tokens) or self.unknown not in self.tokens:
            raise ValueError(f"empty {self.empty} or unknown {self.unknown!a:.60} is no token")


def describe_hotwords(
    directory: ModelDirectory, settings: dict[str, Any], clock: dict[str, Any] | None
) -> dict[str, Any]:
    """The fields of `HotwordPart`.

    Args:
        directory: of the model.
        settings: its `model_conf`.
        clock: the fields of `PeakTimes` or `FineTimes`; None if it tells no times.

    Raises:
        ValueError: if `unk_symbol` is no token.
    """
    return {
        **describe_spelling(directory, settings, clock),
        "empty": settings.get("sos", SPECIAL["sos"]),
        "unknown": directory.unknown,
    }


def files(directory: ModelDirectory) -> dict[str, Path | None]:
    """The tokens of words."""
    return {SPLITS: directory.splits}


def capture_step(model: Any, embedding: nn.Module) -> Captured:
    """A step of the LSTM that encodes hotwords.

    Args:
        model: FunASR's.
        embedding: of tokens.

    Raises:
        UnsupportedFunasrModelError: if its encoder of hotwords is no LSTM in one direction.
    """
    import torch

    from graphopt.funasr.layers.bias_encoder import HotwordStep, bias_encoder, empty_state

    encoder = bias_encoder(model)
    ids = torch.zeros(HOTWORDS, dtype=torch.int64)
    return {"hotwords": (HotwordStep(embedding, encoder), (ids, empty_state(encoder, HOTWORDS)))}


def open_encoder(package: SealedFolder, part: HotwordPart, threads: int | None) -> HotwordEncoder:
    """What encodes the hotwords of a package.

    Args:
        package: of the model.
        part: what it says besides its graphs.
        threads: of a run; all CPUs if None.
    """
    ids = {token: i for i, token in enumerate(part.tokens)}
    pieces = read_pieces(package.text(SPLITS)) if SPLITS in package else None
    step = open_module(package.folder("hotwords"), threads)
    return HotwordEncoder(step, ids, ids[part.unknown], part.empty, pieces)


def compile_encoder(model: Any, compile_part: Compile) -> None:
    """Puts a compiled step of the LSTM into a FunASR model.

    Raises:
        UnsupportedFunasrModelError: as for `capture_step`.
    """
    import torch

    from graphopt.funasr.auto_parts.hotwords import LstmPart
    from graphopt.funasr.layers.bias_encoder import LstmStep, bias_encoder, empty_state

    encoder = bias_encoder(model)
    inputs = torch.randn(HOTWORDS, encoder.input_size)
    compiled = compile_part(LstmStep(encoder), (inputs, empty_state(encoder, HOTWORDS)))
    model.bias_encoder = LstmPart(encoder, compiled)
