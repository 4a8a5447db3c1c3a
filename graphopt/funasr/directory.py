"""Model directories as FunASR lays them out: config.yaml, model.pt, am.mvn, tokens.json, bpe.model.

`configuration.json`, where there is one, gives the files other names, as FunASR's hub does.
What a directory says and graphopt does not understand is an error that names it: a setting that is
passed over could change every result.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from graphopt.dependencies import keep_process_settings, require
from graphopt.errors import ModelDirectoryError
from graphopt.funasr.audio.features import check_front_end
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.model_files import (
    read_cmvn,
    read_listing,
    read_pieces,
    read_tokens,
    read_yaml,
)
from graphopt.funasr.models.model_class import ModelDirectory, Understood
from graphopt.funasr.models.table import MODELS
from graphopt.plain_files import read_text
from graphopt.runtime.fields import read_fields

Array = np.ndarray[Any, Any]
Read = TypeVar("Read")

#: Settings of a tokenizer; others, such as dictionaries of pieces, change how it splits.
_TOKENIZER = {"token_list", "bpemodel", "unk_symbol", "split_with_space"}
#: Settings of training and of FunASR's own loops, which change nothing that a model computes.
_TRAINING = {
    *("specaug", "specaug_conf", "train_conf", "dataset", "dataset_conf", "optim", "optim_conf"),
    *("scheduler", "scheduler_conf", "ctc_conf", "normalize_conf", "seed", "ngpu"),
    *("input_size", "vocab_size", "batch_size", "disable_pbar", "init_param"),
}


def read_directory(path: str | Path) -> ModelDirectory:
    """Reads a model directory.

    Raises:
        ModelDirectoryError: if a file is missing or unreadable, or something in it is not
            understood; names all of it.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.isdir(path):
        raise ModelDirectoryError(path, "there is no such directory")
    path = Path(path)
    files = _files(path)
    config = _read(path, files["config"], read_yaml)
    problems = _unknown(config, files)
    if problems:
        name = files["config"].name
        raise ModelDirectoryError(path, f"not understood in {name}: {', '.join(problems)}")
    frontend = _front_end(path, config)
    tokenizer = config.get("tokenizer")
    pieces = files["pieces"] if tokenizer == "SentencepiecesTokenizer" else None
    tokens: tuple[str, ...] = ()
    if pieces is not None:
        tokens = _read(path, pieces, read_pieces)
    elif tokenizer is not None:
        tokens = _read(path, files["tokens"], read_tokens)
    cmvn = splits = None
    if os.path.lexists(files["cmvn"]):
        cmvn = _read(path, files["cmvn"], read_cmvn)
        width = frontend.n_mels * frontend.lfr_m
        if cmvn.shape != (2, width):
            raise ModelDirectoryError(
                path, f"{files['cmvn'].name} has {cmvn.shape[1]} values for {width} features"
            )
        # FunASR looks for it beside the mean and variance, and without these not at all.
        beside = files["cmvn"].with_name("seg_dict")
        splits = beside if os.path.lexists(beside) else None
    named = [files[role] for role in ("splits", "splits_file") if os.path.lexists(files[role])]
    for file in (splits, *named):
        if file is not None:
            _read(path, file, read_text)
    if not files["weights"].is_file():
        raise ModelDirectoryError(path, f"{files['weights'].name} is missing")
    return ModelDirectory(
        path,
        config,
        frontend,
        tokens,
        cmvn,
        files["weights"],
        pieces,
        splits,
        named[0] if named else None,
    )


