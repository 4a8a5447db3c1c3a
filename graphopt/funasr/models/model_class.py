"""What is known of a model class of FunASR.

Each class has a file in this room, and a line in `table.py`. These files are imported without
torch, so that packages load without it. What a class needs torch for (`capture`, `compile_parts`)
imports its modules from `graphopt.funasr.layers` and `graphopt.funasr.auto_parts` when called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.runtime.fields import Length
from graphopt.runtime.sealed import SealedFolder

if TYPE_CHECKING:
    from torch import nn

Array = np.ndarray[Any, Any]
#: A vocabulary, by token id.
Tokens = Annotated[tuple[str, ...], Length(1, 1 << 20)]

#: By the folder of a package, modules and their example inputs.
Captured = dict[str, tuple["nn.Module", tuple[Any, ...]]]
#: Compiles a module in eval mode for example inputs.
Compile = Callable[["nn.Module", tuple[Any, ...]], "nn.Module"]

#: Names of files that a package has besides graphs.
PIECES = "pieces.model"
SPLITS = "splits"


@dataclass(frozen=True)
class ModelDirectory:
    """What a directory holds, read but not yet built.

    Attributes:
        path: the directory.
        config: config.yaml.
        frontend: its front end; FunASR's defaults for a model of text.
        tokens: the vocabulary, by token id; empty for a model without one.
        cmvn: f32[2, lfr_m * n_mels], shift and scale of features; None without am.mvn.
        weights: path of the weights.
        pieces: path of the vocabulary where it is one of sentencepiece, else None.
        splits: path of the tokens of words, by which hotwords are split; None without one.
        text_splits: the same for texts; None if every character is a token.
    """

    path: Path
    config: dict[str, Any]
    frontend: FrontendConfig
    tokens: tuple[str, ...]
    cmvn: Array | None
    weights: Path
    pieces: Path | None
    splits: Path | None
    text_splits: Path | None

    @property
    def model(self) -> str:
        """Name of FunASR's model class."""
        return str(self.config["model"])

    @property
    def unknown(self) -> str:
        """The token that stands for others.

        Raises:
            ValueError: if it is no token.
        """
        unknown: str = (self.config.get("tokenizer_conf") or {}).get("unk_symbol", "<unk>")
        if unknown not in self.tokens:
            raise ValueError(f"unk_symbol: {unknown!s:.60}, which is no token")
        return unknown


@dataclass(frozen=True)
class Understood:
    """What is understood of a model directory.

    Attributes:
        modules: of FunASR, which define the class; its own first.
        parts: the classes that are understood of each part.
        settings: the values that are understood of a setting, the default first.
        least: the least value that is understood of a setting, which is its default too.
        passed: settings of `model_conf` that FunASR's class reads without naming them.
    """

    modules: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    settings: dict[str, tuple[object, ...]] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    passed: tuple[str, ...] = ()


def _no_files(directory: ModelDirectory) -> dict[str, Path | None]:
    return {}


@dataclass(frozen=True)
class ModelClass:
    """A model class.

    Attributes:
        name: of FunASR's class.
        task: what it does in a package: `asr`, `vad`, `punc` or `align`.
        understood: of a model directory.
        part: a dataclass of what a package says of it besides its graphs.
        describe: of a directory and its `model_conf`, the fields of `part`; a ValueError names
            settings that are not understood.
        capture: of FunASR's model and its directory, the modules of a package and their example
            inputs; a ValueError names what is not understood.
        files: of a directory, the files that a package has besides, by the name that they have
            there; None for those that are missing.
        open: of a package, its `part` and the number of threads (all CPUs if None), what runs it
            without torch; a ValueError says what makes no sense in `part`.
        compile_parts: puts compiled parts into a FunASR model in the places of its own.
        in_batches: whether FunASR lets it recognize several recordings at once.
    """

    name: str
    task: str
    understood: Understood
    part: type[Any]
    describe: Callable[[ModelDirectory, dict[str, Any]], dict[str, Any]]
    capture: Callable[[Any, ModelDirectory], Captured]
    open: Callable[[SealedFolder, Any, int | None], Any]
    compile_parts: Callable[[Any, Compile], None]
    files: Callable[[ModelDirectory], dict[str, Path | None]] = _no_files
    in_batches: bool = False
