"""Packages of a whole recognizer: model directories in, a folder that needs no torch out.

name.gopt/
SHA256SUMS        of all files
recognizer.json   of each model what surrounds its graph: front end, vocabulary, settings
pieces.model      SenseVoice's vocabulary, as sentencepiece keeps it
splits            the tokens of words, by which hotwords, and texts to align, are split
asr/              the package of a Paraformer or SenseVoice, from features to token ids; of
                  Paraformer streaming, that of its encoder's chunks
decoder/          Paraformer streaming: from hidden frames and embeddings of a chunk to token ids
hotwords/         a step of the LSTM that encodes hotwords
bias/             SeACo-Paraformer: from token ids without hotwords to those with them
fine_frames/      CifPredictorV3: from hidden frames to the gates of the LSTM that tells times
both_ways/        a step of that LSTM
scores/           SeACo-Paraformer: how far each token attends to each hotword
vad/              the package of FSMN-VAD's encoder, from features to likelihoods
punc/             the package of CT-Transformer, from token ids to marks
align/            that of a MonotonicAligner, which stands alone, from features to hidden frames
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphopt.errors import ModelDirectoryError, PackageError, RecognizerOptionError
from graphopt.funasr.audio.vad import VadConfig
from graphopt.funasr.description import BESIDE, DESCRIPTION, FORMAT, read_part
from graphopt.funasr.directory import build_model, read_directory
from graphopt.funasr.models.fsmn_vad_streaming import change_detector
from graphopt.funasr.models.model_class import ModelDirectory
from graphopt.funasr.models.table import MODELS
from graphopt.runtime.sealed import seal
from graphopt.runtime.staging import check_place, replaced_folder
from graphopt.target import find_target


def compile_directories(
    paths: Sequence[str | Path],
    target: str,
    precision: str,
    out: str | Path,
    vad_options: Mapping[str, Any] | None = None,
) -> None:
    """Compiles model directories into one package.

    Args:
        paths: model directories of FunASR: one that recognizes speech, and none or one of those
            that find it and that punctuate its text; or one that aligns texts, alone.
        target: as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        out: the folder to make; an older package there is replaced.
        vad_options: settings of FSMN-VAD, as for `load_recognizer`, that take the place of those of
            its directory.

    Raises:
        UnknownTargetError, UnknownPrecisionError: for an unknown name.
        RecognizerOptionError: if an option of FSMN-VAD is none, or there is no FSMN-VAD.
        ModelDirectoryError: naming what is not understood, two models of one task, or one that
            the package has no use for.
        PackageError: if something that is no package is in the way, or nothing recognizes speech.
    """
    find_target(target).precision(precision)
    check_place(out, [DESCRIPTION])
    found: dict[str, ModelDirectory] = {}
    for directory in map(read_directory, paths):
        task = MODELS[directory.model].task
        if task in found:
            raise ModelDirectoryError(directory.path, f"{found[task].path} is an {task} model too")
        found[task] = directory
    leading = next((task for task in found if task in BESIDE), None)
    if leading is None:
        raise PackageError(
            f"nothing would recognize speech in {out}; add a Paraformer or SenseVoice directory"
        )
    for task, directory in found.items():
        if task not in (leading, *BESIDE[leading]):
            problem = f"a package for {leading} has no use for the task {task}; leave it out"
            raise ModelDirectoryError(directory.path, problem)
    parts = {task: describe(directory) for task, directory in found.items()}
    if vad_options:
        parts["vad"] = _with_options(parts.get("vad"), found.get("vad"), vad_options)
    with replaced_folder(out, [DESCRIPTION]) as staging:
        for directory in found.values():
            _compile(directory, target, precision, staging)
        text = json.dumps({"format": FORMAT, "parts": parts}, indent=1)
        (staging / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        seal(staging)


def _compile(directory: ModelDirectory, target: str, precision: str, folder: Path) -> None:
    """Writes the packages of a model and the files that its text needs."""
    from graphopt.compiler.adapter import ModuleAdapter
    from graphopt.compiler.options import Options

    model, kind = build_model(directory), MODELS[directory.model]
    for name, (module, inputs) in captured_parts(model, directory).items():
        options = Options.of(target=target, precision=precision, example_inputs=inputs, strict=True)
        ModuleAdapter().optimize(module, options).save(folder / name)
    for name, file in kind.files(directory).items():
        if file is not None:
            shutil.copy(file, folder / name)


def captured_parts(model: Any, directory: ModelDirectory) -> dict[str, tuple[Any, Any]]:
    """The modules of a model that are captured, each in eval mode, with example inputs.

    Raises:
        ModelDirectoryError: if the layers do not run with the settings of the directory.
    """
    try:
        captured = MODELS[directory.model].capture(model, directory)
    except ValueError as error:
        raise ModelDirectoryError(directory.path, f"not understood: {error}") from error
    for module, inputs in captured.values():
        _run(directory, module.eval(), inputs)
    return captured


def _run(directory: ModelDirectory, module: Any, inputs: tuple[Any, ...]) -> None:
    """Runs a part once in torch, where settings show with which FunASR's layers fail.

    Raises:
        ModelDirectoryError: if they do.
    """
    import torch

    try:
        with torch.no_grad():
            module(*copy.deepcopy(inputs))
    except Exception as error:  # of whatever torch makes of such layers
        reason = " ".join(str(error).split())[:300]
        problem = f"FunASR's layers do not run with the settings of config.yaml: {reason}"
        raise ModelDirectoryError(directory.path, problem) from error


def _with_options(
    described: dict[str, Any] | None, directory: ModelDirectory | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    if described is None or directory is None:
        raise RecognizerOptionError("vad_options", dict(options), ["none without an FSMN-VAD"])
    config = VadConfig(**described["detector"])
    changed = change_detector(config, options, directory.frontend)
    return {**described, "detector": asdict(changed)}


def describe(directory: ModelDirectory) -> dict[str, Any]:
    """What a package says of a model besides its graphs.

    Raises:
        ModelDirectoryError: naming a setting that is not understood.
    """
    settings = directory.config.get("model_conf") or {}
    kind = MODELS[directory.model]
    try:
        described = {"model": kind.name, **kind.describe(directory, settings)}
        read_part(kind.task, described)
    except ValueError as error:
        raise ModelDirectoryError(
            directory.path, f"not understood in config.yaml: {error}"
        ) from error
    return described
