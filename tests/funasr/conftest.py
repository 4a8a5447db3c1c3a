"""Packages that several files of tests open."""

from pathlib import Path
from typing import Any

import pytest

from graphopt.funasr.package import compile_directories
from graphopt.zoo import fsmn_vad
from graphopt.zoo.recognizer import MODEL
from tests.support.made_once import made_once


def _package(factory: Any, name: str, *folders: Path, precision: str = "fp32") -> Path:
    return made_once(
        factory,
        f"{name}.gopt",
        lambda path: compile_directories(list(folders), "native", precision, path),
    )


@pytest.fixture(scope="session")
def plain_package(tmp_path_factory: Any) -> Path:
    """The small recognizer alone, in fp32."""
    return _package(tmp_path_factory, "plain", MODEL)


@pytest.fixture(scope="session")
def int8_package(tmp_path_factory: Any) -> Path:
    """The small recognizer alone, in int8."""
    return _package(tmp_path_factory, "int8", MODEL, precision="int8")


@pytest.fixture(scope="session")
def detecting_package(tmp_path_factory: Any) -> Path:
    """The small recognizer with FSMN-VAD, in fp32."""
    return _package(tmp_path_factory, "detecting", fsmn_vad.model_folder(), MODEL)


@pytest.fixture(scope="session")
def seaco_folder(tmp_path_factory: Any) -> Path:
    """A model directory of SeACo-Paraformer."""
    from tests.support.paraformer_directories import seaco

    return made_once(tmp_path_factory, "seaco", seaco)


@pytest.fixture(scope="session")
def seaco_package(tmp_path_factory: Any, seaco_folder: Path) -> Path:
    """SeACo-Paraformer, in fp32."""
    return _package(tmp_path_factory, "seaco", seaco_folder)


@pytest.fixture(scope="session")
def punctuation_folder(tmp_path_factory: Any) -> Path:
    """A model directory of CT-Transformer."""
    from tests.support.funasr_directories import ct_transformer

    return made_once(tmp_path_factory, "punctuation", ct_transformer)


@pytest.fixture(scope="session")
def full_package(tmp_path_factory: Any, punctuation_folder: Path) -> Path:
    """The small recognizer with FSMN-VAD and CT-Transformer, in fp32."""
    folders = punctuation_folder, MODEL, fsmn_vad.model_folder()
    return _package(tmp_path_factory, "full", *folders)
