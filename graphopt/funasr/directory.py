"""Model directories as FunASR lays them out: config.yaml, model.pt, am.mvn, tokens.json, bpe.model.

`configuration.json`, where there is one, gives the files other names, as FunASR's hub does.
What a directory says and graphopt does not understand is an error that names it: a setting that is
passed over could change every result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from graphopt.errors import ModelDirectoryError
from graphopt.funasr.model_kinds import KINDS, TOKENIZER, TRAINING
from graphopt.zoo.dependencies import keep_process_settings, require

Array = np.ndarray[Any, Any]


#: Of frames, by Kaldi's names.
WINDOWS = ("hamming", "hanning", "povey", "blackman", "rectangular")


@dataclass(frozen=True)
class FrontendConfig:
    """The feature front end: filter bank, stacking and hopping of frames.

    Attributes:
        fs: samples per second.
        window: one of WINDOWS.
        n_mels: filters.
        frame_length: of a window, in milliseconds.
        frame_shift: between windows, in milliseconds.
        lfr_m: frames that are stacked to one.
        lfr_n: frames from one stack to the next.
        dither: standard deviation of noise on the samples; 0 or the result is random.
        snip_edges: whether only windows that lie within the signal count.
        upsacle_samples: whether samples in [-1, 1] are scaled to 16 bits (FunASR's spelling).
    """

    fs: int = 16000
    window: str = "hamming"
    n_mels: int = 80
    frame_length: float = 25
    frame_shift: float = 10
    lfr_m: int = 1
    lfr_n: int = 1
    dither: float = 1.0
    snip_edges: bool = True
    upsacle_samples: bool = True

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self._samples(self.frame_length)

    @property
    def shift_samples(self) -> int:
        """Samples from the beginning of a window to that of the next."""
        return self._samples(self.frame_shift)

    def _samples(self, milliseconds: float) -> int:
        """Whole samples in a time, in the float arithmetic of kaldi-native-fbank."""
        return int(np.float32(self.fs) * np.float32(0.001) * np.float32(milliseconds))


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
    """

    path: Path
    config: dict[str, Any]
    frontend: FrontendConfig
    tokens: tuple[str, ...]
    cmvn: Array | None
    weights: Path
    pieces: Path | None
    splits: Path | None

    @property
    def model(self) -> str:
        """Name of FunASR's model class."""
        return str(self.config["model"])


def read_directory(path: str | Path) -> ModelDirectory:
    """Reads a model directory.

    Raises:
        ModelDirectoryError: if a file is missing or unreadable, or something in it is not
            understood; names all of it.
    """
    path = Path(path)
    files = _files(path)
    config = _read_config(path, files["config"])
    problems = _unknown(config)
    settings = config.get("frontend_conf") or {}
    known = {
        name: value for name, value in settings.items() if name in FrontendConfig.__annotations__
    }
    problems += [
        f"frontend_conf.{name}" for name in settings if name not in known and name != "cmvn_file"
    ]
    if settings.get("window", WINDOWS[0]) not in WINDOWS:
        problems.append(f"frontend_conf.window: {settings['window']} ({', '.join(WINDOWS)})")
    if files["dictionary"].exists():
        raise ModelDirectoryError(path, f"not understood: {files['dictionary'].name}")
    if problems:
        raise ModelDirectoryError(path, f"not understood in config.yaml: {', '.join(problems)}")
    frontend = FrontendConfig(**known)
    tokenizer = config.get("tokenizer")
    pieces = files["pieces"] if tokenizer == "SentencepiecesTokenizer" else None
    tokens: tuple[str, ...] = ()
    if pieces is not None:
        tokens = _read_pieces(path, pieces)
    elif tokenizer is not None:
        tokens = _read_tokens(path, files["tokens"])
    cmvn = splits = None
    if files["cmvn"].is_file():
        cmvn = read_cmvn(files["cmvn"])
        width = frontend.n_mels * frontend.lfr_m
        if cmvn.shape != (2, width):
            raise ModelDirectoryError(
                path, f"{files['cmvn'].name} has {cmvn.shape[1]} values for {width} features"
            )
        # FunASR looks for it beside the mean and variance, and without these not at all.
        beside = files["cmvn"].with_name("seg_dict")
        splits = beside if beside.is_file() else None
    if not files["weights"].is_file():
        raise ModelDirectoryError(path, f"{files['weights'].name} is missing")
    return ModelDirectory(path, config, frontend, tokens, cmvn, files["weights"], pieces, splits)


def _files(path: Path) -> dict[str, Path]:
    """Paths of the files, with the names that configuration.json gives them."""
    names = {
        "config": "config.yaml",
        "weights": "model.pt",
        "tokens": "tokens.json",
        "pieces": "bpe.model",
        "dictionary": "jieba_usr_dict",
        "cmvn": "am.mvn",
    }
    listing = path / "configuration.json"
    if listing.is_file():
        try:
            given = json.loads(listing.read_text(encoding="utf-8")).get("file_path_metas", {})
            tokenizer = given.get("tokenizer_conf", {})
            cmvn = given.get("frontend_conf", {}).get("cmvn_file")
            found = {"tokens": tokenizer.get("token_list"), "pieces": tokenizer.get("bpemodel")}
            found |= {"config": given.get("config"), "weights": given.get("init_param")}
            found |= {"cmvn": cmvn, "dictionary": given.get("jieba_usr_dict")}
        except (ValueError, AttributeError) as error:
            raise ModelDirectoryError(path, f"configuration.json: {error}") from error
        names |= {role: name for role, name in found.items() if name}
    return {role: path / name for role, name in names.items()}


def _read_config(path: Path, file: Path) -> dict[str, Any]:
    yaml = require("yaml", "reading config.yaml")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelDirectoryError(path, f"{file.name}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ModelDirectoryError(path, f"{file.name} is no YAML: {error}") from error
    if not isinstance(config, dict) or "model" not in config:
        raise ModelDirectoryError(path, f"{file.name} names no model")
    return config


def _unknown(config: dict[str, Any]) -> list[str]:
    """What the configuration says and nothing here reads."""
    if config["model"] not in KINDS:
        return [f"model: {config['model']} (known: {', '.join(KINDS)})"]
    kind = KINDS[config["model"]]
    parts = kind.parts
    read = {"model", "model_conf", *parts, *(f"{part}_conf" for part in parts)}
    problems = [name for name in config if name not in read and name not in TRAINING]
    problems = [name for name in problems if name != "normalize" or config[name] is not None]
    for part, classes in parts.items():
        if config.get(part) not in classes:
            problems.append(f"{part}: {config.get(part)} (known: {', '.join(classes)})")
    for name, values in kind.settings.items():
        given = _setting(config, name, values[0])
        if given not in values:
            problems.append(f"{name}: {given} (known: {', '.join(map(str, values))})")
    for name, least in kind.least.items():
        if _setting(config, name, least) < least:
            problems.append(f"{name}: {_setting(config, name, least)} (known: {least} or more)")
    tokenizer = config.get("tokenizer_conf") or {}
    problems += [
        f"tokenizer_conf.{name}"
        for name, value in tokenizer.items()
        if name not in TOKENIZER and value is not None
    ]
    return problems


def _setting(config: dict[str, Any], name: str, default: Any) -> Any:
    """The value of `section.name`."""
    section, _, setting = name.partition(".")
    return (config.get(section) or {}).get(setting, default)


def _read_tokens(path: Path, file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8")
        tokens = json.loads(text) if file.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise ModelDirectoryError(path, f"{file.name}: {error}") from error
    if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
        raise ModelDirectoryError(path, f"{file.name} is no list of tokens")
    return tuple(tokens)


def _read_pieces(path: Path, file: Path) -> tuple[str, ...]:
    sentencepiece = require("sentencepiece", "reading SenseVoice's vocabulary")
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise ModelDirectoryError(path, f"{file.name}: {error}") from error
    return tuple(pieces.IdToPiece(i) for i in range(pieces.GetPieceSize()))


def read_cmvn(file: Path) -> Array:
    """Shift and scale, f32[2, features], of a kaldi nnet file with AddShift and Rescale.

    Raises:
        ModelDirectoryError: if the file has other parts than these two.
    """
    words = file.read_text(encoding="utf-8").split()
    rows = []
    for name in ("<AddShift>", "<Rescale>"):
        try:
            begin = words.index("[", words.index(name)) + 1
            rows.append(np.array(words[begin : words.index("]", begin)], np.float32))
        except ValueError as error:
            raise ModelDirectoryError(file.parent, f"{file.name} has no {name} [...]") from error
    if len(rows[0]) != len(rows[1]):
        raise ModelDirectoryError(file.parent, f"{file.name}: shift and scale differ in length")
    return np.stack(rows)


def build_model(directory: ModelDirectory) -> Any:
    """FunASR's own model of a directory, with its weights in f32, in eval mode.

    Raises:
        MissingDependencyError: if torch or FunASR is not installed.
        ModelDirectoryError: if FunASR makes no model of the settings, or weights cannot be read,
            are missing, left over or of other shapes.
    """
    modules = [require(name, "building FunASR's models") for name in KINDS[directory.model].modules]
    config = directory.config
    frontend = directory.frontend
    parts = ("encoder", "decoder", "predictor", "seaco_decoder")
    arguments = {k: v for k, v in config.items() if k.removesuffix("_conf") in parts}
    arguments |= dict(config.get("model_conf") or {})
    try:
        with keep_process_settings():
            model = getattr(modules[0], directory.model)(
                **arguments,
                input_size=frontend.n_mels * frontend.lfr_m,
                vocab_size=len(directory.tokens),
            )
    except (TypeError, ValueError, AssertionError) as error:
        problem = f"FunASR makes no {directory.model} of config.yaml: {error}"
        raise ModelDirectoryError(directory.path, problem) from error
    state = _read_weights(directory)
    wrong = _wrong_weights(model.state_dict(), state)
    if wrong:
        raise ModelDirectoryError(directory.path, f"{directory.weights.name}: {wrong}")
    model.load_state_dict(state)
    return model.float().eval().requires_grad_(False)


def _read_weights(directory: ModelDirectory) -> dict[str, Any]:
    """Tensors by name."""
    torch = require("torch", "building FunASR's models")
    name = directory.weights.name
    try:
        state = torch.load(directory.weights, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition(".")[0]
        raise ModelDirectoryError(directory.path, f"{name}: {reason}") from error
    if not isinstance(state, dict):
        raise ModelDirectoryError(directory.path, f"{name} holds no tensors by name")
    inner: dict[str, Any] | None = state.get("state_dict", state.get("model"))
    return state if inner is None else inner


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
