"""Packages of a whole recognizer: model directories in, a folder that needs no torch out.

name.gopt/
recognizer.json   front end, vocabulary and mean and variance of each model, in JSON
asr/              the package of Paraformer, from features to token ids
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import ModelDirectoryError, PackageCorruptError, PackageError
from graphopt.funasr.directory import FrontendConfig, ModelDirectory, build_model, read_directory
from graphopt.funasr.features import features, read_wav
from graphopt.funasr.text import tokens_to_text
from graphopt.loaded import LoadedModule, load

Array = np.ndarray[Any, Any]

_DESCRIPTION = "recognizer.json"
_FORMAT = 1
_ROLES = {"Paraformer": "asr"}
_EXAMPLE = (2, 100)  # utterances and frames


def compile_directories(
    paths: Sequence[str | Path], target: str, precision: str, out: str | Path
) -> None:
    """Compiles model directories into one package.

    Args:
        paths: model directories of FunASR, one for each task; one must recognize speech.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        out: the folder to make; an older package there is replaced.

    Raises:
        ModelDirectoryError: naming what is not understood, or two models of one task.
        PackageError: if something that is no package is in the way.
    """
    out = Path(out).absolute()
    found: dict[str, ModelDirectory] = {}
    for directory in map(read_directory, paths):
        role = _ROLES[directory.model]
        if role in found:
            raise ModelDirectoryError(directory.path, f"{found[role].path} is an {role} model too")
        found[role] = directory
    if out.exists() and not (out / _DESCRIPTION).is_file():
        raise PackageError(f"{out} exists and is no package; remove it or choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        staging = Path(folder) / "new"
        staging.mkdir()
        for role, directory in found.items():
            _compile(directory, target, precision, staging / role)
        parts = {role: _describe(directory) for role, directory in found.items()}
        text = json.dumps({"format": _FORMAT, "parts": parts}, ensure_ascii=False, indent=1)
        (staging / _DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            os.replace(out, Path(folder) / "old")
        os.replace(staging, out)


def _compile(directory: ModelDirectory, target: str, precision: str, path: Path) -> None:
    import torch

    from graphopt.funasr.paraformer import Paraformer
    from graphopt.module import optimize

    batch, frames = _EXAMPLE
    width = directory.frontend.lfr_m * directory.frontend.n_mels
    speech = torch.randn(batch, frames, width, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([frames, frames // 2], dtype=torch.int32)
    module = optimize(
        Paraformer(build_model(directory)),
        target,
        (speech, lengths),
        precision=precision,
        strict=True,
    )
    module.save(path)


def _describe(directory: ModelDirectory) -> dict[str, Any]:
    return {
        "model": directory.model,
        "frontend": asdict(directory.frontend),
        "tokens": directory.tokens,
        "cmvn": None if directory.cmvn is None else directory.cmvn.astype(float).tolist(),
        "special": [directory.config.get("model_conf", {}).get(k, v) for k, v in _SPECIAL.items()],
    }


#: Token ids that are no text, and what FunASR's models take them for.
_SPECIAL = {"blank_id": 0, "sos": 1, "eos": 2}


@dataclass(frozen=True)
class Recognizer:
    """Speech to text by a package: needs numpy and kaldi-native-fbank.

    Attributes:
        module: features f32[B, T, F] and lengths i32[B] to token ids and their counts.
        frontend: the front end.
        cmvn: mean and variance, or None.
        tokens: the vocabulary.
        special: token ids that are no text.
    """

    module: LoadedModule
    frontend: FrontendConfig
    cmvn: Array | None
    tokens: tuple[str, ...]
    special: frozenset[int]

    def transcribe(self, wav: str | Path) -> str:
        """The text of a WAV file of 16-bit samples; empty if nothing is said.

        Raises:
            AudioFileError: if it is no such file, or of another sample rate.
        """
        return self.recognize(read_wav(wav, self.frontend.fs))

    def recognize(self, samples: Array) -> str:
        """The text of f32 samples in [-1, 1)."""
        speech = features(samples, self.frontend, self.cmvn)
        if not len(speech):
            return ""
        ids, counts = self.module(speech[None], np.array([len(speech)], np.int32))
        spoken = (int(i) for i in ids[0, : int(counts[0])])
        return tokens_to_text(self.tokens[i] for i in spoken if i not in self.special)


def load_recognizer(path: str | Path, num_threads: int | None = None) -> Recognizer:
    """Opens a package of :func:`compile_directories`.

    Args:
        path: the folder.
        num_threads: threads of a run; all CPUs that this process may use if None.

    Raises:
        PackageError: if it is none.
        PackageCorruptError: if a file is missing, altered or makes no sense.
        PackageTargetError: when run, if this CPU lacks what the package is built for.
    """
    path = Path(path)
    file = path / _DESCRIPTION
    if not file.is_file():
        raise PackageError(f"{path} has no {_DESCRIPTION}; make one with graphopt compile funasr")
    try:
        part = json.loads(file.read_text(encoding="utf-8"))["parts"]["asr"]
        cmvn = None if part["cmvn"] is None else np.array(part["cmvn"], np.float32)
        tokens, special = tuple(part["tokens"]), frozenset(part["special"])
        frontend = FrontendConfig(**part["frontend"])
    except (ValueError, KeyError, TypeError) as error:
        raise PackageCorruptError(path, f"{_DESCRIPTION}: {error}") from error
    return Recognizer(load(path / "asr", num_threads), frontend, cmvn, tokens, special)
