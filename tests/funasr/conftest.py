"""Packages that several files of tests open."""

from pathlib import Path
from typing import Any

import pytest

from graphopt.funasr.package import compile_directories
from graphopt.zoo import fsmn_vad
from graphopt.zoo.recognizer import MODEL


@pytest.fixture(scope="session")
def plain_package(tmp_path_factory: Any) -> Path:
    """The small recognizer alone, in fp32."""
    path: Path = tmp_path_factory.mktemp("plain") / "asr.gopt"
    compile_directories([MODEL], "native", "fp32", path)
    return path


@pytest.fixture(scope="session")
def detecting_package(tmp_path_factory: Any) -> Path:
    """The small recognizer with FSMN-VAD, in fp32."""
    path: Path = tmp_path_factory.mktemp("detecting") / "asr.gopt"
    compile_directories([fsmn_vad.model_folder(), MODEL], "native", "fp32", path)
    return path


@pytest.fixture(scope="session")
def seaco_folder(tmp_path_factory: Any) -> Path:
    """A model directory of SeACo-Paraformer."""
    from tests.support.paraformer_directories import seaco

    return seaco(tmp_path_factory.mktemp("seaco") / "seaco")


@pytest.fixture(scope="session")
def seaco_package(seaco_folder: Path) -> Path:
    """SeACo-Paraformer, in fp32."""
    path = seaco_folder.with_suffix(".gopt")
    compile_directories([seaco_folder], "native", "fp32", path)
    return path


@pytest.fixture(scope="session")
def punctuation_folder(tmp_path_factory: Any) -> Path:
    """A model directory of CT-Transformer."""
    from tests.support.funasr_directories import ct_transformer

    return ct_transformer(tmp_path_factory.mktemp("punctuation") / "model")


@pytest.fixture(scope="session")
def full_package(punctuation_folder: Path) -> Path:
    """The small recognizer with FSMN-VAD and CT-Transformer, in fp32."""
    path = punctuation_folder.with_name("asr.gopt")
    folders = [punctuation_folder, MODEL, fsmn_vad.model_folder()]
    compile_directories(folders, "native", "fp32", path)
    return path