def _read(path: Path, file: Path, read: Callable[[Path], Read]) -> Read:
    """What a file holds.

    Raises:
        ModelDirectoryError: naming the file, and what is wrong with it.
    """
    try:
        return read(file)
    except OSError as error:
        raise ModelDirectoryError(path, f"{file.name}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelDirectoryError(path, f"{file.name}: {error}") from error


#: By what graphopt calls a file, the name it has and where `configuration.json` gives another.
_FILES = {
    "config": ("config.yaml", "config"),
    "weights": ("model.pt", "init_param"),
    "tokens": ("tokens.json", "tokenizer_conf.token_list"),
    "pieces": ("bpe.model", "tokenizer_conf.bpemodel"),
    "cmvn": ("am.mvn", "frontend_conf.cmvn_file"),
    "dictionary": ("jieba_usr_dict", "jieba_usr_dict"),
    "splits": ("seg_dict", "tokenizer_conf.seg_dict"),
    "splits_file": ("seg_dict", "tokenizer_conf.seg_dict_file"),
}
_NAME_BYTES = 255  # of a file, on most file systems
_LISTING = "configuration.json"


def _files(path: Path) -> dict[str, Path]:
    """Paths of the files, with the names that configuration.json gives them.

    As in FunASR, what that does not name is not there, and nothing else of it is read: the rest
    tells hubs what the model is.
    """
    names = {role: name for role, (name, _) in _FILES.items()}
    if not os.path.lexists(path / "tokens.json") and os.path.lexists(path / "tokens.txt"):
        names["tokens"] = "tokens.txt"
    listing = path / _LISTING
    if os.path.lexists(listing):
        given = _read(path, listing, read_listing).get("file_path_metas")
        if given is not None:
            names |= {role: f"({_LISTING} names no {key})" for role, (_, key) in _FILES.items()}
            keys = {key: role for role, (_, key) in _FILES.items()}
            found = _named_files(path, given, "")
            if unknown := [key for key in found if key not in keys]:
                problem = f"{_LISTING}: file_path_metas.{unknown[0]} is not understood"
                raise ModelDirectoryError(path, problem)
            names |= {keys[key]: name for key, name in found.items()}
    return {role: path / name for role, name in names.items()}


def _named_files(path: Path, given: Any, where: str) -> dict[str, str]:
    """Names of files that lie in the directory, by `section.key`."""
    if not isinstance(given, dict):
        raise ModelDirectoryError(path, f"{_LISTING}: file_path_metas{where} is no map of names")
    found: dict[str, str] = {}
    for key, name in given.items():
        if isinstance(name, dict) and not where:
            found |= {f"{key}.{k}": v for k, v in _named_files(path, name, f".{key}").items()}
        elif not isinstance(name, str) or not name or not _is_inside(name):
            problem = f"{_LISTING}: file_path_metas{where}.{key}: {name!a:.60}"
            raise ModelDirectoryError(path, f"{problem} is no name of a file in the directory")
        else:
            found[key] = name
    return found


def _is_inside(name: str) -> bool:
    parts, is_short = PurePath(name).parts, len(name.encode(errors="replace")) <= _NAME_BYTES
    return is_short and not PurePath(name).is_absolute() and ".." not in parts and "\0" not in name


def _front_end(path: Path, config: dict[str, Any]) -> FrontendConfig:
    settings = {k: v for k, v in (config.get("frontend_conf") or {}).items() if k != "cmvn_file"}
    try:
        frontend = read_fields(FrontendConfig, settings, "frontend_conf")
        if config.get("frontend") is not None:
            check_front_end(frontend)
    except ValueError as error:
        raise ModelDirectoryError(path, f"not understood in config.yaml: {error}") from error
    return frontend


def _unknown(config: dict[str, Any], files: dict[str, Path]) -> list[str]:
    """What the configuration says and nothing here reads."""
    name = config.get("model")
    if not isinstance(name, str):
        return ["it names no model"]
    if name not in MODELS:
        return [f"model: {name} (known: {', '.join(MODELS)})"]
    kind = MODELS[name].understood
    parts = kind.parts
    read = {"model", "model_conf", *parts, *(f"{part}_conf" for part in parts)}
    problems = [name for name in config if name not in read and name not in _TRAINING]
    problems = [name for name in problems if name != "normalize" or config[name] is not None]
    for section in sorted(name for name in read if name.endswith("_conf")):
        if not isinstance(config.get(section) or {}, dict):
            problems.append(f"{section}, which is no map")
    if problems:
        return problems
    for part, classes in parts.items():
        if config.get(part) not in classes:
            problems.append(f"{part}: {config.get(part)!s:.60} (known: {', '.join(classes)})")
    for name, values in kind.settings.items():
        given = _setting(config, name, values[0])
        if given not in values:
            problems.append(f"{name}: {given!s:.60} (known: {', '.join(map(str, values))})")
    for name, least in kind.least.items():
        given = _setting(config, name, least)
        if type(given) is not int or given < least:
            problems.append(f"{name}: {given!s:.60} (known: {least} or more)")
    return problems + _elsewhere(config, kind, files)


def _elsewhere(config: dict[str, Any], kind: Understood, files: dict[str, Path]) -> list[str]:
    """Settings of the tokenizer that are not understood, and files outside of the directory."""
    tokenizer, front_end = (config.get(f"{s}_conf") or {} for s in ("tokenizer", "frontend"))
    problems = [
        f"tokenizer_conf.{name}"
        for name, value in tokenizer.items()
        if name not in _TOKENIZER and value is not None
    ]
    if os.path.lexists(files["dictionary"]):
        problems.append(files["dictionary"].name)
    if "frontend" not in kind.parts:  # text: FunASR splits it by such a file
        named = (files[role] for role in ("splits", "splits_file") if os.path.lexists(files[role]))
        problems += [file.name for file in named]
    for section, key, role in (
        (front_end, "cmvn_file", "cmvn"),
        (tokenizer, "token_list", "tokens"),
        (tokenizer, "bpemodel", "pieces"),
    ):
        if section.get(key) is not None and not files[role].exists():
            problems.append(f"{key}: {section[key]!r:.60}, which is no file of the directory")
    return problems


def _setting(config: dict[str, Any], name: str, default: Any) -> Any:
    """The value of `section.name`."""
    section, _, setting = name.partition(".")
    return (config.get(section) or {}).get(setting, default)


def build_model(directory: ModelDirectory) -> Any:
    """FunASR's own model of a directory, with its weights in f32, in eval mode.

    Raises:
        MissingDependencyError: if torch or FunASR is not installed.
        ModelDirectoryError: if FunASR makes no model of the settings, or weights cannot be read,
            are missing, left over or of other shapes.
    """
    understood = MODELS[directory.model].understood
    modules = [require(name, "building FunASR's models") for name in understood.modules]
    torch = require("torch", "building FunASR's models")
    kind = getattr(modules[0], directory.model)
    if problems := _unread(directory, kind):
        problem = f"not understood in config.yaml: {', '.join(problems)}"
        raise ModelDirectoryError(directory.path, problem)
    state = _read_weights(directory)
    _check_sizes(directory, len(state))
    # First without memory: settings that do not fit the weights might ask for any amount.
    with torch.device("meta"):
        model = _made(directory, kind)
    wrong = _wrong_weights(model.state_dict(), state)
    if wrong:
        raise ModelDirectoryError(directory.path, f"{directory.weights.name}: {wrong}")
    model = _made(directory, kind)
    model.load_state_dict(state)
    return model.float().eval().requires_grad_(False)


def _made(directory: ModelDirectory, kind: Any) -> Any:
    """FunASR's model with the weights that it starts from.

    Raises:
        ModelDirectoryError: if there is none of these settings.
    """
    config, frontend = directory.config, directory.frontend
    parts = ("encoder", "decoder", "predictor", "seaco_decoder")
    arguments = {k: v for k, v in config.items() if k.removesuffix("_conf") in parts}
    arguments |= {k: {} for k, v in arguments.items() if v is None}
    arguments |= dict(config.get("model_conf") or {})
    try:
        with keep_process_settings():
            return kind(
                **arguments,
                input_size=frontend.n_mels * frontend.lfr_m,
                vocab_size=len(directory.tokens),
            )
    except Exception as error:  # of whatever FunASR's layers make of the settings
        reason = " ".join(str(error).split())[:300]
        problem = f"FunASR makes no {directory.model} of config.yaml: {reason}"
        raise ModelDirectoryError(directory.path, problem) from error


#: Sections of `config.yaml` with the sizes of layers, and how large such a number is at most.
_SIZED, _LARGEST = ("encoder_conf", "decoder_conf", "predictor_conf", "seaco_decoder_conf"), 1 << 15


def _check_sizes(directory: ModelDirectory, tensors: int) -> None:
    """Refuses numbers of layers that no weights are for, and sizes that no layer has.

    Raises:
        ModelDirectoryError: naming the setting.
    """
    for section in _SIZED:
        for name, value in (directory.config.get(section) or {}).items():
            numbers = [v for v in (value if isinstance(value, list) else [value]) if type(v) is int]
            counts = "block" in name or "layer" in name
            most = tensors if counts else _LARGEST
            if any(abs(number) > most for number in numbers):
                problem = f"{section}.{name}: {value!r:.60} in config.yaml"
                reason = f"there are {tensors} weights" if counts else f"the most is {most}"
                raise ModelDirectoryError(directory.path, f"{problem}, but {reason}")


def _unread(directory: ModelDirectory, kind: Any) -> list[str]:
    """Settings of the model that FunASR takes in silence, or whose place is elsewhere."""
    known = {
        name
        for base in kind.__mro__
        if "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    understood = MODELS[directory.model].understood
    parts = understood.parts
    known |= set(understood.passed)
    known -= {"self", "input_size", "vocab_size", *parts, *(f"{part}_conf" for part in parts)}
    settings = directory.config.get("model_conf") or {}
    return [f"model_conf.{name}" for name in settings if name not in known]


def _read_weights(directory: ModelDirectory) -> dict[str, Any]:
    """Tensors by name.

    Raises:
        ModelDirectoryError: if the file holds anything else.
    """
    torch = require("torch", "building FunASR's models")
    name = directory.weights.name
    try:
        state = torch.load(directory.weights, map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever a damaged file makes torch and zipfile do
        reason = " ".join(str(error).split()).partition(". ")[0][:300] or type(error).__name__
        raise ModelDirectoryError(directory.path, f"{name}: {reason}") from error
    if isinstance(state, dict):
        state = state.get("state_dict", state.get("model", state))
    tensor = torch.Tensor
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, tensor) for name, value in state.items()
    ):
        raise ModelDirectoryError(directory.path, f"{name} holds no tensors by name")
    if bad := [name for name, value in state.items() if not _is_plain(value)]:
        problem = f"{name}: {bad[0]} has values that are not finite, or no floating-point ones"
        raise ModelDirectoryError(directory.path, problem)
    return state


def _is_plain(tensor: Any) -> bool:
    """Whether a weight is a dense tensor of finite numbers."""
    if str(tensor.layout) != "torch.strided" or tensor.is_complex() or tensor.is_quantized:
        return False
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _wrong_weights(expected: dict[str, Any], state: dict[str, Any]) -> str:
    """What keeps the weights from fitting, the first three of each kind; empty if they fit."""
    kinds = {
        "missing": [name for name in expected if name not in state],
        "not understood": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    )
