"""Packages of a whole recognizer: model directories in, a folder that needs no torch out.

name.gopt/
recognizer.json   of each model front end, mean and variance, vocabulary or detector, in JSON
asr/              the package of Paraformer, from features to token ids
vad/              the package of FSMN-VAD's encoder, from features to likelihoods
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphopt.errors import ModelDirectoryError, PackageError
from graphopt.funasr.directory import ModelDirectory, build_model, read_directory
from graphopt.funasr.recognizer import DESCRIPTION, FORMAT
from graphopt.funasr.vad import VadConfig

_ROLES = {"Paraformer": "asr", "FsmnVADStreaming": "vad"}
_FRAMES = 100  # of the example inputs
#: Token ids that are no text, and what FunASR's models take them for.
_SPECIAL = {"blank_id": 0, "sos": 1, "eos": 2}


def compile_directories(
    paths: Sequence[str | Path], target: str, precision: str, out: str | Path
) -> None:
    """Compiles model directories into one package.

    Args:
        paths: model directories of FunASR: one that recognizes speech, and one that finds it or
            none.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        out: the folder to make; an older package there is replaced.

    Raises:
        ModelDirectoryError: naming what is not understood, or two models of one task.
        PackageError: if something that is no package is in the way, or nothing recognizes speech.
    """
    out = Path(out).absolute()
    found: dict[str, ModelDirectory] = {}
    for directory in map(read_directory, paths):
        role = _ROLES[directory.model]
        if role in found:
            raise ModelDirectoryError(directory.path, f"{found[role].path} is an {role} model too")
        found[role] = directory
    if "asr" not in found:
        raise PackageError(f"nothing would recognize speech in {out}; add a Paraformer directory")
    if out.exists() and not (out / DESCRIPTION).is_file():
        raise PackageError(f"{out} exists and is no package; remove it or choose another name")
    parts = {role: _describe(directory) for role, directory in found.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        staging = Path(folder) / "new"
        staging.mkdir()
        for role, directory in found.items():
            _compile(directory, target, precision, staging / role)
        text = json.dumps({"format": FORMAT, "parts": parts}, ensure_ascii=False, indent=1)
        (staging / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            os.replace(out, Path(folder) / "old")
        os.replace(staging, out)


def _compile(directory: ModelDirectory, target: str, precision: str, path: Path) -> None:
    import torch

    from graphopt.funasr.paraformer import Paraformer
    from graphopt.module import optimize
    from graphopt.zoo.fsmn_vad import empty_cache

    model = build_model(directory)
    width = directory.frontend.lfr_m * directory.frontend.n_mels
    generator = torch.Generator().manual_seed(0)
    inputs: tuple[Any, ...]
    if _ROLES[directory.model] == "asr":
        lengths = torch.tensor([_FRAMES, _FRAMES // 2], dtype=torch.int32)
        module, inputs = (
            Paraformer(model),
            (
                torch.randn(2, _FRAMES, width, generator=generator),
                lengths,
            ),
        )
    else:
        module = model.encoder
        inputs = (
            torch.randn(1, _FRAMES, width, generator=generator),
            empty_cache(module, 1),
        )
    optimize(module, target, inputs, precision=precision, strict=True).save(path)


def _describe(directory: ModelDirectory) -> dict[str, Any]:
    settings = directory.config.get("model_conf") or {}
    described: dict[str, Any] = {
        "model": directory.model,
        "frontend": asdict(directory.frontend),
        "cmvn": None if directory.cmvn is None else directory.cmvn.astype(float).tolist(),
    }
    if _ROLES[directory.model] == "asr":
        special = [settings.get(name, token) for name, token in _SPECIAL.items()]
        return {**described, "tokens": directory.tokens, "special": special}
    try:
        return {**described, "detector": asdict(VadConfig.read(settings))}
    except ValueError as error:
        raise ModelDirectoryError(
            directory.path, f"not understood in model_conf of config.yaml: {error}"
        ) from error
